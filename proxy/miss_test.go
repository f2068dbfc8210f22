package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// Upstream's documents that could not be brought up to date say for how long.
func TestOverdueMetadata(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindUpstream, "streams/v1/index.json", "{}"))
	var state mirror.Standing
	m := NewMetrics("v1")
	upstream := stable
	upstream.View = cache.Upstream
	addr := serve(t, s.server(Options{Metrics: m, Syncs: func(string) mirror.Standing { return state }}, upstream))
	ask := func() string {
		resp, _ := get(t, addr, "/ephemeral-v3/stable/streams/v1/index.json")
		return resp.Header.Get("Cache-Status")
	}
	state = mirror.Standing{Good: time.Now().Add(-time.Hour)}
	if got := ask(); got != hitCurrent {
		t.Errorf("after a good sync: %q", got)
	}
	state.Failures = 2
	if got := ask(); got != hitCurrent+"; ttl=-3600" && got != hitCurrent+"; ttl=-3601" {
		t.Errorf("after two bad ones: %q", got)
	}
	samples, _ := scrape(t, addr)
	if v := samples[`oxbow_metadata_stale_seconds{stream="stable"}`]; !strings.HasPrefix(v, "360") {
		t.Errorf("stale for %s seconds", v)
	}
}

// A path that no snapshot names is looked for once more when the metadata was brought up
// to date, and not when that cannot be.
func TestUnknownPathRefreshes(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindUpstream, "old", "old"))
	upstream := stable
	upstream.View = cache.Upstream
	var refreshes atomic.Int64
	addr := serve(t, s.server(Options{Refresh: func(_ context.Context, stream string) error {
		if refreshes.Add(1) > 1 {
			return errors.New("a minute is not over")
		}
		s.publish("stable", s.put(cache.KindUpstream, "old", "old"), s.put(cache.KindUpstream, "new", "new"))
		return nil
	}}, upstream))
	for path, want := range map[string]int{"old": http.StatusOK, "new": http.StatusOK} {
		if resp, _ := get(t, addr, "/ephemeral-v3/stable/"+path); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if resp, _ := get(t, addr, "/ephemeral-v3/stable/never"); resp.StatusCode != http.StatusNotFound || refreshes.Load() != 2 {
		t.Errorf("a path that is not there: %s, %d refreshes", resp.Status, refreshes.Load())
	}
}
