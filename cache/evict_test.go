package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestEvictionCrash breaks an eviction at each of its durable steps: the blobs are here or gone, none is known that is gone, and
// no file stays that nobody knows.
func TestEvictionCrash(t *testing.T) {
	t.Parallel()
	base := createStore(t)
	c := contents(3, 100)
	for _, data := range c {
		pull(t, base, data)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	steps := []string{"write index", "written index", "write index", "written index"}
	for i := -1; i < len(steps); i++ {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			s := reopenStore(t, copyStore(t, base.dir))
			crashed := ""
			endTending(s)
			s.SetCacheLimit(100)
			f := inject(s, i, func() { crashed = copyStore(t, s.dir) })
			err := s.evict(0)
			f.end()
			if i < 0 {
				if err != nil || !slices.Equal(f.done, steps) {
					t.Errorf("the steps were %q (%v), want %q", f.done, err, steps)
				}
				crashed = copyStore(t, s.dir)
			} else if !errors.Is(err, errFault) {
				t.Errorf("step %d failed, and the eviction gave %v", i, err)
			}
			next := reopenStore(t, crashed)
			wantNoWaste(t, next, c)
			next.SetCacheLimit(100)
			evict(t, next)
			wantHere(t, next, c, 2)
			wantPulled(t, next, c, 2)

			evict(t, s)
			wantHere(t, s, c, 2)
		})
	}
}

// endTending leaves eviction to the test.
func endTending(s *Store) {
	close(s.stop)
	s.stop = nil
	s.tending.Wait()
}

// wantNoWaste fails the test unless each of the contents is known and on disk, or neither.
func wantNoWaste(t *testing.T, s *Store, contents [][]byte) {
	t.Helper()
	for i, data := range contents {
		_, err := s.root.Stat(blobName(Sum(data)))
		if here := err == nil; s.Has(Sum(data)) != here || s.isPulled(Sum(data)) != here {
			t.Errorf("content %d is known: %v, pulled: %v, on disk: %v", i, s.Has(Sum(data)), s.isPulled(Sum(data)), here)
		}
	}
}

// TestAFileThatCannotBeRemoved promises that eviction goes on with the others, and the next owner tries again.
func TestAFileThatCannotBeRemoved(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	c := contents(2, 100)
	for _, data := range c {
		pull(t, s, data)
	}
	name := filepath.Join(s.dir, blobName(Sum(c[0])))
	if err := errors.Join(os.Remove(name), os.MkdirAll(name+"/full", 0o755)); err != nil {
		t.Fatal(err)
	}
	endTending(s)
	s.SetCacheLimit(1)
	if err := s.evict(0); err == nil {
		t.Error("a directory was removed like a file")
	}
	if s.Has(Sum(c[0])) || s.Has(Sum(c[1])) || s.PullStats().Blobs != 0 {
		t.Error("a blob is still known")
	}
	if err := errors.Join(os.RemoveAll(name), os.WriteFile(name, c[0], 0o444), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	wantHere(t, s, c)
	wantPulled(t, s, c)
}

// TestEvictionUnderReaders promises that who leases a blob and then finds it reads all of it, whatever is evicted meanwhile; that
// pulls and readers together exceed the limit by what they use at most; and that checks find nothing wrong at any time, nor do
// rebuilds and sweeps get in the way.
func TestEvictionUnderReaders(t *testing.T) {
	t.Parallel()
	const (
		readers = 8
		rounds  = 15
		size    = 3000
		limit   = 5 * size
	)
	s := createStore(t)
	s.SetCacheLimit(limit)
	c := contents(20, size)
	var entries []Entry
	for i, data := range c {
		entries = append(entries, knownOf(fmt.Sprint(i), data))
	}
	publish(t, s, "stable", entries...)
	var hits, brought atomic.Int64
	read := func(data []byte) error {
		lease := s.Lease()
		defer lease.Release()
		lease.Add(Sum(data))
		for {
			f, err := s.Blob(Sum(data))
			if errors.Is(err, ErrMiss) {
				if bring, err := s.fetch(t, data); err != nil {
					return err
				} else if bring {
					brought.Add(1)
				}
				continue
			}
			if err != nil {
				return err
			}
			defer f.Close()
			hits.Add(1)
			s.Touch(Sum(data))
			got, err := io.ReadAll(f)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("it has another content")
			}
			if err == nil && !s.Has(Sum(data)) {
				err = errors.New("it went while it was leased")
			}
			return err
		}
	}
	var work sync.WaitGroup
	for i := range readers {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		work.Go(func() {
			for range rounds {
				if err := read(c[random.IntN(len(c))]); err != nil {
					t.Error(err)
					return
				}
				if got := s.PullStats().Bytes; got > limit+readers*size {
					t.Errorf("%d bytes are pulled", got)
				}
			}
		})
	}
	stop, checked := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				checked <- n
				return
			default:
			}
			s.saveUses()
			var err error
			switch n % 3 {
			case 0:
				wantProblems(t, s)
			case 1:
				err = s.Rebuild(t.Context())
			case 2:
				var plan *SweepPlan
				if plan, err = s.PlanSweep(t.Context(), SweepOptions{}); err == nil {
					_, err = plan.Execute(t.Context())
				}
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	work.Wait()
	close(stop)
	n := <-checked
	evict(t, s)
	st := s.PullStats()
	t.Logf("%d hits, %d brought, %d evicted, %d checks, rebuilds and sweeps", hits.Load(), brought.Load(), st.Evicted, n)
	if st.Bytes > limit || st.Evicted == 0 || brought.Load() != int64(st.Blobs+st.Evicted) {
		t.Errorf("in the end: %+v after %d were brought", st, brought.Load())
	}
	wantNoWaste(t, s, c)
}

// fetch pulls data as a fill does, and reports whether it did: another may have by then.
func (s *Store) fetch(t *testing.T, data []byte) (brought bool, err error) {
	in, err := s.BeginPull(t.Context(), wantOf(data))
	if errors.Is(err, ErrExists) {
		return false, s.Flush(t.Context())
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	if err := in.writeMissing(data); err != nil {
		return false, err
	}
	if _, err := in.Commit(t.Context()); err != nil {
		return false, err
	}
	return true, s.Flush(t.Context())
}

const (
	evictionKills = 8 // how often TestEvictionKilled kills its helper
	killedLimit   = 10 * killedSize
	killedSize    = 64 << 10
)

// TestEvictionKilled kills a process that pulls and so evicts without pause, at random moments: each time the store opens without
// a fault, within its limit.
func TestEvictionKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow")
	}
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Create(dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	var entries []Entry
	for i := range 40 {
		entries = append(entries, knownOf(fmt.Sprint(i), killedContent(i)))
	}
	publish(t, s, "stable", entries...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	pulls := 0
	for range evictionKills {
		pulls += pullUntilKilled(t, dir, time.Duration(random.Int64N(int64(150*time.Millisecond))))
		s := reopenStore(t, dir)
		evict(t, s)
		wantProblems(t, s)
		if got := s.PullStats().Bytes; got > killedLimit {
			t.Errorf("%d bytes are pulled", got)
		}
		waste := 0
		err := s.files.eachBlob(t.Context(), func(d Digest, _ int64) error {
			if !s.isPulled(d) {
				waste++
			}
			return nil
		})
		if err != nil || waste > 1 { // a blob that had its name already and was not in the index
			t.Errorf("%d files are not in the account (%v)", waste, err)
		}
		plan, _ := planSweep(t, s)
		if _, err := plan.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d pulls in %d lives", pulls, evictionKills)
}

func killedContent(i int) []byte { return content(uint64(1000+i), killedSize+i) }

// pullUntilKilled returns how many contents the helper said it had pulled.
func pullUntilKilled(t *testing.T, dir string, after time.Duration) (pulls int) {
	t.Helper()
	return countUntilKilled(t, "TestEvictHelper", "OXBOW_TEST_EVICT="+dir, after)
}

// TestEvictHelper is no test: it is what TestEvictionKilled runs and kills.
func TestEvictHelper(t *testing.T) {
	dir := os.Getenv("OXBOW_TEST_EVICT")
	if dir == "" {
		t.Skip("runs only as a helper")
	}
	s, err := Open(dir, &Options{Reserve: 1 << 20, Ballast: -1, CacheLimit: killedLimit})
	if err != nil {
		t.Fatal(err)
	}
	all := make([][]byte, 40)
	for i := range all {
		all[i] = killedContent(i)
	}
	for n := 0; ; n++ {
		fmt.Println(n)
		d := all[rand.IntN(len(all))]
		s.Touch(Sum(d))
		if _, err := s.fetch(t, d); err != nil {
			t.Fatal(err)
		}
		if n%7 == 0 {
			s.saveUses()
		}
	}
}
