package mirror_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// A bundle of which a volume is missing is told with what is missing, by a file, also when the import was killed; it is told no more
// once it is published, or given up, and then a sweep removes what came.
func TestUnfinishedBundle(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key := keyOf(t, near.m)
	volumes := near.export(mirror.ExportOptions{Split: 250 << 10})
	far := newFarSite(t)
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}
	told := func(missing ...int) *mirror.UnfinishedBundle {
		t.Helper()
		all, err := mirror.UnfinishedBundles(far.store.Files())
		if err != nil {
			t.Fatal(err)
		}
		if len(missing) == 0 {
			if len(all) > 0 {
				t.Errorf("unfinished is %+v", all[0])
			}
			return nil
		}
		if len(all) != 1 {
			t.Fatalf("%d are unfinished", len(all))
		}
		u := all[0]
		var numbers []int
		for _, v := range u.Missing {
			numbers = append(numbers, v.Volume)
			if v.Files == 0 || v.Bytes == 0 {
				t.Errorf("missing is %+v", v)
			}
		}
		if !slices.Equal(numbers, missing) || !u.Brings(stable) || u.Brings("other") || u.Site != key.Fingerprint() || u.Volumes != len(volumes) ||
			time.Since(u.Since) > time.Hour || !u.KeptUntil.Equal(u.Last.Add(60*24*time.Hour)) {
			t.Errorf("told is %+v, want missing %v", u, missing)
		}
		return u
	}
	told()
	var rest []int
	for n := range len(volumes) {
		if n != 1 {
			rest = append(rest, n+1)
		}
	}
	results, err := far.take(o, volumes[1])
	if err != nil {
		t.Fatal(err)
	}
	if u := told(rest...); u != nil && (u.Bundle != results[0].Bundle || !slices.Equal(u.Missing, results[0].Missing)) {
		t.Errorf("told is %+v, the import said %+v", u, results[0])
	}
	cut := volumes[0][:len(volumes[0])*9/10] // as if it was killed
	if _, err := far.take(o, cut); err == nil {
		t.Error("of half a volume there is no error")
	}
	if u, left := told(rest...), results[0].Missing[0].Bytes; u != nil && u.Missing[0].Bytes >= left {
		t.Errorf("%d of %d bytes are missing still", u.Missing[0].Bytes, left)
	}
	if _, err := far.m.AbandonBundle("0000"); !errors.Is(err, mirror.ErrNoBundle) {
		t.Errorf("of another: %v", err)
	}
	importing := o
	importing.Taken = func(mirror.Taken) {
		if _, err := far.m.AbandonBundle(results[0].Bundle[:8]); !errors.Is(err, mirror.ErrImporting) {
			t.Errorf("while it is imported: %v", err)
		}
	}
	if _, err := far.take(importing, volumes[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := far.m.AbandonBundle(results[0].Bundle[:8]); err != nil {
		t.Error(err)
	}
	told()
	plan, err := far.m.PlanSweep(t.Context())
	if err == nil {
		_, err = plan.Execute(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if st, err := far.store.Files().Stats(t.Context()); err != nil || st.Blobs > 0 {
		t.Errorf("%d blobs stay, %v", st.Blobs, err)
	}
	far.mustTake(o, volumes...)
	told()
	far.same(near)
}
