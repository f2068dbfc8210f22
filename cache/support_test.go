package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// testOptions leave the disk of the machine alone.
func testOptions(t *testing.T) *Options {
	return &Options{Owner: "test " + t.Name(), Reserve: 1 << 20, Ballast: -1, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// createStore returns a new store, which is checked deeply and closed when the test ends.
func createStore(t *testing.T) *Store {
	t.Helper()
	dir := storeDir(t)
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("oxbow store 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Create(dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	return s
}

// spares are empty trees of blob directories. To make and remove 256 directories takes most of what a store costs here, so a test
// that succeeds leaves its tree to the next one.
var spares = struct {
	sync.Mutex
	home string
	made int
	free []string
}{}

// TestMain makes the place for spares.
func TestMain(m *testing.M) {
	var err error
	if spares.home, err = os.MkdirTemp("", "oxbow-cache-test-"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(spares.home)
	os.Exit(status)
}

// storeDir returns a new directory that has the blob directories of a store at most.
func storeDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.MkdirAll(filepath.Join(dir, "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	spares.Lock()
	defer spares.Unlock()
	if n := len(spares.free); n > 0 {
		if err := os.Rename(spares.free[n-1], filepath.Join(dir, blobsDir)); err != nil {
			t.Fatal(err)
		}
		spares.free = spares.free[:n-1]
	}
	t.Cleanup(func() {
		if !t.Failed() {
			spare(t, filepath.Join(dir, blobsDir))
		}
	})
	return dir
}

// spare empties a tree of blob directories and sets it aside, if it is whole.
func spare(t *testing.T, tree string) {
	shards, err := os.ReadDir(tree)
	if err != nil || len(shards) != 256 {
		return
	}
	for i, shard := range shards {
		dir := filepath.Join(tree, shard.Name())
		if shard.Name() != fmt.Sprintf("%02x", i) || !shard.IsDir() {
			return
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
			return
		}
		for _, f := range files {
			if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
				t.Error(err)
			}
		}
	}
	spares.Lock()
	defer spares.Unlock()
	name := filepath.Join(spares.home, fmt.Sprint(spares.made))
	if err := os.Rename(tree, name); err != nil {
		t.Error(err)
		return
	}
	spares.made++
	spares.free = append(spares.free, name)
}

// copyStore copies a store as it is at this moment, open or not.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := storeDir(t)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-r", "--preserve=mode,timestamps", "--target-directory=" + to}
	for _, e := range entries {
		if e.Name() != "blobs" {
			args = append(args, filepath.Join(dir, e.Name()))
		}
	}
	if out, err := exec.Command("cp", args...).CombinedOutput(); err != nil {
		t.Fatalf("cannot copy the store: %v\n%s", err, out)
	}
	blobs := filepath.Join(to, "blobs")
	err = filepath.WalkDir(filepath.Join(dir, "blobs"), func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Join(dir, "blobs"), name)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(blobs, rel), 0o755)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(blobs, rel), data, 0o444)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// reopenStore opens a store that is there already.
func reopenStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	return s
}

func checkAtEnd(t *testing.T, s *Store) {
	t.Cleanup(func() {
		if s.lock.Fd() == ^uintptr(0) {
			return // the test closed it
		}
		report, err := s.Check(context.Background(), CheckOptions{Deep: true})
		if err != nil {
			t.Errorf("check: %v", err)
		} else if err := report.Err(); err != nil {
			t.Errorf("check: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// content returns n bytes that depend on the seed alone.
func content(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	return data
}

func wantOf(data []byte) Want { return Want{Size: int64(len(data)), SHA256: Sum(data)} }

// begin starts an ingest that is closed when the test ends, at the latest.
func begin(t *testing.T, s *Store, w Want) *Ingest {
	t.Helper()
	in, err := s.Begin(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// ingest takes data in, without a flush.
func ingest(t *testing.T, s *Store, data []byte) Digest {
	t.Helper()
	in := begin(t, s, wantOf(data))
	if err := in.writeMissing(data); err != nil {
		t.Fatal(err)
	}
	b, err := in.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b.Digest
}

func flush(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// wantBlob fails the test unless the store has exactly data, by its index and on disk.
func wantBlob(t *testing.T, s *Store, data []byte) {
	t.Helper()
	d := Sum(data)
	if !s.Has(d) {
		t.Errorf("the store does not have the blob of %d bytes", len(data))
		return
	}
	f, err := s.Blob(d)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("the blob of %d bytes has other content, of %d bytes", len(data), len(got))
	}
	if st, err := f.Stat(); err != nil || st.Mode() != 0o444 {
		t.Errorf("blob has mode %v, want 0444 (%v)", st.Mode(), err)
	}
}

// wantNames fails the test unless the directory of the store holds exactly these.
func wantNames(t *testing.T, s *Store, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s holds %q, want %q", dir, got, want)
			return
		}
	}
}

// A process is this test binary, running one of the parts below on a store.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

// startChild runs TestChildProcess in a process of its own.
func startChild(t *testing.T, child, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildProcess$")
	cmd.Env = append(os.Environ(), "OXBOW_TEST_CHILD="+child, "OXBOW_TEST_STORE="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, out}
	t.Cleanup(p.kill)
	return p
}

// asNobody runs the calling test in a process of a user who has no rights.
func asNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	dir, err := os.MkdirTemp("", "oxbow-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "test")
	data, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = errors.Join(os.WriteFile(binary, data, 0o755), os.Chmod(binary, 0o755), os.Chmod(dir, 0o755), os.Chown(dir, nobody, nobody))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as a user without rights: %v\n%s", err, out)
	}
}

// await returns when the child has written one more byte.
func (p *process) await(t *testing.T) {
	t.Helper()
	if _, err := io.ReadFull(p.out, make([]byte, 1)); err != nil {
		t.Fatalf("child: %v", err)
	}
}

// kill ends the child as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// TestChildProcess is no test: it is what other tests run as a second process.
func TestChildProcess(t *testing.T) {
	child := os.Getenv("OXBOW_TEST_CHILD")
	if child == "" {
		t.Skip("runs only as a child")
	}
	s, err := Open(os.Getenv("OXBOW_TEST_STORE"), &Options{Owner: "child " + child, Reserve: 1 << 20, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	beat := func() { os.Stdout.Write([]byte{'.'}) }
	switch child {
	case "hold":
		beat()
	case "sequential": // one writer, one beat for each chunk
		in, err := s.Begin(t.Context(), wantOf(crashContent()))
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < crashSize/2; off += crashChunk {
			if _, err := in.WriteAt(crashContent()[off:off+crashChunk], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		beat()
	case "parallel": // four writers, a quarter of their quarter each
		in, err := s.Begin(t.Context(), wantOf(crashContent()))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		for i := range 4 {
			go func() {
				for off := i * crashSize / 4; off < i*crashSize/4+crashSize/16; off += crashChunk {
					if _, err := in.WriteAt(crashContent()[off:off+crashChunk], int64(off)); err != nil {
						done <- err
					}
				}
				done <- nil
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		beat()
	case "small": // committed, never flushed
		for i := range 10 {
			ingest(t, s, content(uint64(i), 1000+i))
		}
		beat()
	}
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(s) // a store that nothing uses any more would be closed by the garbage collector
}

const (
	crashSize  = 16 << 20
	crashChunk = 32 << 10
)

var crashContent = sync.OnceValue(func() []byte { return content(99, crashSize) })
