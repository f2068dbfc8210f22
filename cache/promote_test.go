package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func itemOf(path string, data []byte) Entry {
	return Entry{KindItem, Sum(data), int64(len(data)), path}
}

func knownOf(path string, data []byte) Entry {
	return Entry{KindKnown, Sum(data), int64(len(data)), path}
}

// TestASyncTakesThePulledOver promises that what a snapshot needs is no longer evicted, nor counted; and that what it only knows
// still is.
func TestASyncTakesThePulledOver(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, -1)
	c := contents(3, 100)
	for _, data := range c {
		pull(t, s, data)
	}
	publish(t, s, "stable", itemOf("a", c[0]), knownOf("b", c[1]))
	wantPulled(t, s, c, 1, 2)
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c, 0)
	if _, err := s.Publish(t.Context(), following(t, s, "stable", itemOf("a", c[0]), itemOf("b", c[1]))); !errors.Is(err, ErrMiss) {
		t.Errorf("got %v for what was evicted, want ErrMiss", err)
	}
	wantHere(t, s, c, 0)
}

// TestARefusedSyncTakesNothingOver promises that what was not published after all can be evicted as before.
func TestARefusedSyncTakesNothingOver(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, -1)
	c := contents(2, 100)
	pull(t, s, c[0])
	if _, err := s.Publish(t.Context(), following(t, s, "stable", itemOf("a", c[0]), itemOf("b", c[1]))); !errors.Is(err, ErrMiss) {
		t.Fatalf("got %v, want ErrMiss", err)
	}
	wantPulled(t, s, c, 0)
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c)
}

// TestTakingOverCrash breaks a publication that needs pulled blobs at each of its durable steps, and evicts all that can be: in
// the process that goes on and in the next owner, the old or the new snapshot is whole.
func TestTakingOverCrash(t *testing.T) {
	t.Parallel()
	base := createStore(t)
	first := publish(t, base, "stable", put(t, base, KindItem, "a", "old a"), put(t, base, KindItem, "b", "old b"))
	for _, text := range newFiles {
		pull(t, base, []byte(text))
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	steps := publishSteps(t, copyStore(t, base.dir))
	if want := []string{"write index", "written index", "fsync TEMP", "rename snapshots/stable/ID"}; len(steps) < 4 || !slices.Equal(steps[:4], want) {
		t.Fatalf("the steps were %q, want first %q", steps, want)
	}
	for i, step := range steps {
		t.Run(fmt.Sprintf("%02d %s", i, strings.Fields(step)[0]), func(t *testing.T) {
			t.Parallel()
			s := reopenStore(t, copyStore(t, base.dir))
			crashed := ""
			f := inject(s, i, func() { crashed = copyStore(t, s.dir) })
			second, err := publishNew(t, s)
			f.end()
			if done := i >= len(steps)-2; !errors.Is(err, errFault) && !done { // it is published before the account is written
				t.Fatalf("step %d, %s, failed, and the publication gave %v", i, step, err)
			}
			for _, s := range []*Store{s, reopenStore(t, crashed)} {
				s.SetCacheLimit(1)
				evict(t, s)
				wantOldOrNew(t, s, first, second)
				evicted := s.PullStats().Evicted
				if current, _ := s.Current("stable"); (current.ID == first) != (evicted == 2) {
					t.Errorf("%v of %v and %v is current, and %d blobs were evicted", current.ID, first, second, evicted)
				}
				wantProblems(t, s)
			}
		})
	}
}

// TestTheDoubtfulStay promises that nothing is evicted while a lost or damaged manifest may need it.
func TestTheDoubtfulStay(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	c := contents(2, 100)
	pull(t, s, c[0])
	pull(t, s, c[1])
	id := publish(t, s, "stable", itemOf("a", c[0]))
	doubtful := pullFacts{State: pullNamed, Size: 100, Used: time.Unix(1, 0)}
	if err := s.index.setPulls(map[Digest]pullFacts{Sum(c[0]): doubtful}); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(s.dir, manifestName("stable", id))
	if err := errors.Join(s.Close(), os.Rename(manifest, s.dir+"/away")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(s.dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c, 0)
	if err := errors.Join(s.Close(), os.Rename(s.dir+"/away", manifest)); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c, 0)
	wantPulled(t, s, c)
}

// TestWhatCameAgainStays promises that a note of an eviction that was not cleared does no harm to a blob that came again: it stays
// if a snapshot needs it, and is pulled if not; and that a note without a blob is forgotten.
func TestWhatCameAgainStays(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	c := contents(4, 100)
	for _, data := range c[:3] {
		ingest(t, s, data)
	}
	publish(t, s, "stable", itemOf("a", c[0]), knownOf("b", c[1]))
	left := make(map[Digest]pullFacts)
	for i, state := range []pullState{pullLeaving, pullLeaving, pullLeaving, pullNamed} {
		left[Sum(c[i])] = pullFacts{State: state, Size: 100, Used: time.Unix(int64(i), 0)}
	}
	if err := errors.Join(s.index.setPulls(left), s.index.dropBlobs(Sum(c[2])), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	wantHere(t, s, c, 0, 1)
	wantPulled(t, s, c, 1)
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c, 0)
}

// TestALostCurrentIsCounted promises that a publication that is made current when the store is opened keeps what it needs.
func TestALostCurrentIsCounted(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	c := contents(2, 100)
	pull(t, s, c[0])
	pull(t, s, c[1])
	m := following(t, s, "stable", itemOf("a", c[0]))
	m.Parent = publish(t, s, "stable", knownOf("k", c[1]))
	id := Sum(m.Encode())
	if err := s.writeManifest(id, m); err != nil { // as a crash leaves it, whatever became of the account
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), os.Remove(filepath.Join(s.dir, currentName("stable")))); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	wantFound(t, s, "stable", Published, "a", itemOf("a", c[0]), id)
	wantPulled(t, s, c, 1)
}

// TestSweepAndThePulled promises that a sweep leaves what is pulled to eviction, makes pulled what snapshots only know by now, and
// removes what nobody can ask for any more.
func TestSweepAndThePulled(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, -1)
	c := contents(6, 100)
	for _, i := range []int{0, 1, 5} {
		pull(t, s, c[i])
	}
	for _, i := range []int{2, 3, 4} {
		ingest(t, s, c[i])
	}
	publish(t, s, "kept", knownOf("pulled", c[0]), knownOf("was needed", c[2]), itemOf("needed", c[3]), knownOf("another name", c[3]))
	publish(t, s, "dropped", itemOf("a", c[2]), itemOf("b", c[4]), knownOf("c", c[1]))
	if err := s.Drop(t.Context(), "dropped"); err != nil {
		t.Fatal(err)
	}
	lease := s.Lease()
	lease.Add(Sum(c[5]))
	long := time.Unix(1_000_000_000, 0)
	if err := os.Chtimes(filepath.Join(s.dir, blobName(Sum(c[2]))), long, long); err != nil {
		t.Fatal(err)
	}
	plan, lines := planSweep(t, s)
	want := []string{
		"blob " + Sum(c[1]).String() + ", 100 bytes: no kept snapshot names it",
		"blob " + Sum(c[4]).String() + ", 100 bytes: no kept snapshot names it",
	}
	slices.Sort(want)
	if !slices.Equal(lines, want) {
		t.Errorf("plan\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	wantPulled(t, s, c, 0, 1, 5) // planning changes nothing
	execute(t, plan, SweepResult{Removed: 2, Bytes: 200})
	wantHere(t, s, c, 0, 2, 3, 5)
	wantPulled(t, s, c, 2, 0, 5)
	lease.Release()
	s.SetCacheLimit(250)
	evict(t, s)
	wantHere(t, s, c, 0, 3, 5)
	if got := s.PullStats().Evicted; got != 1 {
		t.Errorf("%d blobs count as evicted", got)
	}
}

// TestALostIndexForgetsNothing promises that without the index, what snapshots only know is pulled, of the time of its file; that
// it is served again only when it is proven; and that a rebuild knows better.
func TestALostIndexForgetsNothing(t *testing.T) {
	t.Parallel()
	s, _ := pullStore(t, -1)
	c := contents(5, 100)
	for _, data := range c {
		pull(t, s, data)
	}
	publish(t, s, "stable", knownOf("0", c[0]), knownOf("1", c[1]), knownOf("2", c[2]), knownOf("4", c[4]), put(t, s, KindSite, "index", "x"))
	for i, age := range []time.Duration{2, 1, 3, 5, 4} {
		at := time.Unix(1_800_000_000, 0).Add(-age * time.Hour)
		if err := os.Chtimes(filepath.Join(s.dir, blobName(Sum(c[i]))), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), os.RemoveAll(filepath.Join(s.dir, indexDir))); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	pass := setClock(s, time.Unix(1_800_000_000, 0))
	wantPulled(t, s, c, 4, 2, 0, 1)
	if s.Has(Sum(c[0])) {
		t.Error("a blob counts as proven that nobody has read")
	}
	s.SetCacheLimit(300)
	evict(t, s)
	wantPulled(t, s, c, 2, 0, 1)
	pass(time.Second)
	if _, err := s.BeginPull(t.Context(), wantOf(c[2])); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	wantBlob(t, s, c[2])
	wantPulled(t, s, c, 0, 1, 2)
	pass(time.Second)
	s.Touch(Sum(c[0]))
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPulled(t, s, c, 1, 2, 0)
	wantHere(t, s, c, 0, 1, 2, 3)
	plan, _ := planSweep(t, s)
	execute(t, plan, SweepResult{Removed: 1, Bytes: 100}) // what nothing knows
	wantPulled(t, s, c, 1, 2, 0)
}

// TestCheckFindsWhatMustNotBeEvicted promises that an account that is wrong is found, and that a rebuild mends it.
func TestCheckFindsWhatMustNotBeEvicted(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "a", "content")
	publish(t, s, "stable", e)
	wrong := map[Digest]pullFacts{e.Digest: {Size: e.Size, Used: time.Unix(1, 0)}}
	if err := s.index.setPulls(wrong); err != nil {
		t.Fatal(err)
	}
	s.credit(wrong)
	report, err := s.Check(t.Context(), CheckOptions{})
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].String(), "may be evicted; stream stable") {
		t.Errorf("the check says %+v (%v)", report, err)
	}
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.SetCacheLimit(1)
	evict(t, s)
	wantBlob(t, s, []byte("content"))
}
