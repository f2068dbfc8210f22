package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
)

// Publish sorts m, makes it the current snapshot of its stream and returns its id. Its
// parent must be the current snapshot, or zero where there is none; otherwise
// the error is ErrMoved. All that m names, but for known files, must be in the
// store; the error names the first path that is not, and is ErrMiss.
//
// When Publish returns nil the snapshot is durable. When it fails, and after
// a crash, either the old or the new snapshot is current, and whole: blobs are
// durable before the manifest, the manifest before the index, and the index
// before the switch.
func (s *Store) Publish(ctx context.Context, m *Manifest) (Digest, error) {
	return s.PublishOver(ctx, m.Parent, m)
}

// PublishOver is Publish for a snapshot that another store has published, and that keeps its id: it follows the snapshot over here,
// whatever its parent is.
func (s *Store) PublishOver(ctx context.Context, over Digest, m *Manifest) (Digest, error) {
	m.Sort()
	if err := m.validate(); err != nil {
		return Digest{}, fmt.Errorf("cannot publish: %w", err)
	}
	if err := s.Flush(ctx); err != nil {
		return Digest{}, fmt.Errorf("cannot publish stream %s: %w", m.Stream, err)
	}
	if err := s.index.takeTurn(ctx); err != nil {
		return Digest{}, fmt.Errorf("cannot publish stream %s: %w", m.Stream, err)
	}
	defer s.index.endTurn()
	id, err := s.publish(ctx, over, m)
	if err != nil {
		return Digest{}, fmt.Errorf("cannot publish stream %s: %w", m.Stream, err)
	}
	return id, nil
}

func (s *Store) publish(ctx context.Context, over Digest, m *Manifest) (Digest, error) {
	h := newSums(Want{})
	size, _ := m.write(h)
	if size > MaxManifest {
		return Digest{}, fmt.Errorf("its manifest has %d bytes, more than %d", size, MaxManifest)
	}
	id := h.digest()
	var current Digest
	if sh := s.index.shelf(m.Stream); sh != nil {
		current = sh.kept[0].ID
	}
	if current == id { // maybe by an attempt that failed after the switch
		return id, s.disk.SyncDir(currentDir)
	}
	if over != current {
		return Digest{}, fmt.Errorf("%w: %v is current, not %v", ErrMoved, current, over)
	}
	held, err := s.withhold(m)
	if err != nil {
		return Digest{}, err
	}
	err = s.publishNew(ctx, id, over, m)
	if sh := s.index.shelf(m.Stream); sh != nil && sh.kept[0].ID == id { // which may be so in spite of an error
		s.promote(held)
	} else {
		s.giveBack(held)
	}
	if err != nil {
		return Digest{}, err
	}
	return id, nil
}

func (s *Store) publishNew(ctx context.Context, id, over Digest, m *Manifest) error {
	if err := s.present(m); err != nil {
		return err
	}
	if err := s.writeManifest(id, m); err != nil {
		return err
	}
	new, err := s.addEntries(ctx, id, m)
	if err != nil {
		return fmt.Errorf("cannot write the index: %w", err)
	}
	return s.switchTo(new, over)
}

func (s *Store) addEntries(ctx context.Context, id Digest, m *Manifest) (shelved, error) {
	defer s.step(stepIndex, "stream", m.Stream, "snapshot", id.String())()
	return s.index.addSnapshot(ctx, id, m)
}

// present makes sure that every blob that m names is in the store.
func (s *Store) present(m *Manifest) error {
	for _, e := range m.Entries {
		if e.Kind == KindKnown {
			continue
		}
		facts, err := s.blob(e.Digest)
		if err != nil {
			return fmt.Errorf("%s %s (%v): %w", e.Kind, e.Path, e.Digest, err)
		}
		if facts.Size != e.Size {
			return fmt.Errorf("%s %s (%v) has %d bytes in the store, not %d: %w", e.Kind, e.Path, e.Digest, facts.Size, e.Size, ErrCorrupt)
		}
	}
	return nil
}

func (s *Store) writeManifest(id Digest, m *Manifest) error {
	defer s.step(stepManifest, "stream", m.Stream, "snapshot", id.String())()
	name := manifestName(m.Stream, id)
	err := s.disk.MkdirAll(path.Dir(name), 0o755)
	if err == nil && s.index.shelf(m.Stream) == nil { // a first attempt may have made the directory and failed then
		err = s.disk.SyncDir(snapshotsDir)
	}
	if err != nil {
		return fmt.Errorf("cannot write the manifest: %w", s.full(err))
	}
	err = s.disk.WriteFunc(name, 0o644, func(w io.Writer) error {
		_, err := m.write(w)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot write the manifest: %w", s.full(err))
	}
	return nil
}

// switchTo makes a snapshot current that follows over: first in the files, then on the shelf.
// If the files may have switched in spite of an error, they decide.
func (s *Store) switchTo(new shelved, over Digest) error {
	defer s.step(stepSwitch, "stream", new.Stream, "snapshot", new.ID.String())()
	before, err := s.files.kept(new.Stream)
	var old []shelved
	if sh := s.index.shelf(new.Stream); sh != nil {
		old = sh.kept
	}
	switch {
	case errors.Is(err, ErrNoSnapshot) || errors.Is(err, ErrCorrupt): // what is served tells, if anything is
		for _, o := range old {
			before = append(before, o.ID)
		}
	case err != nil:
		return err
	}
	err = s.disk.WriteFile(currentName(new.Stream), encodeKept(succeeding(new.ID, over, before)), 0o644)
	if err != nil {
		err = fmt.Errorf("cannot make the new snapshot current: %w", s.full(err))
		if id, _ := s.files.currentID(new.Stream); id != new.ID {
			return err
		}
	}
	kept := append([]shelved{new}, old...)
	s.index.setShelf(new.Stream, newShelf(kept[:min(len(kept), maxKept)]))
	return err
}
