package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// toServe returns the snapshots of a stream to put on the shelf, newest first.
//
// Where current/STREAM is lost or nonsense, or what it names is, they begin
// with the newest whole snapshot that no other whole one follows: all of its
// blobs were durable before it. In the former case that one is made current
// again. In the latter current/STREAM is left as it is, for a check to report
// and a backup to mend, and the next publication replaces it.
func (s *Store) toServe(ctx context.Context, stream string) ([]Digest, error) {
	ids, err := s.files.chain(stream)
	if len(ids) > 0 || err == nil {
		return ids, err
	}
	_, lost := s.files.currentID(stream)
	if lost != nil && !errors.Is(lost, ErrNoSnapshot) && !errors.Is(lost, ErrCorrupt) {
		return nil, err
	}
	id, newestErr := s.newest(ctx, stream)
	if newestErr != nil {
		return nil, newestErr
	}
	if id.IsZero() {
		return nil, err
	}
	s.recount = true // nothing says whether its publication came so far that its blobs left the account
	s.log.Warn("the current snapshot of a stream is lost, and the newest whole one takes its place",
		"stream", stream, "snapshot", id.String(), "reason", err)
	if lost != nil {
		if err := s.disk.WriteFile(currentName(stream), []byte(id.String()+"\n"), 0o644); err != nil {
			s.log.Error("cannot make a snapshot current", "stream", stream, "snapshot", id.String(), "reason", s.full(err))
		}
	}
	return s.files.chainFrom(stream, id)
}

// newest returns the newest of the whole snapshots of a stream that no other
// whole one follows, and the zero digest if there is none.
func (s *Store) newest(ctx context.Context, stream string) (Digest, error) {
	ids, err := s.files.manifests(stream)
	if err != nil {
		return Digest{}, err
	}
	followed := make(map[Digest]bool)
	var whole []Snapshot
	for _, id := range ids {
		if err := context.Cause(ctx); err != nil {
			return Digest{}, err
		}
		m, err := s.files.Manifest(stream, id)
		if err != nil {
			continue // it is reported by who reads what is kept
		}
		followed[m.Parent] = true
		whole = append(whole, Snapshot{ID: id, Created: m.Created})
	}
	whole = slices.DeleteFunc(whole, func(w Snapshot) bool { return followed[w.ID] })
	if len(whole) == 0 {
		return Digest{}, nil
	}
	return slices.MaxFunc(whole, func(a, b Snapshot) int {
		return cmp.Or(a.Created.Compare(b.Created), compareDigests(a.ID, b.ID))
	}).ID, nil
}

// unguarded returns the streams that have manifests and no file in current/.
func (f *Files) unguarded() ([]string, error) {
	archived, err := f.archived()
	if err != nil {
		return nil, err
	}
	published, err := f.published()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(archived, func(stream string) bool { return slices.Contains(published, stream) }), nil
}

// lostCurrent says why a stream without a file in current/ must have had one; nil
// if all that it has was left by a first publication that failed. Those that
// were there when the store was opened are served by now.
func (s *Store) lostCurrent(stream string) error {
	ids, err := s.files.manifests(stream)
	if err != nil || len(ids) == 0 {
		return err
	}
	lost := fmt.Errorf("cannot tell the current snapshot of %s: the file %s is lost", stream, currentName(stream))
	if s.index.shelf(stream) != nil {
		return lost
	}
	for _, id := range ids {
		m, err := s.files.Manifest(stream, id)
		if errors.Is(err, ErrNoSnapshot) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%w, and: %w", lost, err)
		}
		if !m.Parent.IsZero() {
			return lost
		}
	}
	return nil
}

// regular says whether a directory entry is a file like those of the store.
func regular(e fs.DirEntry) bool { return e.Type().IsRegular() }
