package cache

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
)

// TestADoubtedBlobIsTakenInAgain promises that nobody is given the bytes of a blob that is doubted, that one which is what its name
// says is known again without another byte, and that any other is replaced, small or large, by whichever way its content comes.
func TestADoubtedBlobIsTakenInAgain(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, smallSize} {
		for name, harm := range map[string]func(*testing.T, *Store, string){
			"whole":   func(*testing.T, *Store, string) {},
			"missing": func(_ *testing.T, s *Store, blob string) { s.root.Remove(blob) },
			"short":   func(t *testing.T, s *Store, blob string) { overwrite(t, s, blob, "short") },
			"changed": func(t *testing.T, s *Store, blob string) { overwrite(t, s, blob, strings.Repeat("x", size)) },
		} {
			t.Run(name, func(t *testing.T) {
				s := createStore(t)
				data := content(uint64(size), size)
				e := itemOf("a", data)
				ingest(t, s, data)
				flush(t, s)
				publish(t, s, "stable", e)
				harm(t, s, blobName(e.Digest))
				if err := s.Doubt(e.Digest); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Blob(e.Digest); s.Has(e.Digest) || !errors.Is(err, ErrMiss) {
					t.Errorf("it is known still: %v", err)
				}
				_, err := s.Take(t.Context(), wantOf(data), bytes.NewReader(data))
				if whole := name == "whole"; errors.Is(err, ErrExists) != whole || err != nil && !whole {
					t.Errorf("taken in again: %v", err)
				}
				flush(t, s)
				wantBlob(t, s, data)
				wantProblems(t, s)
			})
		}
	}
}

// TestASecondDoubtCostsNothing promises that a blob which is doubted already is doubted again without a write to the index, also by
// the next process, and that one which came again can be doubted.
func TestASecondDoubtCostsNothing(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(1, 100)
	ingest(t, s, data)
	flush(t, s)
	publish(t, s, "stable", itemOf("a", data))
	var writes atomic.Int32
	s.index.trace = func(step string) error {
		if step == "write" {
			writes.Add(1)
		}
		return nil
	}
	doubt := func(want int32) {
		t.Helper()
		overwrite(t, s, blobName(Sum(data)), "damaged")
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if err := s.Doubt(Sum(data)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := writes.Swap(0); n != want {
			t.Errorf("10 doubts cost %d writes, want %d", n, want)
		}
		if s.Has(Sum(data)) {
			t.Error("it is known still")
		}
	}
	doubt(1)
	doubt(0)
	s.believe(Sum(data)) // as a restart does
	doubt(0)
	ingest(t, s, data)
	flush(t, s)
	wantBlob(t, s, data)
	writes.Store(0)
	doubt(1)
	ingest(t, s, data)
	flush(t, s)
	s.index.trace = nil
}

// TestADoubtedBlobIsNotEvicted promises that a blob which a snapshot needs does not become one that may go because it comes again
// by a pull; a pulled one that is doubted is gone at once.
func TestADoubtedBlobIsNotEvicted(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, -1)
	c := contents(2, 100)
	pull(t, s, c[0])
	publish(t, s, "stable", itemOf("a", c[0]), knownOf("b", c[1]))
	pull(t, s, c[1])
	for _, data := range c {
		overwrite(t, s, blobName(Sum(data)), strings.Repeat("x", len(data)))
		if err := s.Doubt(Sum(data)); err != nil {
			t.Fatal(err)
		}
	}
	wantPulled(t, s, c)
	if s.disk.Exists(blobName(Sum(c[1]))) {
		t.Error("a damaged file is left that nothing needs")
	}
	pull(t, s, c[0])
	pull(t, s, c[1])
	wantPulled(t, s, c, 1)
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c, 0)
}

// TestASweepTakesTheNeededOut promises that a blob which came again by a pull and is needed, which nobody knew any more after a
// restart, is out of the account after a sweep.
func TestASweepTakesTheNeededOut(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, -1)
	c := contents(1, 100)
	pull(t, s, c[0])
	publish(t, s, "stable", itemOf("a", c[0]))
	if err := s.Doubt(Sum(c[0])); err != nil {
		t.Fatal(err)
	}
	s.believe(Sum(c[0])) // as a restart does
	overwrite(t, s, blobName(Sum(c[0])), "damaged")
	pull(t, s, c[0])
	wantPulled(t, s, c, 0)
	plan, err := s.PlanSweep(t.Context(), SweepOptions{})
	if err == nil {
		_, err = plan.Execute(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	wantPulled(t, s, c)
}

// TestTakeRefuses promises that content which is not what was wanted, or breaks off, leaves nothing and can be taken in again.
func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(7, 100)
	broken := errors.New("broken")
	for name, r := range map[string]io.Reader{
		"other": bytes.NewReader(content(8, 100)),
		"short": bytes.NewReader(data[:99]),
		"long":  bytes.NewReader(append(slices.Clone(data), 1)),
		"fails": io.MultiReader(bytes.NewReader(data[:50]), iotest.ErrReader(broken)),
	} {
		if _, err := s.Take(t.Context(), wantOf(data), r); err == nil || name == "fails" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Take(t.Context(), wantOf(data), iotest.OneByteReader(bytes.NewReader(data))); err != nil {
		t.Error(err)
	}
	flush(t, s)
	wantBlob(t, s, data)
	wantNames(t, s, ingestDir)
}

// TestParts promises that parts which cover the circle read every blob once, and that a part finds what is damaged in it only.
func TestParts(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	var entries []Entry
	for i := range uint64(60) {
		data := content(i, 20)
		ingest(t, s, data)
		entries = append(entries, itemOf(strings.Repeat("a", int(i)+1), data))
	}
	flush(t, s)
	publish(t, s, "stable", entries...)
	damaged := entries[7].Digest
	overwrite(t, s, blobName(damaged), strings.Repeat("x", 20))
	read, found := 0, 0
	for _, from := range []float64{0.9, 0.15, 0.4, 0.65} { // the first one goes over the end
		r, err := s.Check(t.Context(), CheckOptions{Part: Part{From: from, Share: 0.25}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Of != len(entries) {
			t.Errorf("a part of %d blobs, want %d", r.Of, len(entries))
		}
		read += r.Blobs
		found += len(r.Problems)
	}
	if read != len(entries) || found != 1 {
		t.Errorf("read %d blobs and found %d faults, want each once, and the damaged one", read, found)
	}
	if err := s.Doubt(damaged); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, s, DamagedBlob)
	if _, err := s.Take(t.Context(), wantOf(content(7, 20)), bytes.NewReader(content(7, 20))); err != nil {
		t.Fatal(err)
	}
	flush(t, s)
}

// TestARebuildBelievesNoDoubtedBlob promises that a blob that was set aside stays unknown when the index is made anew, by whoever
// has the store then, unless it is sound.
func TestARebuildBelievesNoDoubtedBlob(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	c := contents(2, 100)
	for _, data := range c {
		ingest(t, s, data)
	}
	flush(t, s)
	publish(t, s, "stable", itemOf("a", c[0]), itemOf("b", c[1]))
	overwrite(t, s, blobName(Sum(c[0])), strings.Repeat("x", 100))
	for _, data := range c {
		if err := s.Doubt(Sum(data)); err != nil {
			t.Fatal(err)
		}
	}
	s.believe(Sum(c[0])) // as a restart does
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Has(Sum(c[0])) {
		t.Error("a damaged blob is known again")
	}
	wantBlob(t, s, c[1])
	if s.isDoubted(Sum(c[1])) {
		t.Error("a sound blob is doubted still")
	}
	ingest(t, s, c[0])
	flush(t, s)
}

// TestWhatIsNoFileInThePlaceOfABlob promises that whatever else has the name of a blob counts as missing, waits for nothing, and
// makes room for its content; but for a directory, of which the error tells, and which keeps nothing else from coming in.
func TestWhatIsNoFileInThePlaceOfABlob(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(file string) error{
		"dangling":  func(file string) error { return os.Symlink("nowhere", file) },
		"outside":   func(file string) error { return os.Symlink("/etc/passwd", file) },
		"pipe":      func(file string) error { return syscall.Mkfifo(file, 0o644) },
		"directory": func(file string) error { return os.Mkdir(file, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			s := createStore(t)
			data, other := content(1, 100), content(2, 100)
			ingest(t, s, data)
			flush(t, s)
			publish(t, s, "stable", itemOf("a", data))
			file := filepath.Join(s.dir, blobName(Sum(data)))
			if err := errors.Join(os.Remove(file), put(file)); err != nil {
				t.Fatal(err)
			}
			wantProblems(t, s, MissingBlob)
			if err := s.Doubt(Sum(data)); err != nil {
				t.Fatal(err)
			}
			_, err := s.Take(t.Context(), wantOf(data), bytes.NewReader(data))
			if name == "directory" {
				if err == nil || !strings.Contains(err.Error(), "is a directory, where a file of the store belongs: move it away") {
					t.Errorf("taken in: %v", err)
				}
				ingest(t, s, other)
				flush(t, s)
				wantBlob(t, s, other)
				err = os.Remove(file)
				ingest(t, s, data)
			}
			if err != nil {
				t.Fatal(err)
			}
			flush(t, s)
			wantBlob(t, s, data)
		})
	}
}
