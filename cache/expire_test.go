package cache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// days is a stream that published once a day, and what each day brought alone.
type days struct {
	ids  []Digest
	file []Entry
}

func publishDays(t *testing.T, s *Store, n int) days {
	t.Helper()
	var d days
	for i := range n {
		name := string(rune('a' + i))
		d.file = append(d.file, put(t, s, KindItem, name, "content "+name))
		d.ids = append(d.ids, publish(t, s, "stable", d.file[i], put(t, s, KindItem, "all", "content of all")))
	}
	return d
}

// expire sweeps with these snapshots expired.
func expire(t *testing.T, s *Store, ids ...Digest) SweepResult {
	t.Helper()
	plan, err := s.PlanSweep(t.Context(), SweepOptions{Expired: func(string, []Snapshot) map[Digest]string {
		why := map[Digest]string{}
		for _, id := range ids {
			why[id] = "it is old"
		}
		return why
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := plan.Execute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Expired snapshots go, from anywhere in the row, with what only they name; the current one and pinned ones stay, in service,
// also for the next owner.
func TestExpire(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	d := publishDays(t, s, 5)
	flush(t, s)
	if err := s.Pin(t.Context(), d.ids[0], "the first"); err != nil {
		t.Fatal(err)
	}
	r := expire(t, s, d.ids[0], d.ids[1], d.ids[3], d.ids[4])
	if r.Removed != 4 { // two manifests, two files
		t.Errorf("removed %+v", r)
	}
	for range 2 {
		for i, id := range d.ids {
			e := d.file[i]
			if gone := i == 1 || i == 3; gone {
				wantFound(t, s, "stable", Published, e.Path, Entry{}, Digest{})
				if s.Has(e.Digest) {
					t.Errorf("the file of day %d is there", i)
				}
				continue
			}
			wantFound(t, s, "stable", Published, e.Path, e, id)
		}
		kept, err := s.Snapshots("stable")
		if err != nil || len(kept) != 3 || kept[0].ID != d.ids[4] || !kept[0].Current || kept[1].ID != d.ids[2] || kept[2].ID != d.ids[0] {
			t.Fatalf("kept are %v (%v)", kept, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopenStore(t, s.dir)
	}
	if err := s.Unpin(t.Context(), d.ids[0]); err != nil {
		t.Fatal(err)
	}
	if r := expire(t, s, d.ids[0]); r.Removed != 2 {
		t.Errorf("after the pin is gone: %+v", r)
	}
	publish(t, s, "stable", put(t, s, KindItem, "f", "content f"))
}

// What was pinned, or made current again, between the plan of a sweep and the sweep stays.
func TestExpireSpares(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	d := publishDays(t, s, 3)
	flush(t, s)
	plan, err := s.PlanSweep(t.Context(), SweepOptions{Expired: func(_ string, kept []Snapshot) map[Digest]string {
		return map[Digest]string{kept[1].ID: "it is old", kept[2].ID: "it is old"}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(t.Context(), d.ids[1], ""); err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFound(t, s, "stable", Published, "b", d.file[1], d.ids[1])
	wantFound(t, s, "stable", Published, "a", Entry{}, Digest{})
}

// Wherever a sweep of expired snapshots is cut off, what is kept is whole, and the next sweep ends it.
func TestExpireCrash(t *testing.T) {
	t.Parallel()
	base := createStore(t)
	d := publishDays(t, base, 3)
	flush(t, base)
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	plan := func(t *testing.T, s *Store) *SweepPlan {
		plan, err := s.PlanSweep(t.Context(), SweepOptions{Expired: func(string, []Snapshot) map[Digest]string {
			return map[Digest]string{d.ids[1]: "it is old"}
		}})
		if err != nil {
			t.Fatal(err)
		}
		return plan
	}
	steps := []string{"fsync TEMP", "rename current/stable", "fsync current", // from here on it does not count
		"write index", "written index", "remove " + manifestName("stable", d.ids[1]), "fsync snapshots/stable",
		"write index", "written index"} // the blobs' facts
	sweep := func(t *testing.T, at int, crash func(*Store)) (*Store, *faults, error) {
		s := reopenStore(t, copyStore(t, base.dir))
		p := plan(t, s)
		f := inject(s, at, func() { crash(s) })
		defer f.end()
		_, err := p.Execute(t.Context())
		return s, f, err
	}
	_, f, err := sweep(t, -1, nil)
	for i, step := range f.done {
		if strings.HasPrefix(step, "fsync write-") {
			f.done[i] = "fsync TEMP"
		}
	}
	if err != nil || !slices.Equal(f.done, steps) {
		t.Fatalf("the steps were %q (%v), want %q", f.done, err, steps)
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
				wantFound(t, s, "stable", Published, "c", d.file[2], d.ids[2])
				wantFound(t, s, "stable", Published, "a", d.file[0], d.ids[0])
				if _, err := plan(t, s).Execute(t.Context()); err != nil {
					t.Error(err)
				}
				wantFound(t, s, "stable", Published, "b", Entry{}, Digest{})
				wantFound(t, s, "stable", Published, "a", d.file[0], d.ids[0])
				if s.Has(d.file[1].Digest) {
					t.Error("what was to be swept is still there")
				}
			}
		})
	}
}
