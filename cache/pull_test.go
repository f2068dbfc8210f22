package cache

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"
)

// pullStore returns a new store with a limit for what is pulled, and the function that moves its clock.
func pullStore(t *testing.T, limit int64) (s *Store, pass func(time.Duration)) {
	t.Helper()
	s = createStore(t)
	s.SetCacheLimit(limit)
	return s, setClock(s, time.Unix(1_800_000_000, 0))
}

func setClock(s *Store, now time.Time) (pass func(time.Duration)) {
	s.opts.Now = func() time.Time { return now }
	return func(d time.Duration) { now = now.Add(d) }
}

func beginPull(t *testing.T, s *Store, w Want) *Ingest {
	t.Helper()
	in, err := s.BeginPull(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// pull takes data in as what somebody asked for.
func pull(t *testing.T, s *Store, data []byte) Digest {
	t.Helper()
	in := beginPull(t, s, wantOf(data))
	finish(t, s, in, data)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	return Sum(data)
}

// finish writes what an ingest lacks, and commits it.
func finish(t *testing.T, s *Store, in *Ingest, data []byte) {
	t.Helper()
	if err := in.writeMissing(data); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	flush(t, s)
}

// evict does at once what the store does soon.
func evict(t *testing.T, s *Store) {
	t.Helper()
	if err := s.evict(0); err != nil {
		t.Fatal(err)
	}
}

// wantHere fails the test unless the store has exactly these of the contents, by the index and on disk.
func wantHere(t *testing.T, s *Store, contents [][]byte, want ...int) {
	t.Helper()
	for i, data := range contents {
		d := Sum(data)
		_, err := s.root.Stat(blobName(d))
		here := slices.Contains(want, i)
		if s.Has(d) != here || (err == nil) != here {
			t.Errorf("content %d is known: %v, and on disk: %v; want %v", i, s.Has(d), err == nil, here)
		}
	}
}

// wantPulled fails the test unless exactly these are pulled, the least recently used first, by the account and by the index.
func wantPulled(t *testing.T, s *Store, contents [][]byte, want ...int) {
	t.Helper()
	s.saveUses()
	all, err := s.index.pulls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []int
	bytes := int64(0)
	for e := s.pulled.order.Front(); e != nil; e = e.Next() {
		p := e.Value.(*pulled)
		got = append(got, slices.IndexFunc(contents, func(data []byte) bool { return Sum(data) == p.digest }))
		bytes += p.size
		if f := all[p.digest]; f.State != pullKept || f.Size != p.size || !f.Used.Equal(p.used) {
			t.Errorf("the index says %+v of content %d, the account %+v", f, got[len(got)-1], p.facts())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pulled are the contents %v, want %v", got, want)
	}
	if len(all) != len(got) || bytes != s.pulled.bytes || len(s.pulled.all) != len(got) || len(s.leaving) != 0 {
		t.Errorf("%d pulled in the index, %d in the account; %d bytes, counted %d; %d leaving", len(all), len(got), bytes, s.pulled.bytes, len(s.leaving))
	}
}

// await waits for what the store does soon.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func contents(n, size int) (all [][]byte) {
	for i := range n {
		all = append(all, content(uint64(200+i), size))
	}
	return all
}

// TestPulledKeepWithinTheLimit promises that the least recently used make room before the next begins, and that the counts are true.
func TestPulledKeepWithinTheLimit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, smallSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s, pass := pullStore(t, int64(3*size)+100)
			c := contents(6, size)
			for i := range 3 {
				pass(time.Second)
				pull(t, s, c[i])
			}
			wantPulled(t, s, c, 0, 1, 2)
			pass(time.Second)
			s.Touch(Sum(c[0]))
			s.Touch(Sum([]byte("what is not pulled")))
			in := beginPull(t, s, wantOf(c[3]))
			wantHere(t, s, c, 0, 2)
			finish(t, s, in, c[3])
			wantPulled(t, s, c, 2, 0, 3)
			pull(t, s, c[4])
			wantPulled(t, s, c, 0, 3, 4)
			wantHere(t, s, c, 0, 3, 4)
			want := PullStats{Blobs: 3, Bytes: int64(3 * size), Limit: int64(3*size) + 100, Evicted: 2, EvictedBytes: int64(2 * size)}
			if got := s.PullStats(); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestCacheLimit promises what the values of the option mean, and that a lower limit is kept to soon.
func TestCacheLimit(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if got := s.PullStats().Limit; got != DefaultCacheLimit {
		t.Errorf("the limit is %d where none is said", got)
	}
	c := contents(4, 100)
	for _, data := range c {
		pull(t, s, data)
	}
	s.SetCacheLimit(-1)
	if got := s.PullStats().Limit; got != 0 {
		t.Errorf("the limit is %d where none is wanted", got)
	}
	evict(t, s)
	wantHere(t, s, c, 0, 1, 2, 3)
	s.SetCacheLimit(250)
	await(t, "eviction", func() bool { return s.PullStats().Blobs == 2 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t)
	o.CacheLimit = 150
	s, err := Open(s.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	await(t, "eviction after a restart with a lower limit", func() bool { return s.PullStats().Blobs == 1 })
	evict(t, s)
	wantHere(t, s, c, 3)
}

// TestEvictionSparesWhatIsInUse promises that neither what is leased nor what is on its way in goes, and that the former goes
// soon after its last lease.
func TestEvictionSparesWhatIsInUse(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, 250)
	c := contents(5, 100)
	lease, other := s.Lease(), s.Lease()
	lease.Add(Sum(c[0]), Sum(c[1]))
	other.Add(Sum(c[0]))
	pull(t, s, c[0])
	pull(t, s, c[1])
	running := beginPull(t, s, wantOf(c[2]))
	wantHere(t, s, c, 0, 1)
	pull(t, s, c[3])
	evict(t, s)
	wantHere(t, s, c, 0, 1) // with the running one that is too much already
	if got := s.PullStats().Bytes; got != 200 {
		t.Errorf("%d bytes are pulled", got)
	}
	finish(t, s, running, c[2])
	evict(t, s)
	wantHere(t, s, c, 0, 1, 2)
	if err := running.Close(); err != nil { // which leased it
		t.Fatal(err)
	}
	await(t, "eviction of what was closed", func() bool { return !s.Has(Sum(c[2])) })
	lease.Release()
	evict(t, s)
	wantHere(t, s, c, 0, 1)
	pull(t, s, c[4])
	wantHere(t, s, c, 0, 4)
	other.Release()
	wantPulled(t, s, c, 0, 4)
}

// TestMoreThanTheLimit promises that content larger than the limit comes in, costs the others nothing, and goes with its last
// lease.
func TestMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, 250)
	c := append(contents(2, 100), content(1, 1000))
	pull(t, s, c[0])
	pull(t, s, c[1])
	in := beginPull(t, s, wantOf(c[2]))
	finish(t, s, in, c[2])
	evict(t, s)
	wantHere(t, s, c, 0, 1, 2)
	lease := s.Lease()
	lease.Add(Sum(c[2]))
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	evict(t, s)
	wantBlob(t, s, c[2])
	lease.Release()
	await(t, "eviction of what is too large", func() bool { return !s.Has(Sum(c[2])) })
	evict(t, s)
	wantHere(t, s, c, 0, 1)
	pull(t, s, c[2])
	await(t, "eviction of what is too large and nobody leased", func() bool { return !s.Has(Sum(c[2])) })
}

// TestARestartKeepsTheOrderOfUse promises that Touch writes nothing, and that a crash forgets at most what was not saved yet.
func TestARestartKeepsTheOrderOfUse(t *testing.T) {
	t.Parallel()
	s, pass := pullStore(t, -1)
	c := contents(4, 100)
	for _, data := range c {
		pass(time.Nanosecond)
		pull(t, s, data)
	}
	f := inject(s, -1, nil)
	touch := func(i int) {
		pass(time.Nanosecond)
		s.Touch(Sum(c[i]))
	}
	touch(0)
	touch(2)
	if len(f.done) > 0 {
		t.Errorf("two uses cost %q", f.done)
	}
	s.saveUses()
	s.saveUses()
	if want := []string{"write index", "written index"}; !slices.Equal(f.done, want) {
		t.Errorf("saving them cost %q, want %q", f.done, want)
	}
	f.end()
	touch(1)
	wantPulled(t, reopenStore(t, copyStore(t, s.dir)), c, 1, 3, 0, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantPulled(t, reopenStore(t, s.dir), c, 3, 0, 2, 1)
}

// TestARestartedPullGoesOn promises that a pull that was interrupted is resumed, by Close or by a crash, and counts as pulled then.
func TestARestartedPullGoesOn(t *testing.T) {
	t.Parallel()
	data := content(300, 3<<20)
	for _, crash := range []bool{false, true} {
		s := createStore(t)
		in := beginPull(t, s, wantOf(data))
		if _, err := in.WriteAt(data[1<<20:2<<20], 1<<20); err != nil {
			t.Fatal(err)
		}
		dir := s.dir
		if crash {
			dir = copyStore(t, s.dir)
		}
		if err := errors.Join(in.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		s = reopenStore(t, dir)
		in = beginPull(t, s, wantOf(data))
		if got, want := in.Missing(), []Extent{{0, 1 << 20}, {2 << 20, 1 << 20}}; !slices.Equal(got, want) {
			t.Errorf("after a crash: %v; missing %v, want %v", crash, got, want)
		}
		finish(t, s, in, data)
		wantPulled(t, s, [][]byte{data}, 0)
		wantBlob(t, s, data)
	}
}

// TestFollow promises that a follower reads what Ahead says has landed, while the rest is written, and not what a Reset began anew.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(301, 3<<20)
	in := beginPull(t, s, wantOf(data))
	if _, err := in.WriteAt(data[1<<20:2<<20], 1<<20); err != nil {
		t.Fatal(err)
	}
	f, err := in.Follow()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantAhead := func(want map[int64]int64) {
		t.Helper()
		for off, n := range want {
			if got := in.Ahead(off); got != n {
				t.Errorf("%d bytes are ahead of %d, want %d", got, off, n)
			}
		}
	}
	wantAhead(map[int64]int64{0: 0, 1<<20 - 1: 0, 1 << 20: 1 << 20, 3 << 19: 1 << 19, 2<<20 - 1: 1, 2 << 20: 0, 3 << 20: 0, 4 << 20: 0})
	got := make([]byte, 1<<20)
	if _, err := f.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, data[1<<20:2<<20]) {
		t.Errorf("a follower reads something else (%v)", err)
	}
	finish(t, s, in, data)
	wantAhead(map[int64]int64{0: 3 << 20, 1: 3<<20 - 1, 3 << 20: 0})
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a follower reads %d bytes of something else in the end (%v)", len(got), err)
	}
	if f, err := in.Follow(); !errors.Is(err, errEnded) {
		t.Errorf("followed %v after the end (%v)", f, err)
	}

	other := content(302, 3<<20)
	in = beginPull(t, s, wantOf(other))
	if _, err := in.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	old, err := in.Follow()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := in.Commit(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if f, err := in.Follow(); !errors.Is(err, errDropped) || in.Ahead(0) != 0 {
		t.Errorf("followed %v, %d bytes ahead, when all was dropped (%v)", f, in.Ahead(0), err)
	}
	if err := in.Reset(); err != nil {
		t.Fatal(err)
	}
	finish(t, s, in, other)
	if got, err := io.ReadAll(old); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the old follower reads %d bytes of something else (%v)", len(got), err)
	}
	wantBlob(t, s, other)
}

// TestPulledOnlyOnce promises that what is here already by another way is not made evictable by a pull.
func TestPulledOnlyOnce(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, 1)
	data := content(303, 100)
	in := beginPull(t, s, wantOf(data))
	if err := in.writeMissing(data); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(data)
	by := begin(t, s, Want{Size: 100, MD5: sum[:]})
	finish(t, s, by, data)
	publish(t, s, "stable", Entry{KindItem, Sum(data), 100, "a"})
	finish(t, s, in, data)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	evict(t, s)
	wantPulled(t, s, nil)
	wantBlob(t, s, data)
	if _, err := s.BeginPull(t.Context(), wantOf(data)); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if s.leased(Sum(data)) {
		t.Error("a pull that was not begun left a lease")
	}
}

func TestPullFactsRoundTrip(t *testing.T) {
	t.Parallel()
	for _, f := range []pullFacts{
		{Used: time.Unix(0, 0)},
		{State: pullNamed, Size: 1 << 62, Used: time.Unix(1_800_000_000, 1)},
		{State: pullLeaving, Size: 5, Used: time.Unix(-1, 5)},
	} {
		if got, err := decodePull(f.encode()); err != nil || !got.Used.Equal(f.Used) || got.State != f.State || got.Size != f.Size {
			t.Errorf("got %+v (%v), want %+v", got, err, f)
		}
	}
	for _, bad := range []string{"", "\x00", "\x03\x00\x00", "\x00\x80", "\x00\x01", "\x00\x01\x80", "\x00\x01\x00\x00"} {
		if got, err := decodePull([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, got)
		}
	}
}

// TestPulledGivesWayToAFullDisk promises that what is only pulled is evicted rather than that new content is refused.
func TestPulledGivesWayToAFullDisk(t *testing.T) {
	t.Parallel()
	s := createOnSmallDisk(t, "200m", 64<<20, -1)
	c := contents(3, 8<<20)
	for _, data := range c[:2] {
		pull(t, s, data)
	}
	lease := s.Lease()
	lease.Add(Sum(c[0]))
	fillDisk(t, s, 64<<20+4<<20)
	if err := s.Room(8 << 20); err != nil {
		t.Errorf("there is no room, though a pulled file could go: %v", err)
	}
	if err := s.Room(16 << 20); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v for more than could go, want ErrNoSpace", err)
	}
	in := begin(t, s, wantOf(c[2]))
	finish(t, s, in, c[2])
	wantHere(t, s, c, 0, 2)
	lease.Release()
	if _, err := s.BeginPull(t.Context(), Want{Size: 32 << 20, SHA256: Digest{1}}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	wantHere(t, s, c, 0, 2) // it would have gone in vain
	os.Remove(s.dir + "/somebody's file")
}

// Who follows is told that the content is proven before it is made durable, and can read all of it then; never of a content that
// is another.
func TestWhenProven(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(1, smallSize+5)
	in, err := s.BeginPull(t.Context(), wantOf(data))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	told := 0
	in.WhenProven(func() {
		told++
		if s.Has(Sum(data)) || in.Ahead(3) != int64(len(data))-3 {
			t.Errorf("when it is proven, %d bytes can be read; in the store: %v", in.Ahead(3), s.Has(Sum(data)))
		}
	})
	if _, err := in.WriteAt(make([]byte, len(data)), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); !errors.Is(err, ErrCorrupt) || told != 0 {
		t.Errorf("of another content: %v, told %d times", err, told)
	}
	if err := in.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); err != nil || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
}
