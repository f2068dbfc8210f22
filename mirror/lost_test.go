package mirror_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"oxbow/cache"
	"oxbow/streams/streamstest"
)

// A sync that counted on a file which turns out to be damaged meanwhile plans again and fetches it, once: where the store goes on to
// lose what comes, it fails, and what was published stays.
func TestLostWhileSyncing(t *testing.T) {
	for _, test := range []struct {
		summary string
		times   int
		fails   bool
	}{
		{"once", 1, false},
		{"again and again", 100, true},
	} {
		t.Run(test.summary, func(t *testing.T) {
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			s.mustSync()
			before := current(t, s.store, stable)
			kept := s.entry(before, cache.KindItem, "noble/amd64/20250718/ga-24.04") // the newest, which stays
			tree.AddDay()
			tree.Trim(2)
			s.upstream.Publish(tree)
			var mu sync.Mutex
			left := test.times
			s.logTo(afterStep("durable", func() {
				mu.Lock()
				defer mu.Unlock()
				if left--; left < 0 || !s.store.Has(kept.Digest) {
					left++
					return
				}
				s.harm(kept)
				if err := s.store.Doubt(kept.Digest); err != nil {
					t.Error(err)
				}
			}))
			s.upstream.Reset()
			res, err := s.sync()
			mu.Lock()
			left = 0
			mu.Unlock()
			if test.fails {
				if !errors.Is(err, cache.ErrMiss) || !strings.Contains(err.Error(), kept.Path) {
					t.Errorf("error %v", err)
				}
				if got := current(t, s.store, stable); got != before {
					t.Errorf("current is %v", got)
				}
				s.mustSync()
				return
			}
			if err != nil || len(res.LeftOut) > 0 || !res.Changed {
				t.Fatalf("%+v, %v", res, err)
			}
			asked := 0
			for _, r := range s.upstream.Requests() {
				if strings.HasSuffix(r.Path, kept.Path) {
					asked++
				}
			}
			if asked != 1 {
				t.Errorf("the file was asked for %d times: %v", asked, s.upstream.Requests())
			}
			s.whole()
		})
	}
}
