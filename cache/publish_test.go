package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/cache/internal/durable"
)

// put takes a document in and returns an entry that names it.
func put(t *testing.T, s *Store, kind Kind, path, text string) Entry {
	t.Helper()
	d, err := s.Put(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Entry{kind, d, int64(len(text)), path}
}

func known(path, text string) Entry {
	return Entry{KindKnown, Sum([]byte(text)), int64(len(text)), path}
}

// publish makes the entries the next snapshot of a stream.
func publish(t *testing.T, s *Store, stream string, entries ...Entry) Digest {
	t.Helper()
	id, err := s.Publish(t.Context(), following(t, s, stream, entries...))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func following(t *testing.T, s *Store, stream string, entries ...Entry) *Manifest {
	t.Helper()
	current, err := s.Current(stream)
	if err != nil && !errors.Is(err, ErrNoSnapshot) {
		t.Fatal(err)
	}
	return &Manifest{Stream: stream, Parent: current.ID, Created: time.Unix(1_800_000_000, 0), Reason: "test", Entries: slices.Clone(entries)}
}

// wantFound fails the test unless Find gives exactly this; the zero Entry
// stands for a miss.
func wantFound(t *testing.T, s *Store, stream string, v View, path string, e Entry, id Digest) {
	t.Helper()
	found, err := s.Find(stream, v, path)
	if e == (Entry{}) {
		if !errors.Is(err, ErrMiss) {
			t.Errorf("%s: found %+v (%v), want a miss", path, found, err)
		}
		return
	}
	current, _ := s.Current(stream)
	if want := (Found{e, id, id == current.ID}); err != nil || found != want {
		t.Errorf("%s: found %+v (%v), want %+v", path, found, err, want)
	}
}

func TestFindPrefersTheCurrentSnapshot(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	old := []Entry{
		put(t, s, KindSite, "index", "site 1"), put(t, s, KindUpstream, "index", "upstream 1"), put(t, s, KindEvidence, "evidence", "vouches"),
		put(t, s, KindItem, "both", "item 1"), put(t, s, KindItem, "old", "old item"), known("fetched", "item 2"), put(t, s, KindSite, "gone", "site only"),
	}
	first := publish(t, s, "stable", old...)
	new := []Entry{
		put(t, s, KindSite, "index", "site 2"), put(t, s, KindUpstream, "index", "upstream 2"),
		put(t, s, KindItem, "both", "item 2"), put(t, s, KindItem, "fetched", "item 2"), known("both/deeper", "x"),
	}
	second := publish(t, s, "stable", new...)
	other := publish(t, s, "other", put(t, s, KindItem, "both", "of another stream"))

	check := func() {
		t.Helper()
		wantFound(t, s, "stable", Published, "index", put(t, s, KindSite, "index", "site 2"), second)
		wantFound(t, s, "stable", Upstream, "index", put(t, s, KindUpstream, "index", "upstream 2"), second)
		wantFound(t, s, "stable", Published, "both", put(t, s, KindItem, "both", "item 2"), second)
		wantFound(t, s, "stable", Upstream, "fetched", put(t, s, KindItem, "fetched", "item 2"), second)
		wantFound(t, s, "stable", Published, "both/deeper", known("both/deeper", "x"), second)
		wantFound(t, s, "stable", Published, "old", put(t, s, KindItem, "old", "old item"), first)
		wantFound(t, s, "stable", Published, "gone", put(t, s, KindSite, "gone", "site only"), first)
		wantFound(t, s, "stable", Upstream, "gone", Entry{}, first)
		wantFound(t, s, "stable", Published, "evidence", Entry{}, first)
		wantFound(t, s, "stable", Published, "bot", Entry{}, first)
		wantFound(t, s, "stable", Published, "", Entry{}, first)
		wantFound(t, s, "other", Published, "both", put(t, s, KindItem, "both", "of another stream"), other)
		wantFound(t, s, "other", Published, "index", Entry{}, first)
		wantFound(t, s, "none", Published, "both", Entry{}, first)
	}
	check()
	if e, err := s.Lookup("stable", first, Published, "index"); err != nil || e != old[0] {
		t.Errorf("in the first snapshot: %+v (%v), want %+v", e, err, old[0])
	}
	if e, err := s.Lookup("stable", second, Published, "old"); !errors.Is(err, ErrMiss) {
		t.Errorf("in the second snapshot: %+v (%v), want a miss", e, err)
	}
	if e, err := s.Lookup("stable", other, Published, "both"); !errors.Is(err, ErrMiss) {
		t.Errorf("in a snapshot of another stream: %+v (%v), want a miss", e, err)
	}
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	check()
}

// TestFindReadsTheIndex promises that lookups go through Badger: without what
// is in it, nothing is found, though every file is there.
func TestFindReadsTheIndex(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "path", "content")
	id := publish(t, s, "stable", e)
	if err := os.Rename(filepath.Join(s.dir, snapshotsDir), filepath.Join(s.dir, "away")); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "stable", Published, "path", e, id)
	if err := os.Rename(filepath.Join(s.dir, "away"), filepath.Join(s.dir, snapshotsDir)); err != nil {
		t.Fatal(err)
	}
	if err := s.index.db.DropAll(); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "stable", Published, "path", Entry{}, id)
	if s.Has(e.Digest) {
		t.Error("a blob is known that is not in the index")
	}
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "stable", Published, "path", e, id)
	if !s.Has(e.Digest) {
		t.Error("a blob is not known after a rebuild")
	}
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if _, err := s.Current("stable"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("current snapshot of nothing: %v", err)
	}
	if _, err := s.Files().Current("stable"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("current snapshot of nothing, by the files: %v", err)
	}
	shared := put(t, s, KindItem, "a", "12345")
	twin := shared
	twin.Path = "b"
	first := publish(t, s, "stable", shared, twin, known("k", "123"), put(t, s, KindSite, "index", "12"))
	second := publish(t, s, "stable", shared)

	at := time.Unix(1_800_000_000, 0).UTC()
	want := []Snapshot{
		{ID: second, Stream: "stable", Created: at, Parent: first, Reason: "test", Current: true, Entries: 1, Items: 1, Bytes: 5},
		{ID: first, Stream: "stable", Created: at, Reason: "test", Entries: 4, Items: 2, Known: 1, Bytes: 7},
	}
	check := func() {
		t.Helper()
		for name, list := range map[string]func(string) ([]Snapshot, error){"index": s.Snapshots, "files": s.Files().Snapshots} {
			got, err := list("stable")
			for i := range got {
				got[i].Created = got[i].Created.UTC()
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("by the %s: snapshots %+v (%v), want %+v", name, got, err, want)
			}
		}
	}
	check()
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	check()

	for _, test := range []struct {
		prefix string
		want   Digest
		err    string
	}{
		{first.String(), first, ""},
		{second.String()[:8], second, ""},
		{"", Digest{}, "no such snapshot"},
		{"xyz", Digest{}, `no such snapshot: no id of stream stable begins with "xyz"`},
	} {
		got, err := s.Files().Resolve("stable", test.prefix)
		if got != test.want || (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("prefix %q: got %v (%v), want %v, %q", test.prefix, got, err, test.want, test.err)
		}
	}
}

func TestResolveWantsOneSnapshot(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	first := map[string]bool{}
	for i := range 17 { // two of seventeen share their first digit
		digit := publish(t, s, "stable", known("k", fmt.Sprint(i))).String()[:1]
		if _, err := s.Files().Resolve("stable", digit); first[digit] != (err != nil) {
			t.Errorf("prefix %q, which %v ids had before: %v", digit, first[digit], err)
		} else if err != nil && !strings.Contains(err.Error(), "give more digits") {
			t.Errorf("prefix %q: %v", digit, err)
		}
		if first[digit] {
			return
		}
		first[digit] = true
	}
}

func TestPublishRefuses(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	id := publish(t, s, "stable", put(t, s, KindItem, "a", "content"))
	absent := known("path/of/it", "absent")
	for _, test := range []struct {
		summary string
		m       *Manifest
		is      error
		err     string
	}{
		{"a stream that is a path", &Manifest{Stream: "a/b"}, errManifest, "is not usable"},
		{"a parent where there is none", &Manifest{Stream: "new", Parent: id}, ErrMoved, id.String()},
		{"no parent where there is one", &Manifest{Stream: "stable"}, ErrMoved, id.String()},
		{"a parent of another stream", &Manifest{Stream: "stable", Parent: Sum(nil)}, ErrMoved, id.String()},
		{"a blob that is not there", &Manifest{Stream: "stable", Parent: id, Entries: []Entry{{KindItem, absent.Digest, 6, absent.Path}}}, ErrMiss,
			"item path/of/it (" + absent.Digest.String() + ")"},
		{"a blob of another size", &Manifest{Stream: "stable", Parent: id, Entries: []Entry{{KindItem, Sum([]byte("content")), 8, "a"}}}, ErrCorrupt,
			"has 7 bytes in the store, not 8"},
		{"a path twice", &Manifest{Stream: "stable", Parent: id, Entries: []Entry{absent, absent}}, errManifest, "two entries"},
		{"a path upward", &Manifest{Stream: "stable", Parent: id, Entries: []Entry{known("../a", "")}}, errManifest, "bad path"},
	} {
		t.Run(test.summary, func(t *testing.T) {
			test.m.Created = time.Unix(1_800_000_000, 0)
			_, err := s.Publish(t.Context(), test.m)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("got error %v, want %v with %q", err, test.is, test.err)
			}
		})
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Publish(canceled, following(t, s, "stable", absent)); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want that it was canceled", err)
	}
	if current, err := s.Current("stable"); err != nil || current.ID != id {
		t.Errorf("the current snapshot is %v (%v), want %v", current.ID, err, id)
	}
	wantNames(t, s, "snapshots", "stable")
	wantNames(t, s, "snapshots/stable", id.String())
}

// TestPublishTwice promises that a publication that is tried again, because
// nobody heard that it was done, is done.
func TestPublishTwice(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	m := following(t, s, "stable", known("k", "x"))
	for range 2 {
		if id, err := s.Publish(t.Context(), m); err != nil || id != Sum(m.Encode()) {
			t.Errorf("published %v (%v)", id, err)
		}
	}
	wantNames(t, s, "snapshots/stable", Sum(m.Encode()).String())
}

// TestPublishTriedAgainIsDurable promises that a publication that succeeds at the second attempt syncs what the first did not get
// to sync.
func TestPublishTriedAgainIsDurable(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{snapshotsDir, currentDir} {
		s := createStore(t)
		m := following(t, s, "stable", known("k", "x"))
		synced, fails := 0, true
		s.disk.Trace = func(op durable.Op) error {
			if op != (durable.Op{Kind: "fsync", Name: dir}) {
				return nil
			}
			if fails {
				return errDisk
			}
			synced++
			return nil
		}
		if _, err := s.Publish(t.Context(), m); !errors.Is(err, errDisk) {
			t.Fatalf("%s could not be synced, and the publication gave %v", dir, err)
		}
		fails = false
		if _, err := s.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if synced == 0 {
			t.Errorf("%s was not synced", dir)
		}
	}
}

// faults makes one of the operations of a store fail.
type faults struct {
	s    *Store
	at   int      // the number of the operation that fails; -1 for none
	done []string // the operations so far
	// crash is called before an operation fails.
	crash func()
}

var errFault = errors.New("injected fault")

func inject(s *Store, at int, crash func()) *faults {
	f := &faults{s: s, at: at, crash: crash}
	s.disk.Trace = func(op durable.Op) error { return f.step(op.Kind + " " + op.Name) }
	s.index.trace = func(step string) error { return f.step(step + " index") }
	return f
}

func (f *faults) step(op string) error {
	f.done = append(f.done, op)
	if len(f.done)-1 != f.at {
		return nil
	}
	f.crash()
	return errFault
}

func (f *faults) end() { f.s.disk.Trace, f.s.index.trace = nil, nil }

// TestPublishCrash breaks a publication at each of its durable steps. An
// operation that fails was lost; the one before it was done, but nobody heard
// of it. At each point the store is copied as a crash leaves it, and the
// process goes on too: both must have the old or the new snapshot, whole.
func TestPublishCrash(t *testing.T) {
	t.Parallel()
	base := createStore(t)
	old := []Entry{put(t, base, KindItem, "a", "old a"), put(t, base, KindItem, "b", "old b"), known("k", "x")}
	first := publish(t, base, "stable", old...)
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	steps := publishSteps(t, copyStore(t, base.dir))
	wantSteps := []string{"rename snapshots/stable/ID", "fsync snapshots/stable", "write index", "written index", "fsync TEMP", "rename current/stable", "fsync current"}
	if got := steps[len(steps)-len(wantSteps):]; !slices.Equal(got, wantSteps) {
		t.Errorf("the last steps were %q, want %q", got, wantSteps)
	}
	for i, step := range steps {
		t.Run(fmt.Sprintf("%02d %s", i, strings.Fields(step)[0]), func(t *testing.T) {
			t.Parallel()
			s := reopenStore(t, copyStore(t, base.dir))
			crashed := ""
			f := inject(s, i, func() { crashed = copyStore(t, s.dir) })
			second, err := publishNew(t, s)
			f.end()
			if !errors.Is(err, errFault) {
				t.Fatalf("step %d, %s, failed, and the publication gave %v", i, step, err)
			}
			wantOldOrNew(t, s, first, second)
			wantOldOrNew(t, reopenStore(t, crashed), first, second)

			if again, err := publishNew(t, s); err != nil || again != second {
				t.Errorf("tried again: %v, %v, want %v", again, err, second)
			}
			wantOldOrNew(t, s, second, second)
		})
	}
}

// publishSteps returns the durable operations of the publication of publishNew.
func publishSteps(t *testing.T, dir string) []string {
	s := reopenStore(t, dir)
	f := inject(s, -1, nil)
	defer f.end()
	if _, err := publishNew(t, s); err != nil {
		t.Fatal(err)
	}
	for i, op := range f.done {
		kind, name, _ := strings.Cut(op, " ")
		if strings.Contains(name, "write-") {
			f.done[i] = kind + " TEMP"
		} else if strings.HasPrefix(name, "snapshots/stable/") {
			f.done[i] = kind + " snapshots/stable/ID"
		}
	}
	return f.done
}

var newFiles = map[string]string{"b": "new b", "c": "new c"}

// publishNew returns the id also when the publication fails.
func publishNew(t *testing.T, s *Store) (Digest, error) {
	t.Helper()
	var entries []Entry
	for _, path := range slices.Sorted(maps.Keys(newFiles)) {
		entries = append(entries, Entry{KindItem, Sum([]byte(newFiles[path])), int64(len(newFiles[path])), path})
	}
	old, err := s.Snapshots("stable")
	if err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Stream: "stable", Parent: old[len(old)-1].ID, Created: time.Unix(1_800_000_001, 0), Reason: "new", Entries: entries}
	id := Sum(m.Encode())
	for _, path := range slices.Sorted(maps.Keys(newFiles)) {
		if _, err := s.Put(t.Context(), []byte(newFiles[path])); err != nil {
			return id, err
		}
	}
	_, err = s.Publish(t.Context(), m)
	return id, err
}

// wantOldOrNew fails the test unless one of the two snapshots is current, by
// the files as by the index, and all that it names can be read.
func wantOldOrNew(t *testing.T, s *Store, old, new Digest) {
	t.Helper()
	current, err := s.Current("stable")
	if err != nil || current.ID != old && current.ID != new {
		t.Fatalf("the current snapshot is %v (%v), want %v or %v", current.ID, err, old, new)
	}
	if files, err := s.Files().Current("stable"); err != nil || files.ID != current.ID {
		t.Fatalf("the current snapshot is %v by the files (%v), %v by the index", files.ID, err, current.ID)
	}
	m, err := s.Manifest("stable", current.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.Entries {
		wantFound(t, s, "stable", Published, e.Path, e, current.ID)
		if e.Kind == KindKnown {
			continue
		}
		f, err := s.Blob(e.Digest)
		if err != nil {
			t.Error(err)
			continue
		}
		var data bytes.Buffer
		if _, err := data.ReadFrom(f); err != nil || Sum(data.Bytes()) != e.Digest {
			t.Errorf("%s has other content (%v)", e.Path, err)
		}
		f.Close()
	}
	if current.ID == old && old != new {
		wantFound(t, s, "stable", Published, "c", Entry{}, old)
	}
}
