package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// toServe returns the snapshots of a stream to put on the shelf, newest first.
//
// Where current/STREAM is lost or nonsense, they are all whole ones that seem to have been published, and the newest of them is
// made current again: all of its blobs were durable before it. Where the manifest that it names is lost, the one before it takes
// its place; current/STREAM is left as it is, for a check to report and a backup to mend, and the next publication replaces it.
func (s *Store) toServe(ctx context.Context, stream string) ([]Digest, error) {
	ids, lost := s.files.kept(stream)
	if lost == nil {
		return ids, nil
	}
	if !errors.Is(lost, ErrNoSnapshot) && !errors.Is(lost, ErrCorrupt) {
		return nil, lost
	}
	ids, err := s.publishedOnce(ctx, stream)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, lost
	}
	s.recount = true // nothing says whether the newest one's publication came so far that its blobs left the account
	s.log.Warn("it is lost which snapshot of a stream is current, and the newest whole one takes its place",
		"stream", stream, "snapshot", ids[0].String(), "reason", lost)
	if err := s.disk.WriteFile(currentName(stream), encodeKept(ids), 0o644); err != nil {
		s.log.Error("cannot make a snapshot current", "stream", stream, "snapshot", ids[0].String(), "reason", s.full(err))
	}
	return ids, nil
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
