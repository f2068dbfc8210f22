package cache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// The file current/STREAM has the ids of the kept snapshots of a stream, a line each, the current one first and then those
// before it, newest first. One rename so makes a snapshot current, and another one forgets some: at every instant it is known
// which manifests count.

// maxKept bounds how many snapshots of a stream are kept: a new one every ten minutes for two months.
const maxKept = 10000

func encodeKept(ids []Digest) []byte {
	var text bytes.Buffer
	for _, id := range ids {
		fmt.Fprintf(&text, "%v\n", id)
	}
	return text.Bytes()
}

// kept returns the ids of the kept snapshots, newest first. The error is ErrNoSnapshot where there are none, or ErrCorrupt where
// the file says none.
func (f *Files) kept(stream string) ([]Digest, error) {
	if err := checkName(stream); err != nil {
		return nil, err
	}
	text, err := f.readFile(currentName(stream), maxKept*int64(2*len(Digest{})+1))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: stream %s has none", ErrNoSnapshot, stream)
	}
	var ids []Digest
	if err == nil {
		ids, err = parseKept(string(text))
	}
	if err != nil {
		err = fmt.Errorf("cannot read the current snapshot of %s: %w", stream, err)
		if errors.Is(err, ErrCorrupt) {
			err = &DamagedError{currentName(stream), err}
		}
		return nil, err
	}
	return ids, nil
}

// parseKept accepts only what encodeKept prints.
func parseKept(text string) ([]Digest, error) {
	if text == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	var ids []Digest
	for line := range strings.Lines(text) {
		id, err := ParseDigest(strings.TrimSuffix(line, "\n"))
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
		case !strings.HasSuffix(line, "\n"):
			return nil, fmt.Errorf("%w: its last line does not end", ErrCorrupt)
		case slices.Contains(ids, id):
			return nil, fmt.Errorf("%w: it names %v twice", ErrCorrupt, id)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// currentID returns the id of the current snapshot, or an error as kept does.
func (f *Files) currentID(stream string) (Digest, error) {
	ids, err := f.kept(stream)
	if err != nil {
		return Digest{}, err
	}
	return ids[0], nil
}

// succeeding returns what is kept once new is current: of those before it the one that it follows, and all that are older. What
// was newer than that could not be read when new was made.
func succeeding(new, parent Digest, kept []Digest) []Digest {
	ids := []Digest{new}
	if i := slices.Index(kept, parent); i >= 0 {
		ids = append(ids, kept[i:]...)
	}
	return ids[:min(len(ids), maxKept)]
}

// publishedOnce returns the whole snapshots of a stream that seem to have been published, newest first. It is for when the file
// that tells is lost. Of several that follow the same one, all but one were never current.
func (s *Store) publishedOnce(ctx context.Context, stream string) ([]Digest, error) {
	ids, err := s.files.manifests(stream)
	if err != nil {
		return nil, err
	}
	var rest []Snapshot
	for _, id := range ids {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		m, err := s.files.Manifest(stream, id)
		if err != nil {
			continue // it is reported by who reads what is kept
		}
		rest = append(rest, Snapshot{ID: id, Parent: m.Parent, Created: m.Created})
	}
	slices.SortFunc(rest, func(a, b Snapshot) int {
		return -cmp.Or(a.Created.Compare(b.Created), a.ID.Compare(b.ID))
	})
	return inTurn(rest), nil
}

// inTurn puts snapshots, newest first by their dates, in the order in which they followed one another: clocks may have gone back.
func inTurn(rest []Snapshot) (ids []Digest) {
	followed := make(map[Digest]bool) // those that one of ids follows
	for len(rest) > 0 {
		at := max(0, slices.IndexFunc(rest, func(s Snapshot) bool {
			return !slices.ContainsFunc(rest, func(other Snapshot) bool { return other.Parent == s.ID })
		}))
		for at >= 0 {
			next := rest[at]
			ids, followed[next.Parent] = append(ids, next.ID), true
			rest = slices.Delete(rest, at, at+1)
			at = slices.IndexFunc(rest, func(s Snapshot) bool { return s.ID == next.Parent })
		}
		rest = slices.DeleteFunc(rest, func(s Snapshot) bool { return followed[s.Parent] })
	}
	return ids
}
