package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCreateMakesTheLayout(t *testing.T) {
	t.Parallel()
	s, err := Create(filepath.Join(t.TempDir(), "store"), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	wantNames(t, s, ".", "FORMAT", "LOCK", "blobs", "current", "index", "ingest", "keys", "pins", "snapshots", "streams")
	for i := range 256 {
		if st, err := os.Stat(filepath.Join(s.dir, "blobs", "sha256", fmt.Sprintf("%02x", i))); err != nil || !st.IsDir() {
			t.Errorf("directory %02x: %v", i, err)
		}
	}
	if st, err := os.Stat(filepath.Join(s.dir, "keys")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("keys has mode %v, want 0700 (%v)", st.Mode(), err)
	}
	if data, err := os.ReadFile(filepath.Join(s.dir, "FORMAT")); string(data) != "oxbow store 1\n" {
		t.Errorf("FORMAT is %q (%v)", data, err)
	}
}

func TestCreateTakesOnlyWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		summary string
		have    []string // a name that ends in a slash is a directory
		err     string   // empty: a store is made
	}{
		{summary: "an empty directory"},
		{"a fresh file system", []string{"lost+found/"}, ""},
		{"what a create that was killed leaves", []string{"LOCK", "ingest/"}, ""},
		{"somebody's files", []string{"thesis.tex"}, `the directory is not empty (it holds "thesis.tex") and is no store`},
		{"somebody's directories", []string{"blobs/"}, `the directory is not empty (it holds "blobs") and is no store`},
	} {
		t.Run(test.summary, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range test.have {
				if sub, ok := strings.CutSuffix(name, "/"); ok {
					os.Mkdir(filepath.Join(dir, sub), 0o755)
				} else {
					os.WriteFile(filepath.Join(dir, name), nil, 0o644)
				}
			}
			s, err := Create(dir, testOptions(t))
			if test.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				checkAtEnd(t, s)
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), dir) {
				t.Fatalf("got error %v, want one with %q and %q", err, dir, test.err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != len(test.have) {
				t.Errorf("it left %v behind", entries)
			}
		})
	}
}

func TestCreateMakesNoParents(t *testing.T) {
	t.Parallel()
	_, err := Create(filepath.Join(t.TempDir(), "mnt", "store"), testOptions(t))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that the parent is missing", err)
	}
}

func TestCreateOpensAStoreThatIsThere(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	ingest(t, s, []byte("kept"))
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Create(s.dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, again)
	wantBlob(t, again, []byte("kept"))
}

func TestOpenRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	absent := filepath.Join(t.TempDir(), "absent")
	empty := t.TempDir()
	newer := t.TempDir()
	os.WriteFile(filepath.Join(newer, "FORMAT"), []byte("oxbow store 2\n"), 0o644)
	other := t.TempDir()
	os.WriteFile(filepath.Join(other, "FORMAT"), []byte("casync 1\n"), 0o644)

	opens := map[string]func(string) error{
		"Open":      func(dir string) error { _, err := Open(dir, testOptions(t)); return err },
		"OpenFiles": func(dir string) error { _, err := OpenFiles(dir); return err },
	}
	for name, open := range opens {
		for _, dir := range []string{absent, empty} {
			if err := open(dir); !errors.Is(err, ErrNoStore) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--store") {
				t.Errorf("%s: got %v, want ErrNoStore with the path %s and the remedy", name, err, dir)
			}
		}
		if err := open(newer); err == nil || err.Error() != "store "+newer+
			` has format "oxbow store 2", but this oxbow knows formats up to 1: use the oxbow that wrote it, or a newer one` {
			t.Errorf("%s of a newer format: got %v", name, err)
		}
		if e, ok := errors.AsType[*FormatError](open(other)); !ok || e.Found != "casync 1" {
			t.Errorf("%s of a strange format: got %v, want a FormatError", name, e)
		}
	}
	for _, dir := range []string{empty, newer, other} {
		if _, err := os.Stat(filepath.Join(dir, "LOCK")); err == nil {
			t.Errorf("opening %s left a file in it", dir)
		}
	}
}

// TestALostFormatIsTold promises that nobody takes a store whose FORMAT is lost for something else.
func TestALostFormatIsTold(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	format := filepath.Join(s.dir, formatFile)
	const remedy = "if it is a store, put back the one line `oxbow store 1`"
	for _, harm := range []func() error{
		func() error { return os.Truncate(format, 0) },
		func() error { return os.WriteFile(format, make([]byte, 14), 0o644) },
		func() error { return os.Remove(format) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func(string, *Options) (*Store, error){"Open": Open, "Create": Create} {
			if _, err := open(s.dir, testOptions(t)); err == nil || !strings.Contains(err.Error(), s.dir) || !strings.HasSuffix(err.Error(), remedy) {
				t.Errorf("%s: got %v, want the remedy", name, err)
			}
		}
	}
	if err := os.WriteFile(format, []byte("oxbow store 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	reopenStore(t, s.dir)
}

func TestOpenMakesLostDirectoriesAnew(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pins", "ingest", "blobs/sha256/ff", "blobs/sha256/00"} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	again := reopenStore(t, s.dir)
	for i := range 300 { // some of them in each directory
		ingest(t, again, content(uint64(i), 10))
	}
	flush(t, again)
}

func TestASecondProcessIsToldWhoHasTheStore(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if h, held := s.mustFiles(t).Holder(); held {
		t.Errorf("a closed store is held by %v", h)
	}
	p := startChild(t, "hold", s.dir)
	p.await(t)

	start := time.Now()
	_, err := Open(s.dir, testOptions(t))
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v to be refused", took)
	}
	e, ok := errors.AsType[*LockedError](err)
	if !ok || !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v, want a LockedError", err)
	}
	if e.Holder.Command != "child hold" || e.Holder.PID != p.cmd.Process.Pid || time.Since(e.Holder.Since).Abs() > time.Minute {
		t.Errorf("the holder is said to be %+v, want \"child hold\" with pid %d, since now", e.Holder, p.cmd.Process.Pid)
	}
	text := fmt.Sprintf("store %s is in use by \"child hold\" (pid %d, since %s): wait until it is done, or stop it",
		s.dir, p.cmd.Process.Pid, e.Holder.Since.Format(time.RFC3339))
	if err.Error() != text {
		t.Errorf("got  %v\nwant %s", err, text)
	}
	if h, held := s.mustFiles(t).Holder(); !held || h != e.Holder {
		t.Errorf("Files says holder %v, %v; want %v", h, held, e.Holder)
	}

	p.kill()
	if h, held := s.mustFiles(t).Holder(); held {
		t.Errorf("after the death of the owner the store is held by %v", h)
	}
	reopenStore(t, s.dir)
}

// mustFiles opens the read-only view of the directory of s, which may be closed.
func (s *Store) mustFiles(t *testing.T) *Files {
	t.Helper()
	f, err := OpenFiles(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestASecondOpenInTheSameProcessIsRefused(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if _, err := Open(s.dir, testOptions(t)); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if _, err := Create(s.dir, testOptions(t)); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	wantBlob(t, s, func() []byte { b := []byte("still the owner"); ingest(t, s, b); flush(t, s); return b }())
}

func TestLookingForTheHolderDoesNotKeepAnyoneOut(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := s.mustFiles(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				files.Holder()
			}
		}
	}()
	for range 3 {
		again, err := Open(s.dir, testOptions(t))
		if err != nil {
			t.Error(err)
			break
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-stopped
	reopenStore(t, s.dir)
}

func TestParseDigest(t *testing.T) {
	good := strings.Repeat("0f", 32)
	if d, err := ParseDigest(good); err != nil || d.String() != good {
		t.Errorf("got %v, %v", d, err)
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), strings.Repeat("0", 64), strings.Repeat("0g", 32)} {
		if d, err := ParseDigest(bad); err == nil || !d.IsZero() {
			t.Errorf("%q is taken as %v", bad, d)
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(strings.Repeat("0f", 32))
	f.Add(strings.Repeat("00", 32))
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && d.String() != s {
			t.Errorf("%q parses and prints as %q", s, d)
		}
	})
}
