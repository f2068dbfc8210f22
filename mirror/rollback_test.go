package mirror_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// days syncs the site on that many days, and returns what was published on each, the first one first.
func (s *site) days(tree *streamstest.Tree, n int) (ids []cache.Digest, versions [][]string) {
	s.t.Helper()
	for i := range n {
		if i > 0 {
			tree.AddDay()
			tree.Trim(2)
			s.upstream.Publish(tree)
		}
		s.mustSync()
		ids, versions = append(ids, current(s.t, s.store, stable)), append(versions, s.versions())
	}
	return ids, versions
}

func (s *site) rollback(to cache.Digest) *mirror.RolledBack {
	s.t.Helper()
	res, err := s.m.Rollback(s.t.Context(), stable, to)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

func (s *site) updated() time.Time {
	s.t.Helper()
	x, _ := s.family(".json", func(doc []byte) ([]byte, error) { return doc, nil })
	at, err := streams.ParseTime(x.Updated)
	if err != nil {
		s.t.Fatal(err)
	}
	return at
}

// A rollback shows the older content whole, as a new snapshot with a later date that follows the one it leaves, and asks nothing
// of upstream. Another one goes further back, and not forward again, until there is nothing left to go back to.
func TestRollback(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, versions := s.days(tree, 3)
	s.upstream.Reset()
	before := s.updated()
	for back := 1; back <= 2; back++ {
		left := current(t, s.store, stable)
		res := s.rollback(cache.Digest{})
		snap, err := s.store.Current(stable)
		if err != nil {
			t.Fatal(err)
		}
		target := ids[2-back].String()
		if snap.ID.String() != res.Snapshot || snap.Parent != left || res.To != target || snap.Reason != "rollback to "+target[:12] {
			t.Errorf("rollback %d: %+v, current is %+v", back, res, snap)
		}
		if diff := cmp.Diff(versions[2-back], s.versions()); diff != "" {
			t.Errorf("rollback %d, versions (-then +now):\n%s", back, diff)
		}
		if now := s.updated(); !now.After(before) {
			t.Errorf("rollback %d: updated %v, after %v", back, now, before)
		}
		before = s.updated()
	}
	if _, err := s.m.Rollback(t.Context(), stable, cache.Digest{}); err == nil || !strings.Contains(err.Error(), "no snapshot with other files") {
		t.Errorf("nothing is left to go back to: %v", err)
	}
	if n := len(s.upstream.Requests()); n != 0 {
		t.Errorf("upstream was asked %d times", n)
	}
}

// By its id, any kept snapshot can be gone to, forward as well; not the content that is current, and none that is not kept.
func TestRollbackTo(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, versions := s.days(tree, 3)
	s.rollback(ids[0])
	s.rollback(ids[1])
	if diff := cmp.Diff(versions[1], s.versions()); diff != "" {
		t.Errorf("versions (-then +now):\n%s", diff)
	}
	for _, to := range []cache.Digest{ids[1], current(t, s.store, stable)} {
		if _, err := s.m.Rollback(t.Context(), stable, to); !errors.Is(err, mirror.ErrShown) {
			t.Errorf("back to what is current: %v", err)
		}
	}
	if _, err := s.m.Rollback(t.Context(), stable, cache.Sum(nil)); !errors.Is(err, cache.ErrNoSnapshot) {
		t.Errorf("back to nothing: %v", err)
	}
	if _, err := s.m.Rollback(t.Context(), "absent", cache.Digest{}); !errors.Is(err, cache.ErrNoSnapshot) {
		t.Errorf("of no stream: %v", err)
	}
}

// What vouches for the content comes back with it, byte for byte, a version that upstream has dropped included.
func TestRollbackEvidence(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.mustSync()
	tree.Drop("com.ubuntu.maas.stable:centos-bases:8:amd64")
	s.upstream.Publish(tree)
	s.mustSync()
	vanished, versions := current(t, s.store, stable), s.versions()
	tree.AddDay()
	s.upstream.Publish(tree)
	s.mustSync()
	s.rollback(vanished)
	if diff := cmp.Diff(versions, s.versions()); diff != "" {
		t.Errorf("versions (-then +now):\n%s", diff)
	}
	of := func(id cache.Digest) []cache.Entry {
		man, err := s.store.Manifest(stable, id)
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(man.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindSite })
	}
	if diff := cmp.Diff(of(vanished), of(current(t, s.store, stable))); diff != "" {
		t.Errorf("entries (-then +now):\n%s", diff)
	}
}

// A stream that advertises all of upstream's shows upstream's documents as they were, and is not refreshed while it is held.
func TestRollbackAll(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newAllSite(t, tree, "release=noble")
	first := tree.Clone()
	s.mustSyncPlain()
	tree.AddDay()
	s.upstream.Publish(tree)
	s.mustSyncPlain()
	s.rollback(cache.Digest{})
	s.verbatim(first)
	if err := s.m.Refresh(t.Context(), stable); err == nil {
		t.Error("it was refreshed")
	}
	s.verbatim(first)
	if err := s.m.Resume(stable); err != nil {
		t.Fatal(err)
	}
	s.mustSyncPlain()
	s.verbatim(tree)
}

// No sync undoes a rollback, of this process or the next, and each one says so. Once syncs may go on the next one publishes what
// upstream has, though that is nothing new.
func TestRollbackHolds(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	_, versions := s.days(tree, 2)
	rolled := s.rollback(cache.Digest{})
	s.upstream.Reset()
	for _, m := range []*mirror.Mirror{s.m, newMirror(t, s.store)} {
		res, err := m.Sync(t.Context(), stable, mirror.SyncOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !res.Held || res.Changed || res.Snapshot != rolled.Snapshot || res.Items != rolled.Items ||
			len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "`oxbow snapshot rollback stable --resume`") {
			t.Errorf("a sync while it is held: %+v", res)
		}
	}
	if n := len(s.upstream.Requests()); n != 0 {
		t.Errorf("upstream was asked %d times", n)
	}
	if st, err := mirror.ReadStatus(s.store.Files(), stable); err != nil || st.Held == nil || st.Held.To != rolled.To {
		t.Errorf("status %+v, %v", st, err)
	}
	plan, err := s.m.Plan(t.Context(), stable, mirror.SyncOptions{})
	if err != nil || plan.NothingNew || len(plan.Warnings) != 1 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if err := s.m.Resume(stable); err != nil {
		t.Fatal(err)
	}
	if err := s.m.Resume(stable); !errors.Is(err, mirror.ErrNotHeld) {
		t.Errorf("resumed twice: %v", err)
	}
	if res := s.mustSync(); !res.Changed || res.Held || res.Fetched.Files != 0 {
		t.Errorf("the sync after: %+v", res)
	}
	if diff := cmp.Diff(versions[1], s.versions()); diff != "" {
		t.Errorf("versions (-before +after):\n%s", diff)
	}
}

// A sync that is under way is interrupted, and not waited for.
func TestRollbackInterrupts(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	_, versions := s.days(tree, 2)
	tree.AddDay()
	s.upstream.Publish(tree)
	hangs, release := make(chan struct{}, 100), make(chan struct{})
	defer close(release)
	s.upstream.SetFault(func(r *http.Request) streamstest.Fault {
		if strings.Contains(r.URL.Path, "20250720") {
			hangs <- struct{}{}
			<-release
		}
		return streamstest.Fault{}
	})
	synced := make(chan error, 1)
	go func() {
		_, err := s.sync()
		synced <- err
	}()
	<-hangs
	s.rollback(cache.Digest{})
	if err := <-synced; !errors.Is(err, mirror.ErrRolledBack) {
		t.Errorf("the sync: %v", err)
	}
	if diff := cmp.Diff(versions[0], s.versions()); diff != "" {
		t.Errorf("versions (-then +now):\n%s", diff)
	}
	if st, err := mirror.ReadStatus(s.store.Files(), stable); err != nil || st.Last.Outcome != mirror.OutcomeDone {
		t.Errorf("an interrupted sync counts: %+v, %v", st.Last, err)
	}
}

// A rollback that fails holds nothing.
func TestRollbackFails(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, _ := s.days(tree, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.m.Rollback(ctx, stable, cache.Digest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := current(t, s.store, stable); got != ids[1] {
		t.Errorf("current is %v", got)
	}
	if st, err := mirror.ReadStatus(s.store.Files(), stable); err != nil || st.Held != nil {
		t.Errorf("held %+v, %v", st.Held, err)
	}
}
