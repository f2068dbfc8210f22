package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// A Pin keeps a snapshot until it is removed, whatever is given up otherwise.
type Pin struct {
	Snapshot Digest
	Time     time.Time // in whole seconds
	Reason   string    // one line
}

func pinName(id Digest) string { return path.Join(pinsDir, id.String()) }

// Pin pins a kept snapshot, for a reason of one line of up to 1000 bytes. A pin that is there gets the new reason. The error is
// ErrNoSnapshot where no stream keeps it.
func (s *Store) Pin(ctx context.Context, id Digest, reason string) error {
	if len(reason) > maxReason || hasControl(reason) {
		return fmt.Errorf("cannot pin a snapshot: the reason %q is not one short line", abbreviate(reason))
	}
	if err := s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer s.index.endTurn()
	kept, err := s.files.keeps(id)
	if err == nil && !kept {
		err = ErrNoSnapshot
	}
	if err == nil {
		text := s.opts.Now().UTC().Format(time.RFC3339) + " " + reason + "\n"
		err = s.full(s.disk.WriteFile(pinName(id), []byte(text), 0o644))
	}
	if err != nil {
		return fmt.Errorf("cannot pin snapshot %v: %w", id, err)
	}
	return nil
}

// Unpin removes a pin; the snapshot stays as long as others do. The error is ErrMiss where there is none.
func (s *Store) Unpin(ctx context.Context, id Digest) error {
	if err := s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer s.index.endTurn()
	_, err := s.root.Stat(pinName(id))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("snapshot %v is not pinned: %w", id, ErrMiss)
	}
	if err == nil {
		err = s.disk.Remove(pinName(id))
	}
	if err != nil {
		return fmt.Errorf("cannot unpin snapshot %v: %w", id, err)
	}
	return nil
}

// keeps reports whether a stream keeps a snapshot.
func (f *Files) keeps(id Digest) (bool, error) {
	streams, err := f.published()
	if err != nil {
		return false, err
	}
	for _, stream := range streams {
		ids, err := f.kept(stream)
		if err != nil {
			return false, err
		}
		if slices.Contains(ids, id) {
			return true, nil
		}
	}
	return false, nil
}

// Pins returns the pins, the newest first. Of one whose text is damaged time and reason are lost, and it counts as one. It needs
// no lock.
func (f *Files) Pins() ([]Pin, error) {
	ids, err := f.pins()
	if err != nil {
		return nil, err
	}
	var all []Pin
	for _, id := range ids {
		text, err := f.readFile(pinName(id), maxHeader)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		p := Pin{Snapshot: id}
		when, reason, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
		if t, err := time.Parse(time.RFC3339, when); err == nil {
			p.Time, p.Reason = t, reason
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Pin) int {
		return cmp.Or(b.Time.Compare(a.Time), a.Snapshot.Compare(b.Snapshot))
	})
	return all, nil
}
