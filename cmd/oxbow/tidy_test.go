package main

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/proxy"
)

// A server sweeps by itself what its streams do not keep, and counts it.
func TestServerSweeps(t *testing.T) {
	s := newSide(t)
	s.must("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg")
	s.day()
	s.must("mirror", "sync")
	store, err := cache.Open(s.dir+"/store", &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := newOwner(store, log, false)
	defer o.close()
	st, err := o.mirror.Stream("stable")
	if err != nil {
		t.Fatal(err)
	}
	st.Keep = mirror.Keep{Last: 1}
	if err := o.mirror.Define(st); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(o, ln, front{metrics: proxy.NewMetrics("v1")}, &site.Site{})
	defer d.close()
	d.sweep(t.Context())
	if kept, err := store.Snapshots("stable"); err != nil || len(kept) != 1 {
		t.Errorf("%d snapshots are kept (%v)", len(kept), err)
	}
	srv := proxy.New(&proxy.Options{Store: store, Streams: func() []proxy.Stream { return nil }, Metrics: d.front.metrics})
	scraped := httptest.NewRecorder()
	srv.ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/-/metrics", nil))
	if text := scraped.Body.String(); strings.Contains(text, "oxbow_swept_items_total 0\n") || !strings.Contains(text, "oxbow_swept_items_total ") {
		t.Error("nothing is counted as swept")
	}
	if report, err := store.Check(t.Context(), cache.CheckOptions{Deep: true}); err != nil || !report.OK() {
		t.Errorf("check: %v, %v", report, err)
	}
}
