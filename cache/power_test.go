package cache

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oxbow/cache/internal/durable"
)

var long = flag.Bool("long", false, "try every power loss, not some of them")

// A powerCase is something that is done to a store while the power may fail.
type powerCase struct {
	summary string
	before  func(t *testing.T, s *Store)               // makes what is there before, and safe; nil: an empty directory
	run     func(t *testing.T, s *Store, p *powerDisk) // calls p.ack after each operation that is acknowledged
	// want says what is wrong with a store that was opened after a power loss, when that many operations were acknowledged. It is
	// called after run has ended. That the store is sound is looked after already.
	want func(s *Store, acked int) error

	opens bool // run gets no open store
}

// watch does what the case says and returns what power losses would have left after every acknowledgement, and if every is set
// before every step, too. Syncs that without accepts do not count.
func (c *powerCase) watch(t *testing.T, every bool, without func(durable.Op) bool) []*powerImage {
	s, p := c.begin(t)
	p.without, p.every = without, every
	c.run(t, s, p)
	if s != nil {
		closeStore(t, s)
	}
	return p.images
}

// begin makes what is there before, and has it watched. The store is nil unless the case wants it open.
func (c *powerCase) begin(t *testing.T) (*Store, *powerDisk) {
	dir := memoryDir(t)
	if c.before == nil {
		return nil, watchPower(t, dir)
	}
	s := c.make(t, dir)
	p := watchPower(t, dir)
	if s != nil {
		p.attach(s)
	}
	return s, p
}

// memoryDir returns a new directory in memory, where there is room for that: what a power loss leaves is simulated anyhow.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "oxbow-cache-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (c *powerCase) make(t *testing.T, dir string) *Store {
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("oxbow store 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	endTending(s)
	c.before(t, s)
	if !c.opens {
		return s
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return nil
}

// corrections are what is never to be corrected, unless the index is lost.
var corrections = []string{
	"the index was made again from the files",
	"a snapshot that the index lacked is added",
	"the index had blobs that are not there",
	"the index had files that a snapshot needs as ones that may be evicted",
}

// check opens what a power loss has left, and says what is wrong with it.
func (c *powerCase) check(t *testing.T, i *powerImage, place *powerPlace) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the power failed %v: %w", i, err)
		}
	}()
	if err := place.put(i); err != nil {
		return err
	}
	if err := wholeByFiles(place.dir); err != nil && !(c.before == nil && i.acked == 0 && errors.Is(err, ErrNoStore)) {
		return fmt.Errorf("before the store is opened: %w", err)
	}
	log := new(logged)
	o := testOptions(t)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	open := Open
	if c.before == nil {
		open = Create
	}
	s, err := open(place.dir, o)
	if err != nil {
		return err
	}
	endTending(s)
	for _, text := range corrections {
		if !i.behind && strings.Contains(log.String(), text) {
			err = fmt.Errorf("it was corrected, and should not have had to be:\n%v", log)
		}
	}
	return errors.Join(err, c.opened(t, s, i), s.Close())
}

func (c *powerCase) opened(t *testing.T, s *Store, i *powerImage) error {
	if err := wholeByIndex(s); err != nil {
		return err
	}
	report, err := s.Check(t.Context(), CheckOptions{Deep: true})
	if err == nil {
		err = report.Err()
	}
	return errors.Join(err, c.want(s, i.acked))
}

// wholeByFiles says what is wrong with the files of a store of which every snapshot is to be whole.
func wholeByFiles(dir string) error {
	f, err := OpenFiles(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	published, err := f.published()
	if err != nil {
		return err
	}
	for _, stream := range published {
		ids, err := f.kept(stream)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := f.Manifest(stream, id); err != nil {
				return err
			}
		}
	}
	// Kept or not: what a manifest names came before it and goes after it.
	archived, err := f.archived()
	if err != nil {
		return err
	}
	for _, stream := range archived {
		ids, err := f.manifests(stream)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := wholeSnapshot(f, stream, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func wholeSnapshot(f *Files, stream string, id Digest) error {
	m, err := f.Manifest(stream, id)
	if err != nil {
		return err
	}
	for _, e := range m.Entries {
		if e.Kind == KindKnown {
			continue
		}
		data, err := f.ReadFile(e.Digest, e.Size)
		if err == nil && Sum(data) != e.Digest {
			err = ErrCorrupt
		}
		if err != nil {
			return fmt.Errorf("%s of snapshot %.12v: %w", e.Path, id, err)
		}
	}
	return nil
}

// wholeByIndex says what is wrong with the answers of an open store about its snapshots.
func wholeByIndex(s *Store) error {
	streams, err := s.Files().published()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		list, err := s.Snapshots(stream)
		if err != nil {
			return err
		}
		byFiles, err := s.Files().kept(stream)
		if err != nil {
			return err
		}
		if got := idsOf(list); !slices.Equal(got, byFiles) {
			return fmt.Errorf("the snapshots of %s are %.12v by the index, %.12v by the files", stream, got, byFiles)
		}
		for _, kept := range list {
			m, err := s.Manifest(stream, kept.ID)
			if err != nil {
				return err
			}
			for _, e := range m.Entries {
				if e.Kind == KindEvidence {
					continue
				}
				if got, err := s.Lookup(stream, kept.ID, Published, e.Path); err != nil || got != e {
					return fmt.Errorf("%s of snapshot %.12v is %v (%v) by the index", e.Path, kept.ID, got, err)
				}
				if e.Kind != KindKnown && !s.Has(e.Digest) {
					return fmt.Errorf("the index lacks %s of snapshot %.12v", e.Path, kept.ID)
				}
			}
		}
	}
	return nil
}

func idsOf(list []Snapshot) (ids []Digest) {
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids
}

// TestPowerLoss promises that a power loss at any moment of anything that is done to a store leaves what was there before, or what
// came of it, and all of what was acknowledged.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	for _, c := range powerCases() {
		t.Run(c.summary, func(t *testing.T) {
			t.Parallel()
			images := c.watch(t, true, nil)
			t.Logf("%d different power losses", len(images))
			place := &powerPlace{dir: memoryDir(t)}
			few := some(images)
			t.Logf("%d of them are tried", len(few))
			for _, i := range few {
				if err := c.check(t, i, place); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// some returns all images of a long test, and of one without the race detector, with which each takes ten times as long; else those
// after acknowledgements and a few others.
func some(images []*powerImage) []*powerImage {
	few := 2
	rand.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
	return slices.DeleteFunc(images, func(i *powerImage) bool {
		if i.next != "" {
			few--
		}
		return raceEnabled && !*long && i.next != "" && few < 0
	})
}

// oldOrNew returns those of the states, in the order in which operations lead through them, that a store may be in after so many
// of the operations were acknowledged.
func oldOrNew[T any](acked int, states ...T) []T {
	return states[acked:min(acked+2, len(states))]
}

// keeps says what is wrong unless a stream has one of the lists of snapshots, newest first.
func keeps(s *Store, stream string, want [][]Digest) error {
	list, err := s.Snapshots(stream)
	if err != nil && !errors.Is(err, ErrNoSnapshot) {
		return err
	}
	got := idsOf(list)
	for _, w := range want {
		if slices.Equal(got, w) {
			return nil
		}
	}
	return fmt.Errorf("stream %s has the snapshots %.12v, want one of %.12v", stream, got, want)
}

// isOneOf says what is wrong unless a file of the store has one of the texts; "" is none.
func isOneOf(s *Store, name string, texts []string) error {
	data, err := s.root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !slices.Contains(texts, string(data)) {
		return fmt.Errorf("%s is %q, want one of %q", name, data, texts)
	}
	return nil
}

// holds says what is wrong unless the store has the contents that were acknowledged, in their order, whole.
func holds(s *Store, acked int, contents ...[]byte) error {
	for n, data := range contents {
		in, err := s.Begin(context.Background(), wantOf(data)) // a lost index learns of it by this
		if err == nil {
			in.Close()
		}
		if exists := errors.Is(err, ErrExists); err != nil && !exists || !exists && n < acked {
			return fmt.Errorf("a blob of %d bytes: %v, want that it is here", len(data), err)
		} else if !exists {
			continue
		}
		f, err := s.Blob(Sum(data))
		if err != nil {
			return err
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || Sum(got) != Sum(data) {
			return fmt.Errorf("a blob of %d bytes has other content (%v)", len(data), err)
		}
	}
	return nil
}
