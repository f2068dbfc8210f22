package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk returns an empty directory with a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs a small file system, and cannot mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func createOnSmallDisk(t *testing.T, size string, reserve, ballast int64) *Store {
	t.Helper()
	o := testOptions(t)
	o.Reserve, o.Ballast = reserve, ballast
	s, err := Create(smallDisk(t, size), o)
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	return s
}

// fillDisk writes a file of somebody else's until only leave bytes are free, and returns its name.
func fillDisk(t *testing.T, s *Store, leave int64) string {
	t.Helper()
	return fillDirectory(t, s.dir, leave)
}

func fillDirectory(t *testing.T, dir string, leave int64) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "somebody's file")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Frsize-leave); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(name) })
	return name
}

func TestIngestLeavesTheReserveAlone(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	space, err := s.Space()
	if err != nil || space.Reserve != 1<<20 || space.Free <= 0 || space.Total < space.Free {
		t.Fatalf("space: %+v, %v", space, err)
	}
	const slack = 1 << 30 // others write to the same disk meanwhile
	if err := s.Room(space.Free - space.Reserve - slack); err != nil {
		t.Errorf("there should be room: %v", err)
	}
	err = s.Room(space.Free - space.Reserve + slack)
	e, ok := errors.AsType[*NoSpaceError](err)
	if !ok || !errors.Is(err, ErrNoSpace) || e.Need != space.Free-space.Reserve+slack || e.Reserve != 1<<20 || e.Dir != s.dir {
		t.Errorf("got %v, want a NoSpaceError with the facts", err)
	}

	// What a running ingest may still write is not there for others.
	half := (space.Free - space.Reserve) / 2
	first := begin(t, s, Want{Size: half, SHA256: Digest{1}})
	if _, err := s.Begin(t.Context(), Want{Size: half + slack, SHA256: Digest{2}}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	wantNames(t, s, "ingest", Want{SHA256: Digest{1}}.key()+".have", Want{SHA256: Digest{1}}.key()+".part")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := begin(t, s, Want{Size: half + slack, SHA256: Digest{2}})
	if _, err := second.WriteAt(make([]byte, 1000), 0); err != nil {
		t.Fatal(err)
	}
	if n := s.promised.Load(); n != half+slack-1000 {
		t.Errorf("%d bytes are promised after 1000 of %d", n, half+slack)
	}
}

func TestNoSpaceErrorSaysWhatToDo(t *testing.T) {
	for _, test := range []struct {
		err  NoSpaceError
		want string
	}{
		{NoSpaceError{Dir: "/s", Need: 3 << 30, Free: 2500 << 20, Reserve: 2 << 30},
			"no space left for store /s: need 3.0 GiB, 2.4 GiB free, 2.0 GiB of it in reserve (`store: reserve:` in the configuration): free some on its file system, or run `oxbow store sweep`"},
		{NoSpaceError{Dir: "/s", Free: 100, Reserve: 1 << 20},
			"no space left for store /s: 100 bytes free, 100 bytes of it in reserve (`store: reserve:` in the configuration): free some on its file system, or run `oxbow store sweep`"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// A disk that fills up behind our back stops the ingest, gives up the ballast, and takes nothing that was there.
func TestADiskThatFillsUpKeepsThePartialAndGivesUpTheBallast(t *testing.T) {
	t.Parallel()
	s := createOnSmallDisk(t, "200m", -1, 48<<20)
	before := content(70, 100)
	ingest(t, s, before)
	flush(t, s)

	data := content(71, 8<<20)
	in := begin(t, s, wantOf(data))
	if _, err := in.WriteAt(data[:2<<20], 0); err != nil {
		t.Fatal(err)
	}
	others := fillDisk(t, s, 1<<20)
	_, err := in.WriteAt(data[2<<20:], 2<<20)
	e, ok := errors.AsType[*NoSpaceError](err)
	if !ok || !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), s.dir) {
		t.Fatalf("got %v, want a NoSpaceError", err)
	}
	if e.Free > 2<<20 {
		t.Errorf("the error says that %d bytes were free", e.Free)
	}
	if _, err := s.root.Stat(ballastFile); err == nil {
		t.Error("the ballast is still there")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.roomForIndex(); err != nil {
		t.Errorf("no room for the index without the ballast: %v", err)
	}
	if err := s.SetNote("still", []byte("works")); err != nil {
		t.Error(err)
	}

	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	s.restoreBallast()
	if st, err := s.root.Stat(ballastFile); err != nil || st.Size() != 48<<20 || st.Sys().(*syscall.Stat_t).Blocks*512 < 48<<20 {
		t.Errorf("the ballast is not restored (%v)", err)
	}
	in = begin(t, s, wantOf(data))
	if m := in.Missing(); len(m) != 1 || m[0] != (Extent{2 << 20, 6 << 20}) {
		t.Errorf("missing %v", m)
	}
	if err := in.writeMissing(data); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, data)
	wantBlob(t, s, before)
}

func TestTheIndexIsNotWrittenOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := createOnSmallDisk(t, "150m", -1, -1)
	staged := content(72, 100)
	ingest(t, s, staged)
	large := content(73, smallSize)
	in := begin(t, s, wantOf(large))
	if err := in.writeMissing(large); err != nil {
		t.Fatal(err)
	}
	others := fillDisk(t, s, indexRoom-1<<20)
	if err := s.SetNote("k", []byte("v")); !errors.Is(err, ErrNoSpace) {
		t.Errorf("note: got %v, want ErrNoSpace", err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, ErrNoSpace) {
		t.Errorf("flush: got %v, want ErrNoSpace", err)
	}
	if _, err := in.Commit(t.Context()); !errors.Is(err, ErrNoSpace) {
		t.Errorf("commit: got %v, want ErrNoSpace", err)
	}
	if s.Has(Sum(staged)) || s.Has(Sum(large)) {
		t.Error("a blob is known that the index could not take")
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	flush(t, s) // nothing has to be fetched again
	wantBlob(t, s, staged)
	if _, err := s.Begin(t.Context(), wantOf(large)); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	wantBlob(t, s, large)
}

func TestTheBallastIsAllocatedAtOpenAndFollowsItsOption(t *testing.T) {
	t.Parallel()
	s := createOnSmallDisk(t, "200m", -1, 8<<20)
	size := func() int64 {
		st, err := s.root.Stat(ballastFile)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	if size() != 8<<20 {
		t.Errorf("ballast of %d bytes", size())
	}
	for _, ballast := range []int64{16 << 20, 180 << 20, -1} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		o := testOptions(t)
		o.Reserve, o.Ballast = -1, ballast
		var err error
		if s, err = Open(s.dir, o); err != nil {
			t.Fatal(err)
		}
		checkAtEnd(t, s)
		want := ballast
		if ballast != 16<<20 {
			want = 0 // there is no room for 180 MiB, and none is wanted at last
		}
		if size() != want {
			t.Errorf("ballast of %d bytes, want %d", size(), want)
		}
	}
}

func TestFillRandomWritesAllOfIt(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fillRandom(f, 3<<20+5); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != 3<<20+5 {
		t.Errorf("%d bytes (%v)", st.Size(), err)
	}
}

// TestAFullDiskOpensAndIsSwept promises the way out of a full disk.
func TestAFullDiskOpensAndIsSwept(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		summary string
		ballast int64
		leave   int64
	}{
		{"to the last byte, with the ballast", 48 << 20, 0},
		{"nearly, without the ballast", -1, leastRoom + 2<<20},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			s := createOnSmallDisk(t, "200m", -1, test.ballast)
			kept, unnamed := put(t, s, KindItem, "a", "content"), content(74, 4<<20)
			id := publish(t, s, "stable", kept)
			ingest(t, s, unnamed)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			fillDirectory(t, s.dir, test.leave)
			o := testOptions(t)
			o.Reserve, o.Ballast = -1, test.ballast
			again, err := Open(s.dir, o)
			if err != nil {
				t.Fatal(err)
			}
			checkAtEnd(t, again)
			wantFound(t, again, "stable", Published, "a", kept, id)
			wantBlob(t, again, []byte("content"))
			plan, _ := planSweep(t, again)
			execute(t, plan, SweepResult{Removed: 1, Bytes: int64(len(unnamed))})
			if h := again.files.readHolder(); h.Command != o.Owner {
				t.Errorf("the owner is said to be %v", h)
			}
		})
	}
}

// TestAFullDiskLocksWithoutAText promises that the owner owns the store even if it cannot write who it is.
func TestAFullDiskLocksWithoutAText(t *testing.T) {
	t.Parallel()
	s := createOnSmallDisk(t, "50m", -1, -1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	others := fillDirectory(t, s.dir, 0)
	if err := s.reopen(t); !errors.Is(err, ErrNoSpace) {
		t.Errorf("opened without any room for the index: %v", err)
	}
	first, err := newStore(s.dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.takeLock(); err != nil {
		t.Fatal(err)
	}
	if err := s.reopen(t); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if err := errors.Join(os.Remove(others), first.Close()); err != nil {
		t.Fatal(err)
	}
	reopenStore(t, s.dir)
}

// reopen returns why the store cannot be opened again.
func (s *Store) reopen(t *testing.T) error {
	t.Helper()
	again, err := Open(s.dir, testOptions(t))
	if err == nil {
		again.Close()
	}
	return err
}
