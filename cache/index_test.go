package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// logged collects a log.
type logged struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// reopenLogged is reopenStore, and returns what was logged.
func reopenLogged(t *testing.T, dir string) (*Store, string) {
	t.Helper()
	log := new(logged)
	o := testOptions(t)
	o.Log = slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil))
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	return s, log.String()
}

// twoSnapshots is a closed store with two snapshots of a stream and a blob
// that nothing names.
type twoSnapshots struct {
	dir           string
	first, second Digest
	old, new      Entry
	kept          Digest // named by nothing
}

func makeTwoSnapshots(t *testing.T) *twoSnapshots {
	t.Helper()
	s := createStore(t)
	two := &twoSnapshots{dir: s.dir, old: put(t, s, KindItem, "old", "old content"), new: put(t, s, KindItem, "new", "new content")}
	two.first = publish(t, s, "stable", two.old, put(t, s, KindSite, "index", "1"))
	two.second = publish(t, s, "stable", two.new, put(t, s, KindSite, "index", "2"))
	two.kept = ingest(t, s, []byte("kept content"))
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return two
}

// wantAll fails the test unless all is there as it was.
func (two *twoSnapshots) wantAll(t *testing.T, s *Store) {
	t.Helper()
	wantFound(t, s, "stable", Published, "new", two.new, two.second)
	wantFound(t, s, "stable", Published, "old", two.old, two.first)
	for _, d := range []Digest{two.new.Digest, two.old.Digest} {
		if !s.Has(d) {
			t.Errorf("blob %v is gone", d)
		}
	}
}

// TestOpenMakesTheIndexAgain promises that whatever happens to the index, the
// store opens with all that its files hold, and says so.
func TestOpenMakesTheIndexAgain(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	garble := func(pattern string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(names) == 0 {
				t.Fatalf("no file is named %s (%v)", pattern, err)
			}
			for _, name := range names {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, change(data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	noise := func(data []byte) []byte { return content(1, len(data)) }
	half := func(data []byte) []byte { return data[:len(data)/2] }
	flip := func(data []byte) []byte { data[len(data)/3] ^= 1; return data }
	none := func([]byte) []byte { return nil }
	for _, test := range []struct {
		summary string
		harm    func(*testing.T, string)
	}{
		{"lost", func(t *testing.T, dir string) { os.RemoveAll(dir) }},
		{"emptied", func(t *testing.T, dir string) { os.RemoveAll(dir); os.Mkdir(dir, 0o755) }},
		{"a table lost", func(t *testing.T, dir string) { removeAll(t, dir, "*.sst") }},
		{"a table of noise", garble("*.sst", noise)},
		{"a table cut off", garble("*.sst", half)},
		{"a table with a bit flipped", garble("*.sst", flip)},
		{"an empty table", garble("*.sst", none)},
		{"Badger's manifest lost", func(t *testing.T, dir string) { removeAll(t, dir, badger.ManifestFilename) }},
		{"Badger's manifest of noise", garble(badger.ManifestFilename, noise)},
		{"Badger's manifest empty", garble(badger.ManifestFilename, none)},
		{"an empty value log", garble("*.vlog", none)},
		{"a process that died of it", func(t *testing.T, dir string) { os.WriteFile(dir+openingSuffix, nil, 0o600) }},
		{"of another version", func(t *testing.T, dir string) {
			os.RemoveAll(dir)
			db, err := badger.Open(badger.DefaultOptions(dir).WithExternalMagic(indexVersion + 1).WithLogger(nil))
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}},
		{"begun only", func(t *testing.T, dir string) {
			os.RemoveAll(dir)
			x, err := openIndex(dir, slog.New(slog.DiscardHandler), func(int64) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			dir := copyStore(t, two.dir)
			test.harm(t, filepath.Join(dir, indexDir))
			s, log := reopenLogged(t, dir)
			two.wantAll(t, s)
			if !strings.Contains(log, `level=WARN msg="the index was made again from the files" blobs=4 unproven=1`) {
				t.Errorf("the log does not say that the index was made again:\n%s", log)
			}
			if facts, err := s.index.blob(two.new.Digest); err != nil || !facts.Proven.IsZero() || facts.Size != two.new.Size {
				t.Errorf("facts of a named blob: %+v (%v), want its size alone", facts, err)
			}
			if s.Has(two.kept) {
				t.Error("a blob that no manifest vouches for is believed")
			}
			_, err := s.Begin(t.Context(), Want{Size: 12, SHA256: two.kept})
			if facts, _ := s.index.blob(two.kept); !errors.Is(err, ErrExists) || facts.Proven.IsZero() || facts.XXH64 == 0 {
				t.Errorf("asked for the blob that nothing names: %v, and its facts are %+v; want that it is proven", err, facts)
			}
			if _, err := os.Stat(filepath.Join(dir, indexDir+openingSuffix)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the mark of opening is still there (%v)", err)
			}
		})
	}
}

// TestOpenAfterADamagedLog promises that nothing published is lost when the log
// that a killed process left ends in the middle, wherever that is.
func TestOpenAfterADamagedLog(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	first := publish(t, s, "stable", put(t, s, KindItem, "a", "content of a"))
	second := publish(t, s, "stable", put(t, s, KindItem, "b", "content of b"))
	killed := copyStore(t, s.dir)
	logs, err := filepath.Glob(filepath.Join(killed, indexDir, "*.mem"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("the killed process left the logs %q (%v)", logs, err)
	}
	log, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(log, "\x00"))
	for at := 30; at < used; at += used / 8 {
		t.Run(fmt.Sprintf("%d of %d", at, used), func(t *testing.T) {
			t.Parallel()
			dir := copyStore(t, killed)
			damaged := bytes.Clone(log)
			damaged[at] ^= 0xff
			if err := os.WriteFile(filepath.Join(dir, indexDir, filepath.Base(logs[0])), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			s := reopenStore(t, dir)
			wantFound(t, s, "stable", Published, "a", Entry{KindItem, Sum([]byte("content of a")), 12, "a"}, first)
			wantFound(t, s, "stable", Published, "b", Entry{KindItem, Sum([]byte("content of b")), 12, "b"}, second)
			for _, text := range []string{"content of a", "content of b"} {
				wantBlob(t, s, []byte(text))
			}
		})
	}
}

func removeAll(t *testing.T, dir, pattern string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no file is named %s (%v)", pattern, err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOpenKeepsASoundIndex promises that nothing is made again without need:
// notes and fingerprints stay.
func TestOpenKeepsASoundIndex(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	s, log := reopenLogged(t, two.dir)
	two.wantAll(t, s)
	if !s.Has(two.kept) {
		t.Error("the blob that nothing names is gone")
	}
	if log != "" {
		t.Errorf("the log says\n%s", log)
	}
	if facts, err := s.index.blob(two.new.Digest); err != nil || facts.Proven.IsZero() {
		t.Errorf("facts of a blob: %+v (%v), want a fingerprint", facts, err)
	}
}

// TestOpenKeepsAnIndexCutOff promises that nothing is lost because Badger was killed while it made or removed a log, or made a table.
func TestOpenKeepsAnIndexCutOff(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	for name, data := range map[string][]byte{"00001.mem": nil, "000098.sst": content(1, 500), "000099.sst": nil} {
		if err := os.WriteFile(filepath.Join(two.dir, indexDir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, log := reopenLogged(t, two.dir)
	two.wantAll(t, s)
	if !s.Has(two.kept) || log != "" {
		t.Errorf("the blob that nothing names is known: %v, and the log says\n%s", s.Has(two.kept), log)
	}
}

// TestOpenCompletesTheIndex promises that an index that is behind the files,
// or has what they have not, is brought in line.
func TestOpenCompletesTheIndex(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	for _, test := range []struct {
		summary string
		change  func(*testing.T, *Store)
		log     string
	}{
		{"the newest snapshot is lacking", func(t *testing.T, s *Store) {
			dropRecord(t, s, two.second)
			if err := s.index.dropBlobs(two.new.Digest); err != nil {
				t.Fatal(err)
			}
		}, "a snapshot that the index lacked is added"},
		{"an older snapshot is lacking", func(t *testing.T, s *Store) { dropRecord(t, s, two.first) }, "a snapshot that the index lacked is added"},
		{"a snapshot was begun only", func(t *testing.T, s *Store) {
			records, err := s.index.records(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r := records["stable"][two.second]
			r.Whole = false
			if err := s.index.write(func(b *batch) error { return b.setRecord("stable", two.second, r) }); err != nil {
				t.Fatal(err)
			}
		}, "the index held snapshots that were not published"},
		{"a snapshot was never made current", func(t *testing.T, s *Store) {
			m := following(t, s, "stable", known("never", "x"))
			if _, err := s.index.addSnapshot(t.Context(), Sum(m.Encode()), m); err != nil {
				t.Fatal(err)
			}
		}, "the index held snapshots that were not published"},
		{"a stream is gone", func(t *testing.T, s *Store) {
			m := following(t, s, "vanished", known("never", "x"))
			if _, err := s.index.addSnapshot(t.Context(), Sum(m.Encode()), m); err != nil {
				t.Fatal(err)
			}
		}, ""},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			s, err := Open(copyStore(t, two.dir), testOptions(t))
			if err != nil {
				t.Fatal(err)
			}
			test.change(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, log := reopenLogged(t, s.dir)
			two.wantAll(t, s)
			wantFound(t, s, "stable", Published, "never", Entry{}, two.second)
			if !strings.Contains(log, test.log) {
				t.Errorf("the log does not say %q:\n%s", test.log, log)
			}
			if strings.Contains(log, "made again") {
				t.Errorf("the whole index was made again:\n%s", log)
			}
		})
	}
}

func dropRecord(t *testing.T, s *Store, id Digest) {
	t.Helper()
	records, err := s.index.records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.index.dropSnapshots(t.Context(), "stable", map[Digest]record{id: records["stable"][id]}); err != nil {
		t.Fatal(err)
	}
}

// TestDamaged promises that an index is not thrown away for what is not its fault.
func TestDamaged(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&os.PathError{Op: "open", Err: syscall.EACCES}, false},
		{&os.PathError{Op: "open", Err: syscall.ENOSPC}, false},
		{&os.PathError{Op: "open", Err: syscall.EMFILE}, false},
		{&os.PathError{Op: "open", Err: syscall.ENOENT}, true},
		{errors.New("manifest has bad magic"), true},
	} {
		if got := damaged(test.err); got != test.want {
			t.Errorf("%v: got %v, want %v", test.err, got, test.want)
		}
	}
}

// TestRebuildProvesWhatNothingNames promises that a rebuild reads the blobs that
// no manifest vouches for, and that those that are damaged go.
func TestRebuildProvesWhatNothingNames(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "a", "content")
	publish(t, s, "stable", e)
	damaged, sound := ingest(t, s, []byte("some bytes")), ingest(t, s, []byte("sound bytes"))
	flush(t, s)
	overwrite(t, s, blobName(damaged), "other bits")
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Has(damaged) {
		t.Error("a damaged blob is still known")
	}
	if facts, err := s.index.blob(sound); err != nil || facts.Proven.IsZero() {
		t.Errorf("facts of a sound blob: %+v (%v)", facts, err)
	}
	if _, err := s.root.Stat(blobName(damaged)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a damaged blob is still there (%v)", err)
	}
	if !s.Has(e.Digest) {
		t.Error("a named blob is gone")
	}
	wantNames(t, s, ".", "FORMAT", "LOCK", "blobs", "current", "index", "ingest", "keys", "pins", "snapshots", "streams")
}

// TestRebuildKeepsWhatItCannotRead promises that a rebuild fails, and the old index goes on, where a manifest cannot be read for a
// reason that is not the manifest's.
func TestRebuildKeepsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 { // who may read everything
		asNobody(t)
		return
	}
	s := createStore(t)
	id := publish(t, s, "stable", put(t, s, KindItem, "a", "content"))
	for _, name := range []string{manifestName("stable", id), currentName("stable")} {
		if err := s.root.Chmod(name, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Rebuild(t.Context()); !errors.Is(err, os.ErrPermission) {
			t.Errorf("rebuilt: %v", err)
		}
		if _, err := s.Find("stable", Published, "a"); err != nil {
			t.Error(err)
		}
		if err := s.root.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnIndexIsReplacedAtOnce promises that a crash leaves the old index or the new one, or at worst none: with a part of one, a blob
// that is gone might seem to be there.
func TestAnIndexIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	two := put(t, s, KindItem, "a", "content")
	id := publish(t, s, "stable", two)
	if err := s.SetNote("of the old index", []byte{1}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"replace", "replaced"} {
		crashed := ""
		s.index.trace = func(at string) error {
			if at == step {
				crashed = copyStore(t, s.dir)
			}
			return nil
		}
		if err := s.Rebuild(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.index.trace = nil
		if step == "replaced" { // here the old one is moved away, whole
			names, err := filepath.Glob(filepath.Join(crashed, indexDir+oldSuffix, "*.sst"))
			if err != nil || len(names) == 0 {
				t.Errorf("of the old index there is %q (%v)", names, err)
			}
		}
		next, log := reopenLogged(t, crashed)
		if _, err := next.Note("of the old index"); (err == nil) != (step == "replace") {
			t.Errorf("%s: the note of the old index: %v", step, err)
		}
		if log != "" {
			t.Errorf("%s: the log says\n%s", step, log)
		}
		wantFound(t, next, "stable", Published, "a", two, id)
		wantNames(t, next, ".", "FORMAT", "LOCK", "blobs", "current", "index", "ingest", "keys", "pins", "snapshots", "streams")
		if err := s.SetNote("of the old index", []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRebuildRemovesLast promises that what a rebuild removes is unknown by then: a crash must not leave an index that has what is
// gone.
func TestRebuildRemovesLast(t *testing.T) {
	t.Parallel()
	base := createStore(t)
	damaged := ingest(t, base, []byte("some bytes"))
	flush(t, base)
	overwrite(t, base, blobName(damaged), "other bits")
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	for step := 0; ; step++ {
		s, err := Open(copyStore(t, base.dir), testOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		crashed := ""
		f := inject(s, step, func() { crashed = copyStore(t, s.dir) })
		err = s.Rebuild(t.Context())
		f.end()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if crashed == "" {
			if want := []string{"syncfs .", "replace index", "replaced index", "remove " + blobName(damaged), "fsync " + blobDir(damaged)}; err != nil || !slices.Equal(f.done, want) {
				t.Errorf("the steps were %q (%v), want %q", f.done, err, want)
			}
			return
		}
		next := reopenStore(t, crashed)
		if _, err := next.root.Stat(blobName(damaged)); next.Has(damaged) && err != nil {
			t.Errorf("step %d: the index has a blob that is not there", step)
		}
		if err := next.Rebuild(t.Context()); err != nil {
			t.Fatal(err)
		}
		put(t, next, KindItem, "a", "some bytes")
		flush(t, next)
	}
}

// overwrite replaces a file of a store as no part of it would do.
func overwrite(t *testing.T, s *Store, name, text string) {
	t.Helper()
	if err := s.root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := s.root.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRebuildWhileInUse promises that lookups go on during a rebuild, and that
// what is written meanwhile is not lost.
func TestRebuildWhileInUse(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "a", "content")
	id := publish(t, s, "stable", e)
	stop, looked := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				looked <- n
				return
			default:
			}
			if found, err := s.Find("stable", Published, "a"); err != nil || found.Entry != e {
				t.Errorf("found %+v (%v)", found, err)
			}
			n++
		}
	}()
	var blobs []Digest
	put := make(chan struct{})
	go func() {
		defer close(put)
		for i := range 20 {
			blobs = append(blobs, ingest(t, s, content(uint64(i), 2000)))
			flush(t, s)
		}
	}()
	for range 3 {
		if err := s.Rebuild(t.Context()); err != nil {
			t.Error(err)
		}
	}
	<-put
	close(stop)
	if n := <-looked; n == 0 {
		t.Error("nothing was looked up")
	}
	for _, d := range blobs {
		if !s.Has(d) {
			t.Errorf("blob %v was lost", d)
		}
	}
	wantFound(t, s, "stable", Published, "a", e, id)
}

func TestRebuildEnds(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	id := publish(t, s, "stable", put(t, s, KindItem, "a", "content"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Rebuild(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was canceled", err)
	}
	wantFound(t, s, "stable", Published, "a", put(t, s, KindItem, "a", "content"), id)
}

func TestNotes(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	want := map[string]string{"a": "1", "ab": "2", "": "3"}
	for key, value := range want {
		if err := s.SetNote(key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for key := range maps.Keys(want) {
		if got, err := s.Note(key); err != nil || string(got) != want[key] {
			t.Errorf("note %q is %q (%v), want %q", key, got, err, want[key])
		}
	}
	if err := s.SetNote("a", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Note("a"); !errors.Is(err, ErrMiss) {
		t.Errorf("a removed note is %q (%v)", got, err)
	}
	if err := s.SetNote("long", make([]byte, maxNote+1)); err == nil {
		t.Error("a note of any length is taken")
	}
}

func TestFactsRoundTrip(t *testing.T) {
	for _, f := range []blobFacts{
		{},
		{Size: 1 << 62},
		{Size: 5, XXH64: 1<<64 - 1, Proven: time.Unix(1_800_000_000, 0).UTC()},
		{Size: 5, Proven: time.Unix(-1, 0).UTC()},
	} {
		if got, err := decodeFacts(f.encode()); err != nil || got != f {
			t.Errorf("got %+v (%v), want %+v", got, err, f)
		}
	}
	for _, bad := range []string{"", "\x80", "\x01\x00", "\x01abcdefgh", "\x01abcdefgh\x00\x00"} {
		if got, err := decodeFacts([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
}
