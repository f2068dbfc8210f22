package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// expectedAge is how long blobs are kept that came for snapshots which did not: volumes of a bundle may be carried over weeks, and a
// tree be copied bit by bit.
const expectedAge = 60 * 24 * time.Hour

func expectedName(id Digest) string { return path.Join(bundlesDir, id.String()) }

// Expect keeps blobs from being swept until Unexpect is called for the same id, or nothing was expected under it anew for sixty
// days: snapshots are going to name them that come bit by bit. Those that are pulled are evicted no more. It is durable.
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
		return fmt.Errorf("cannot note what %v brings: %w", id, s.full(err))
	}
	expected := &keepers{blobs: make(map[Digest]bool)}
	for _, d := range blobs {
		expected.blobs[d] = s.isPulled(d)
	}
	if err := s.takeOut(slices.Clone(blobs), expected); err != nil {
		return fmt.Errorf("cannot keep what %v counts on: %w", id, err)
	}
	return nil
}

// Unexpect ends Expect. It is no error if nothing is expected.
func (s *Store) Unexpect(id Digest) error {
	if !s.disk.Exists(expectedName(id)) {
		return nil
	}
	if err := s.disk.Remove(expectedName(id)); err != nil {
		return fmt.Errorf("cannot forget what %v brings: %w", id, err)
	}
	return nil
}

// An expectation is a file that [Store.Expect] wrote.
type expectation struct {
	id    Digest
	size  int64     // in bytes
	since time.Time // when it was written last
}

// expectations returns what is expected, be it too old to count or not.
func (s *Store) expectations() (all []expectation, err error) {
	list, err := s.files.readDir(bundlesDir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if !isDigest(e) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // Unexpect came meanwhile
		}
		if err != nil {
			return nil, err
		}
		id, _ := ParseDigest(e.Name())
		all = append(all, expectation{id, info.Size(), info.ModTime()})
	}
	return all, nil
}

// inVain reports whether nothing came for so long that nobody waits for the rest.
func (s *Store) inVain(e expectation) bool { return s.opts.Now().Sub(e.since) > expectedAge }

// keepExpected adds to k the blobs that are expected, but for those in vain.
func (s *Store) keepExpected(k *keepers) error {
	all, err := s.expectations()
	if err != nil {
		return err
	}
	for _, e := range all {
		if s.inVain(e) {
			continue
		}
		text, err := s.root.ReadFile(expectedName(e.id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // Unexpect came meanwhile
		}
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

// sweepExpected plans to remove what is expected in vain.
func (s *Store) sweepExpected(plan *SweepPlan) error {
	all, err := s.expectations()
	if err != nil {
		return err
	}
	for _, e := range all {
		if s.inVain(e) {
			plan.Items = append(plan.Items, SweepItem{Kind: SweepBundle, Digest: e.id, Size: e.size, Why: "nothing of it came since " + e.since.UTC().Format(time.RFC3339)})
		}
	}
	return nil
}

// sweepExpectation ends an expectation, unless it was written anew since the plan.
func (s *Store) sweepExpectation(i SweepItem, r *SweepResult) error {
	all, err := s.expectations()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(e expectation) bool { return e.id == i.Digest && s.inVain(e) }) {
		r.Spared++
		return nil
	}
	if err := s.Unexpect(i.Digest); err != nil {
		return err
	}
	r.removed(i)
	return nil
}
