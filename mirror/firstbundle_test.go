package mirror_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// The first bundle of a stream that was synced here is not older, by upstream's own date, than what was accepted then.
func TestFirstBundleIsNotOlder(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key := keyOf(t, near.m)
	old := near.export(mirror.ExportOptions{})
	tree.AddDay()
	near.upstream.Publish(tree)
	here := newSite(t, tree)
	here.mustSync()
	here.redefine(func(st *mirror.Stream) { st.Offline = true })
	far := &farSite{t, here.store, here.m}
	was := current(t, here.store, stable)
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}
	if _, err := far.take(o, old...); !errors.Is(err, mirror.ErrOlder) || !strings.Contains(err.Error(), "upstream's index in it is of ") || !strings.Contains(err.Error(), "--allow-older accepts it") {
		t.Errorf("of an older one: %v", err)
	}
	if now := current(t, here.store, stable); now != was || len(far.notes()) > 0 {
		t.Errorf("current is %v, noted %q", now, far.notes())
	}
	near.mustSync()
	far.mustTake(o, near.export(mirror.ExportOptions{})...)
	far.same(near)

	// And so is one that comes after it was synced here once more.
	tree.AddDay()
	near.upstream.Publish(tree)
	near.m = mirror.New(mirror.Options{Store: near.store, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	near.mustSync()
	second := near.export(mirror.ExportOptions{})
	tree.AddDay()
	here.upstream.Publish(tree)
	here.redefine(func(st *mirror.Stream) { st.Offline = false })
	if _, err := here.sync(); err != nil {
		t.Fatal(err)
	}
	hereKey := keyOf(t, here.m)
	further := newFarSite(t)
	further.mustTake(mirror.ImportOptions{TrustFingerprint: hereKey.Fingerprint()}, here.export(mirror.ExportOptions{})...)
	further.same(here)
	here.redefine(func(st *mirror.Stream) { st.Offline = true })
	if _, err := far.take(o, second...); !errors.Is(err, mirror.ErrOlder) || !strings.Contains(err.Error(), "upstream's index in it is of ") {
		t.Errorf("after another sync: %v", err)
	}
	o.AllowOlder = true
	far.mustTake(o, second...)
	far.same(near)

	here = newSite(t, tree)
	here.mustSync()
	here.redefine(func(st *mirror.Stream) { st.Offline = true })
	far = &farSite{t, here.store, here.m}
	far.mustTake(o, old...)
}

// A stream of which the first bundle failed as it was to be published is synced as any, or comes by another site's bundle.
func TestFirstBundleNotPublished(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key := keyOf(t, near.m)
	volumes := near.export(mirror.ExportOptions{})
	failed := func() *farSite {
		dir := filepath.Join(t.TempDir(), "far")
		far := &farSite{t: t, store: newStore(t, dir, -1)}
		far.m = mirror.New(mirror.Options{Store: far.store})
		t.Cleanup(func() { endStore(t, far.store) })
		far.takeInVain(dir, mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}, volumes...)
		if far.m.ComesByBundles(stable) {
			t.Error("it is called one that comes by bundles")
		}
		return far
	}
	other := newSite(t, tree)
	other.mustSync()
	otherKey := keyOf(t, other.m)
	far := failed()
	if _, err := far.m.TrustKeys(otherKey.Public()); err != nil {
		t.Fatal(err)
	}
	far.mustTake(mirror.ImportOptions{}, other.export(mirror.ExportOptions{})...)
	far.same(other)
	if ring, err := mirror.Keyring(far.store.Files()); err != nil || !bytes.Equal(ring, otherKey.Public()) {
		t.Errorf("the keyring has %d bytes, %v", len(ring), err)
	}

	for _, again := range []bool{false, true} { // by the same process, or after a restart
		far := failed()
		if again {
			far.m = newMirror(t, far.store)
		}
		s := &site{t: t, upstream: near.upstream, url: near.url, store: far.store, m: newMirror(t, far.store)}
		s.define(near.url, tree.Keyring())
		s.mustSync()
		own := keyOf(t, s.m)
		third := newFarSite(t)
		third.mustTake(mirror.ImportOptions{TrustFingerprint: own.Fingerprint()}, s.export(mirror.ExportOptions{})...)
		if ring, err := mirror.Keyring(third.store.Files()); err != nil || !bytes.Equal(ring, own.Public()) {
			t.Errorf("the keyring of a third has %d bytes, %v", len(ring), err)
		}
	}
}
