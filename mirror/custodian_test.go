package mirror_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// Volumes are made once, and few stay in memory.
func TestCustodian(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	first := current(t, near.store, stable)
	c := mirror.NewCustodian(near.store.Files(), "oxbow test")
	volume := func(id cache.Digest) *mirror.CustodyVolume {
		v, err := c.Volume(t.Context(), stable, id)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	var g sync.WaitGroup
	var mu sync.Mutex
	made := map[*mirror.CustodyVolume]bool{}
	for range 20 {
		g.Go(func() {
			v, err := c.Volume(t.Context(), stable, first)
			mu.Lock()
			defer mu.Unlock()
			if made[v] = true; err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if len(made) != 1 {
		t.Errorf("it was made %d times", len(made))
	}
	was := volume(first)
	if v := volume(first); v != was || v.Digest != cache.Sum(v.Bytes) {
		t.Error("it was made once more")
	}
	again, err := mirror.NewCustodian(near.store.Files(), "oxbow test").Volume(t.Context(), stable, first)
	if err != nil || !bytes.Equal(again.Bytes, was.Bytes) {
		t.Errorf("another time it has other bytes: %v", err)
	}
	c.SetLimit(int64(len(was.Bytes)) + 100)
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	second := volume(current(t, near.store, stable))
	if volume(current(t, near.store, stable)) != second || volume(first) == was {
		t.Error("two stay in memory where one has room")
	}
	// Another key signs anew.
	was = volume(first)
	if _, err := near.m.GenerateKey(streams.Ed25519, true); err != nil {
		t.Fatal(err)
	}
	if v := volume(first); v.Digest == was.Digest {
		t.Error("a volume of the old key is handed out")
	}
	all := newAllSite(t, tree)
	all.mustSyncPlain()
	keyOf(t, all.m) // it is made
	if _, err := mirror.NewCustodian(all.store.Files(), "").Volume(t.Context(), stable, current(t, all.store, stable)); !errors.Is(err, mirror.ErrNoCustody) {
		t.Errorf("of upstream's own documents: %v", err)
	}
	if _, err := c.Volume(t.Context(), stable, cache.Sum(nil)); !errors.Is(err, cache.ErrNoSnapshot) {
		t.Errorf("of a snapshot that is not kept: %v", err)
	}
}
