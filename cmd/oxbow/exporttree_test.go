package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"oxbow/cache"
)

// While an older snapshot is exported its files outlive a sweep that gives the snapshot up; they go with the next one.
func TestExportTreeLease(t *testing.T) {
	s := newSide(t)
	s.must("mirror", "sync", "UPSTREAM", "arch=amd64", "--max", "1", "--keyring", "DIR/upstream.gpg")
	s.day()
	s.must("mirror", "sync", "stable")
	store, err := cache.Open(filepath.Join(s.dir, "store"), &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	o := newOwner(store, slog.New(slog.DiscardHandler), true)
	defer o.close()
	kept, err := store.Snapshots("stable")
	if err != nil || len(kept) < 2 {
		t.Fatalf("%d snapshots, %v", len(kept), err)
	}
	old := kept[len(kept)-1]
	man, err := store.Manifest("stable", old.ID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	leased, ended := newFirstWrite(), make(chan error, 1)
	go func() { ended <- (&leaseWork{"stable", old.ID}).do(ctx, o, &screen{stdout: leased, stderr: leased}) }()
	<-leased.given
	sweep := func() (lost int) {
		t.Helper()
		plan, err := store.PlanSweep(t.Context(), cache.SweepOptions{Expired: func(_ string, kept []cache.Snapshot) map[cache.Digest]string {
			return map[cache.Digest]string{old.ID: "for the test"}
		}})
		if err == nil {
			_, err = plan.Execute(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range man.Entries {
			if !store.Has(e.Digest) {
				lost++
			}
		}
		return lost
	}
	if lost := sweep(); lost > 0 {
		t.Errorf("%d files are swept meanwhile", lost)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if lost := sweep(); lost == 0 {
		t.Error("no file is swept afterwards: the test proves nothing")
	}
	if err := (&leaseWork{"stable", old.ID}).do(t.Context(), o, &screen{stdout: leased, stderr: leased}); err == nil {
		t.Error("a snapshot that is not kept is leased")
	}
	report, err := store.Check(t.Context(), cache.CheckOptions{Deep: true})
	if err != nil || report.Err() != nil {
		t.Error(err, report.Err())
	}
}
