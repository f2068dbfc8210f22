package mirror_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// The handovers of what came stay with each snapshot as long as it is kept, or its content, which a rollback published anew.
func TestHandoversStay(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	nearKey := keyOf(t, near.m)
	middle := newFarSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	middle.m = mirror.New(mirror.Options{Store: middle.store, Now: func() time.Time { return now }})
	trust := mirror.ImportOptions{TrustFingerprint: nearKey.Fingerprint()}
	took := func() (cache.Snapshot, time.Time) {
		now = now.Add(time.Hour)
		middle.mustTake(trust, near.export(mirror.ExportOptions{})...)
		snap, err := middle.store.Current(stable)
		if err != nil {
			t.Fatal(err)
		}
		return snap, now
	}
	first, came := took()
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	took()
	now = now.Add(time.Hour)
	if _, err := middle.m.Rollback(t.Context(), stable, first.ID); err != nil {
		t.Fatal(err)
	}
	back, err := middle.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	middleKey := keyOf(t, middle.m)
	for _, test := range []struct {
		what  string
		snap  cache.Snapshot
		since time.Time // as the middle one says
	}{{"that came first", first, came}, {"of a rollback to that", back, back.Created}} {
		volumes := exportFrom(t, middle.store, mirror.ExportOptions{Snapshots: []cache.Snapshot{test.snap}})
		i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "one", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{Keyring: tree.Keyring()})
		if err != nil || len(i.Faults) > 0 {
			t.Fatalf("%s: %+v, %v", test.what, i, err)
		}
		want := []*mirror.HandoverView{
			{Snapshot: first.ID.String(), Site: nearKey.Fingerprint(), Time: first.Created, MadeBy: "oxbow test", Proven: true},
			{Snapshot: test.snap.ID.String(), Site: middleKey.Fingerprint(), Time: test.since, MadeBy: "oxbow test", Proven: true},
		}
		if diff := cmp.Diff(want, i.Streams[0].Handovers, cmpopts.IgnoreFields(mirror.HandoverView{}, "By")); diff != "" {
			t.Errorf("handovers of the snapshot %s (-want +got):\n%s", test.what, diff)
		}
		far := newFarSite(t)
		far.mustTake(mirror.ImportOptions{TrustFingerprint: middleKey.Fingerprint()}, volumes...)
	}
}

// A bundle that is imported again changes nothing of when its snapshot came, nor what is current, and it is said what that is.
func TestImportAgain(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key := keyOf(t, near.m)
	old := near.export(mirror.ExportOptions{})
	tree.AddDay()
	near.upstream.Publish(tree)
	near.m = mirror.New(mirror.Options{Store: near.store, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	near.mustSync()
	newer := near.export(mirror.ExportOptions{})

	far := newFarSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	far.m = mirror.New(mirror.Options{Store: far.store, Now: func() time.Time { return now }})
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint(), AllowOlder: true}
	far.mustTake(o, newer...)
	snap, err := far.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	came := now
	now = now.Add(time.Hour)
	far.mustTake(o, old...)
	was := current(t, far.store, stable)
	now = now.Add(time.Hour)
	results, err := far.take(o, newer...)
	if err != nil || len(results) != 1 || results[0].There[stable] != snap.ID.String() || results[0].Current[stable] != was.String() {
		t.Errorf("%+v, %v", results, err)
	}
	if is := current(t, far.store, stable); is != was || is == snap.ID {
		t.Errorf("%v is current, and was %v; the newer one is %v", is, was, snap.ID)
	}
	keyOf(t, far.m) // it is made
	volumes := exportFrom(t, far.store, mirror.ExportOptions{Snapshots: []cache.Snapshot{snap}})
	i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "one", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{Keyring: tree.Keyring()})
	if err != nil || len(i.Faults) > 0 {
		t.Fatalf("%+v, %v", i, err)
	}
	if h := i.Streams[0].Handovers; len(h) != 2 || !h[1].Time.Equal(came) {
		t.Errorf("handovers %+v, want the last since %v", h, came)
	}
}
