package cache

import (
	"fmt"
	"slices"
)

// Current returns the current snapshot of a stream, or ErrNoSnapshot.
func (s *Store) Current(stream string) (Snapshot, error) {
	sh := s.index.shelf(stream)
	if sh == nil {
		return Snapshot{}, fmt.Errorf("%w: stream %s has none", ErrNoSnapshot, stream)
	}
	return sh.kept[0].Snapshot, nil
}

// Snapshots returns the kept snapshots of a stream, newest first: the current
// one and those before it. The error is ErrNoSnapshot if there is none.
func (s *Store) Snapshots(stream string) ([]Snapshot, error) {
	sh := s.index.shelf(stream)
	if sh == nil {
		return nil, fmt.Errorf("%w: stream %s has none", ErrNoSnapshot, stream)
	}
	list := make([]Snapshot, len(sh.kept))
	for i := range sh.kept {
		list[i] = sh.kept[i].Snapshot
	}
	return list, nil
}

// Manifest is [Files.Manifest].
func (s *Store) Manifest(stream string, id Digest) (*Manifest, error) {
	return s.files.Manifest(stream, id)
}

// Find returns what a client of the stream gets under path: the entry of the
// current snapshot, else that of the newest older kept one that has it. The
// error is ErrMiss if none has. It is one lookup in the index and reads no
// file.
func (s *Store) Find(stream string, v View, path string) (Found, error) {
	sh := s.index.shelf(stream)
	if sh == nil {
		return Found{}, ErrMiss
	}
	e, at, err := s.index.find(sh, 0, v, path)
	if err != nil {
		return Found{}, err
	}
	return Found{Entry: e, Snapshot: sh.kept[at].ID, Current: at == 0}, nil
}

// Lookup returns the entry of path in one kept snapshot. The error is ErrMiss
// if it has none or is not kept.
func (s *Store) Lookup(stream string, id Digest, v View, path string) (Entry, error) {
	sh := s.index.shelf(stream)
	if sh == nil {
		return Entry{}, ErrMiss
	}
	from, kept := sh.byID[id]
	if !kept {
		return Entry{}, ErrMiss
	}
	e, at, err := s.index.find(sh, from, v, path)
	if err == nil && at != from {
		err = ErrMiss
	}
	if err != nil {
		return Entry{}, err
	}
	return e, nil
}

// Note returns a fact that SetNote recorded, or ErrMiss. Notes are lost with
// the index: they may save work, but nothing may depend on them.
func (s *Store) Note(key string) ([]byte, error) { return s.index.note(key) }

// SetNote records a fact of up to 64 KiB; nil removes it.
func (s *Store) SetNote(key string, value []byte) error {
	if err := s.roomForIndex(); err != nil {
		return err
	}
	return s.index.setNote(key, slices.Clone(value))
}
