package cache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// swept makes a plan and returns what it lists, in words.
func planSweep(t *testing.T, s *Store) (*SweepPlan, []string) {
	t.Helper()
	plan, err := s.PlanSweep(t.Context(), SweepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, i := range plan.Items {
		lines = append(lines, i.String())
	}
	return plan, lines
}

// execute carries a plan out and compares the outcome.
func execute(t *testing.T, plan *SweepPlan, want SweepResult) {
	t.Helper()
	if got, err := plan.Execute(t.Context()); err != nil || got != want {
		t.Errorf("swept %+v (%v), want %+v", got, err, want)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	now := time.Now()
	s.opts.Now = func() time.Time { return now }
	old, kept := put(t, s, KindItem, "old", "old"), put(t, s, KindItem, "new", "new")
	publish(t, s, "stable", old, put(t, s, KindEvidence, "e", "evidence"))
	publish(t, s, "stable", kept)
	orphan := following(t, s, "stable", put(t, s, KindItem, "x", "orphan's"), known("k", "known"))
	flush(t, s)
	orphanID := Sum(orphan.Encode())
	if err := s.writeManifest(orphanID, orphan); err != nil {
		t.Fatal(err)
	}
	if _, err := s.index.addSnapshot(t.Context(), orphanID, orphan); err != nil {
		t.Fatal(err)
	}
	unnamed := ingest(t, s, []byte("unnamed"))
	flush(t, s)
	partial := begin(t, s, wantOf(content(1, 2<<20)))
	if _, err := partial.WriteAt(content(1, 2<<20)[:1<<20], 0); err != nil {
		t.Fatal(err)
	}
	partial.Close()
	overwrite(t, s, "blobs/sha256/00/foreign", "not ours")

	_, lines := planSweep(t, s)
	want := []string{
		"snapshot stable " + orphanID.String() + ", " + fmt.Sprint(len(orphan.Encode())) + " bytes: it never became current",
		"blob " + unnamed.String() + ", 7 bytes: no kept snapshot names it",
		"blob " + Sum([]byte("orphan's")).String() + ", 8 bytes: no kept snapshot names it",
	}
	slices.Sort(want[1:])
	if !slices.Equal(lines, want) {
		t.Errorf("plan\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	now = now.Add(25 * time.Hour)
	plan, lines := planSweep(t, s)
	if len(lines) != 4 || !strings.HasPrefix(lines[3], "partial sha256-"+Sum(content(1, 2<<20)).String()+", 1048576 bytes: nobody went on with it since ") {
		t.Errorf("a day later the plan is\n%s", strings.Join(lines, "\n"))
	}
	if got, want := plan.Bytes(), int64(len(orphan.Encode())+7+8+1<<20); got != want {
		t.Errorf("the plan frees %d bytes, want %d", got, want)
	}
	wantNames(t, s, "snapshots/stable", manifestNames(t, s)...)
	execute(t, plan, SweepResult{Removed: 4, Bytes: plan.Bytes()})
	if _, err := plan.Execute(t.Context()); err == nil {
		t.Error("a plan was carried out twice")
	}
	if _, lines := planSweep(t, s); len(lines) > 0 {
		t.Errorf("after the sweep the plan is\n%s", strings.Join(lines, "\n"))
	}
	for d, want := range map[Digest]bool{unnamed: false, Sum([]byte("orphan's")): false, old.Digest: true, kept.Digest: true, Sum([]byte("evidence")): true} {
		_, err := s.root.Stat(blobName(d))
		if has := s.Has(d); has != want || (err == nil) != want {
			t.Errorf("blob %v is known: %v, and there: %v; want %v", d, has, err, want)
		}
	}
	wantNames(t, s, "ingest")
	if _, err := s.root.Stat("blobs/sha256/00/foreign"); err != nil {
		t.Errorf("a foreign file is gone: %v", err)
	}
}

func manifestNames(t *testing.T, s *Store) (names []string) {
	t.Helper()
	ids, err := s.files.manifests("stable")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		names = append(names, id.String())
	}
	return names
}

// TestSweepSpares promises that what is named or used between the plan and its
// execution stays.
func TestSweepSpares(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	publish(t, s, "stable", put(t, s, KindItem, "a", "a"))
	named, leased, swept := ingest(t, s, []byte("named")), ingest(t, s, []byte("leased")), ingest(t, s, []byte("swept"))
	flush(t, s)
	lease := s.Lease()
	lease.Add(leased)
	if _, lines := planSweep(t, s); len(lines) != 2 {
		t.Errorf("a lease does not count: the plan is\n%s", strings.Join(lines, "\n"))
	}
	lease.Release()
	plan, lines := planSweep(t, s)
	if len(lines) != 3 {
		t.Errorf("the plan is\n%s", strings.Join(lines, "\n"))
	}
	publish(t, s, "stable", Entry{KindItem, named, 5, "named"})
	lease = s.Lease()
	lease.Add(leased)
	execute(t, plan, SweepResult{Removed: 1, Spared: 2, Bytes: 5})
	for d, want := range map[Digest]bool{named: true, leased: true, swept: false} {
		if s.Has(d) != want {
			t.Errorf("blob %v is known: %v, want %v", d, !want, want)
		}
	}
	lease.Release()
}

// TestSweepSparesPins promises that a pinned snapshot keeps its blobs even if
// nothing leads to it.
func TestSweepSparesPins(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	publish(t, s, "stable", put(t, s, KindItem, "a", "a"))
	pinned := following(t, s, "stable", put(t, s, KindItem, "b", "pinned"))
	flush(t, s)
	id := Sum(pinned.Encode())
	if err := s.writeManifest(id, pinned); err != nil {
		t.Fatal(err)
	}
	overwrite(t, s, pinsDir+"/"+id.String(), "because\n")
	if _, lines := planSweep(t, s); len(lines) > 0 {
		t.Errorf("the plan is\n%s", strings.Join(lines, "\n"))
	}
}

// TestSweepRefuses promises that nothing is removed while it is not known what
// a kept snapshot names.
func TestSweepRefuses(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	first := publish(t, s, "stable", put(t, s, KindItem, "a", "a"))
	publish(t, s, "stable", put(t, s, KindItem, "a", "b"))
	text, err := s.root.ReadFile(manifestName("stable", first))
	if err != nil {
		t.Fatal(err)
	}
	plan, _ := planSweep(t, s)
	overwrite(t, s, manifestName("stable", first), strings.Replace(string(text), "test", "text", 1))
	if _, err := s.PlanSweep(t.Context(), SweepOptions{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("planned with a damaged snapshot: %v", err)
	}
	if _, err := plan.Execute(t.Context()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("swept with a damaged snapshot: %v", err)
	}
	if err := s.root.Remove(manifestName("stable", first)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PlanSweep(t.Context(), SweepOptions{}); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("planned with a lost snapshot: %v", err)
	}
	overwrite(t, s, manifestName("stable", first), string(text))
}

// TestSweepCrash breaks a sweep at each of its durable steps: what is left is
// whole, and the next sweep ends it.
func TestSweepCrash(t *testing.T) {
	t.Parallel()
	base := createStore(t)
	id := publish(t, base, "stable", put(t, base, KindItem, "a", "a"))
	orphan := following(t, base, "stable", put(t, base, KindItem, "b", "b"))
	flush(t, base)
	if err := base.writeManifest(Sum(orphan.Encode()), orphan); err != nil {
		t.Fatal(err)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	steps := []string{"write index", "written index", "remove " + manifestName("stable", Sum(orphan.Encode())), "fsync snapshots/stable",
		"write index", "written index"}
	sweep := func(t *testing.T, at int, crash func(*Store)) (*Store, *faults, error) {
		s := reopenStore(t, copyStore(t, base.dir))
		if _, err := s.index.addSnapshot(t.Context(), Sum(orphan.Encode()), orphan); err != nil { // opening dropped it
			t.Fatal(err)
		}
		plan, _ := planSweep(t, s)
		f := inject(s, at, func() { crash(s) })
		defer f.end()
		_, err := plan.Execute(t.Context())
		return s, f, err
	}
	if _, f, err := sweep(t, -1, nil); err != nil || !slices.Equal(f.done, steps) {
		t.Errorf("the steps were %q (%v), want %q", f.done, err, steps)
	}
	for i, step := range steps {
		t.Run(fmt.Sprint(i, " ", strings.Fields(step)[0]), func(t *testing.T) {
			t.Parallel()
			crashed := ""
			s, _, err := sweep(t, i, func(s *Store) { crashed = copyStore(t, s.dir) })
			if !errors.Is(err, errFault) {
				t.Fatalf("step %d, %s, failed, and the sweep gave %v", i, step, err)
			}
			for _, s := range []*Store{s, reopenStore(t, crashed)} {
				wantOldOrNew(t, s, id, id)
				plan, _ := planSweep(t, s)
				if _, err := plan.Execute(t.Context()); err != nil {
					t.Error(err)
				}
				wantNames(t, s, "snapshots/stable", id.String())
				if s.Has(Sum([]byte("b"))) {
					t.Error("what was to be swept is still there")
				}
			}
		})
	}
}
