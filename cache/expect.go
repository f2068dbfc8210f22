package cache

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
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

// The file of an expectation is
//
//	# since 2026-01-31T15:04:05Z    when it was noted first
//	DIGEST                          of a blob, a line each
//	# about
//	TEXT                            as it was given; its SHA-256 is the name of the file
//
// Older ones have the digests alone, and older programs read nothing else of this one.
const (
	expectedSince = "# since "
	expectedAbout = "# about\n"
)

// Expect keeps blobs from being swept until Unexpect is called for the SHA-256 of about, or nothing was expected about the same
// anew for sixty days: snapshots are going to name them that come bit by bit. Those that are pulled are evicted no more. What about
// says is whoever's who reads it. It is durable.
func (s *Store) Expect(about []byte, blobs []Digest) error {
	id := Sum(about)
	since := s.opts.Now()
	if old, err := s.files.expected(id); err == nil {
		since = old.Since
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s%s\n", expectedSince, since.UTC().Format(time.RFC3339))
	for _, d := range blobs {
		fmt.Fprintln(&text, d)
	}
	text.WriteString(expectedAbout)
	text.Write(about)
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

// An Expected is what somebody told a store to expect.
type Expected struct {
	ID    Digest    // the SHA-256 of what it is about
	About []byte    // nil: an older program noted it, which did not say
	Blobs []Digest  // that are kept for it
	Size  int64     // of the note, in bytes
	Since time.Time // when it was noted first, or, by an older program, last
	Last  time.Time // when it was noted last
	Until time.Time // when a sweep may take it for given up
}

// Expected returns what is expected, the oldest first, be it too old to count or not. It needs no lock.
func (f *Files) Expected() (all []Expected, err error) {
	list, err := f.readDir(bundlesDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list what store %s expects: %w", f.dir, err)
	}
	for _, e := range list {
		if !isDigest(e) {
			continue
		}
		id, _ := ParseDigest(e.Name())
		x, err := f.expected(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Unexpect came meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list what store %s expects: %w", f.dir, err)
		}
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Expected) int { return cmp.Or(a.Since.Compare(b.Since), a.ID.Compare(b.ID)) })
	return all, nil
}

// expected reads the note of that id.
func (f *Files) expected(id Digest) (Expected, error) {
	file, err := f.root.Open(expectedName(id))
	if err != nil {
		return Expected{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Expected{}, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return Expected{}, err
	}
	x := Expected{ID: id, Size: info.Size(), Since: info.ModTime(), Last: info.ModTime(), Until: info.ModTime().Add(expectedAge)}
	for len(text) > 0 {
		if about, ok := bytes.CutPrefix(text, []byte(expectedAbout)); ok {
			if Sum(about) == id {
				x.About = about
			}
			break
		}
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		text = rest
		if at, ok := strings.CutPrefix(string(line), expectedSince); ok {
			if since, err := time.Parse(time.RFC3339, at); err == nil && since.Before(x.Last) {
				x.Since = since
			}
		} else if d, err := ParseDigest(string(line)); err == nil {
			x.Blobs = append(x.Blobs, d)
		}
	}
	return x, nil
}

// Expects reports whether something is expected under an id.
func (s *Store) Expects(id Digest) bool { return s.disk.Exists(expectedName(id)) }

// inVain reports whether nothing came for so long that nobody waits for the rest.
func (s *Store) inVain(e Expected) bool { return s.opts.Now().After(e.Until) }

// keepExpected adds to k the blobs that are expected, but for those in vain.
func (s *Store) keepExpected(k *keepers) error {
	all, err := s.files.Expected()
	if err != nil {
		return err
	}
	for _, e := range all {
		if s.inVain(e) {
			continue
		}
		for _, d := range e.Blobs {
			k.blobs[d] = true
		}
	}
	return nil
}

// sweepExpected plans to remove what is expected in vain.
func (s *Store) sweepExpected(plan *SweepPlan) error {
	all, err := s.files.Expected()
	if err != nil {
		return err
	}
	for _, e := range all {
		if s.inVain(e) {
			plan.Items = append(plan.Items, SweepItem{Kind: SweepBundle, Digest: e.ID, Size: e.Size, Why: "nothing of it came since " + e.Last.UTC().Format(time.RFC3339)})
		}
	}
	return nil
}

// sweepExpectation ends an expectation, unless it was written anew since the plan.
func (s *Store) sweepExpectation(i SweepItem, r *SweepResult) error {
	all, err := s.files.Expected()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(e Expected) bool { return e.ID == i.Digest && s.inVain(e) }) {
		r.Spared++
		return nil
	}
	if err := s.Unexpect(i.Digest); err != nil {
		return err
	}
	r.removed(i)
	return nil
}
