package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// expectedAge is how long blobs are kept that came for snapshots which did not: volumes of a bundle may be carried over weeks.
const expectedAge = 60 * 24 * time.Hour

func expectedName(id Digest) string { return path.Join(bundlesDir, id.String()) }

// Expect keeps blobs from being swept until Unexpect is called for the same id, or nothing was expected under it anew for sixty
// days: snapshots are going to name them that come bit by bit. It is durable.
func (s *Store) Expect(id Digest, blobs []Digest) error {
	var text bytes.Buffer
	for _, d := range blobs {
		fmt.Fprintln(&text, d)
	}
	err := s.disk.MkdirAll(bundlesDir, 0o755)
	if err == nil {
		err = s.disk.WriteFile(expectedName(id), text.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot note what bundle %v brings: %w", id, s.full(err))
	}
	return nil
}

// Unexpect ends Expect. It is no error if nothing is expected.
func (s *Store) Unexpect(id Digest) error {
	if !s.disk.Exists(expectedName(id)) {
		return nil
	}
	if err := s.disk.Remove(expectedName(id)); err != nil {
		return fmt.Errorf("cannot forget bundle %v: %w", id, err)
	}
	return nil
}

// keepExpected adds to k what is expected. Notes that are too old to count are left out, and so swept.
func (s *Store) keepExpected(k *keepers) error {
	list, err := s.files.readDir(bundlesDir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !isDigest(e) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if s.opts.Now().Sub(info.ModTime()) > expectedAge {
			continue
		}
		text, err := s.root.ReadFile(path.Join(bundlesDir, e.Name()))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if d, err := ParseDigest(strings.TrimSuffix(line, "\n")); err == nil {
				k.blobs[d] = true
			}
		}
	}
	return nil
}

// sweepExpected plans to remove the notes of bundles of which nothing came for long.
func (s *Store) sweepExpected(plan *SweepPlan) error {
	list, err := s.files.readDir(bundlesDir)
	if err != nil {
		return err
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil || !isDigest(e) || s.opts.Now().Sub(info.ModTime()) <= expectedAge {
			continue
		}
		d, _ := ParseDigest(e.Name())
		plan.Items = append(plan.Items, SweepItem{Kind: SweepBundle, Digest: d, Size: info.Size(), Why: "nothing of it came since " + info.ModTime().UTC().Format(time.RFC3339)})
	}
	return nil
}
