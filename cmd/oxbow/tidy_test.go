package main

import (
	"context"
	"fmt"
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

// An idle daemon does nothing by itself.
type idle struct {
	*daemon
	log     *lockedBuffer
	metrics http.Handler
}

// idleDaemon returns a daemon on the store of a side. It is closed when the test ends.
func idleDaemon(t *testing.T, s *side, configured *site.Site) *idle {
	t.Helper()
	store, err := cache.Open(s.dir+"/store", &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	text := new(lockedBuffer)
	o := newOwner(store, slog.New(slog.NewTextHandler(text, nil)), false)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(o, ln, front{metrics: proxy.NewMetrics("v1")}, configured)
	t.Cleanup(func() {
		if report, err := store.Check(context.Background(), cache.CheckOptions{Deep: true}); err != nil || !report.OK() {
			t.Errorf("check: %v, %v", report, err)
		}
		d.close()
		o.close()
	})
	return &idle{d, text, proxy.New(&proxy.Options{Store: store, Streams: func() []proxy.Stream { return nil }, Metrics: d.front.metrics})}
}

// scraped returns what the metrics of the daemon say.
func (d *idle) scraped() string {
	w := httptest.NewRecorder()
	d.metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/-/metrics", nil))
	return w.Body.String()
}

// A server sweeps by itself what its streams do not keep, and counts it.
func TestServerSweeps(t *testing.T) {
	s := newSide(t)
	s.must("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg")
	s.day()
	s.must("mirror", "sync")
	d := idleDaemon(t, s, &site.Site{})
	o, store := d.o, d.o.store
	st, err := o.mirror.Stream("stable")
	if err != nil {
		t.Fatal(err)
	}
	st.Keep = mirror.Keep{Last: 1}
	if err := o.mirror.Define(st); err != nil {
		t.Fatal(err)
	}
	d.sweep(t.Context())
	if kept, err := store.Snapshots("stable"); err != nil || len(kept) != 1 {
		t.Errorf("%d snapshots are kept (%v)", len(kept), err)
	}
	if text := d.scraped(); strings.Contains(text, "oxbow_swept_items_total 0\n") || !strings.Contains(text, "oxbow_swept_items_total ") {
		t.Error("nothing is counted as swept")
	}
}

// A server reads all of its store in the time that the configuration says, a part at a time, and repairs what it finds; what is
// left shows. Zero is never.
func TestServerScrubs(t *testing.T) {
	s := newSide(t)
	s.must("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg")
	configured := &site.Site{Store: site.Store{Scrub: 3 * tidyEvery}}
	d := idleDaemon(t, s, configured)
	s.damage()
	for range 3 {
		d.scrub(t.Context())
	}
	if text := d.log.String(); strings.Count(text, "msg=scrubbed") != 3 || strings.Count(text, "msg=repaired") != 1 || strings.Count(text, "integrity") != 1 {
		t.Errorf("the log of three scrubs:\n%s", text)
	}
	st, err := d.o.store.Files().Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, want := d.scraped(), fmt.Sprintf("oxbow_scrubbed_bytes_total %d\n", st.Bytes); !strings.Contains(text, want) {
		t.Errorf("metrics lack %q, which is all", want)
	}
	s.damage()
	stream, err := d.o.mirror.Stream("stable")
	if err != nil {
		t.Fatal(err)
	}
	stream.Offline = true
	if err := d.o.mirror.Define(stream); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.scrub(t.Context())
	}
	notes := fmt.Sprint(d.notes())
	if !strings.Contains(notes, "the store has 1 fault, as of ") || !strings.Contains(d.scraped(), "oxbow_store_faults 1\n") || !strings.Contains(d.log.String(), `msg="not repaired"`) {
		t.Errorf("notes %s", notes)
	}
	stream.Offline = false
	if err := d.o.mirror.Define(stream); err != nil {
		t.Fatal(err)
	}
	d.scrub(t.Context()) // what is left is found by each
	if len(d.notes()) > 0 {
		t.Errorf("notes %s", d.notes())
	}
	before := d.log.String()
	d.site.Store(&site.Site{Store: site.Store{Scrub: -1}})
	d.scrub(t.Context())
	if d.log.String() != before {
		t.Error("it scrubs where it should not")
	}
}
