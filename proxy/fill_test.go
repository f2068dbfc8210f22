package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
)

// Many clients of one cold file cost upstream the file once, and each gets it whole;
// afterwards it is here.
func TestFillOnce(t *testing.T) {
	o := newOrigin(t, 8<<20)
	m := NewMetrics("v1")
	s, addr := fillSite(t, o, Options{Metrics: m})
	var all sync.WaitGroup
	var joined atomic.Int64
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 64 {
		all.Go(func() {
			resp, err := client.Get("http://" + addr + coldFile)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			h := sha256.New()
			n, err := io.Copy(h, resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || cache.Digest(h.Sum(nil)) != o.entry("").Digest {
				t.Errorf("%v, %d bytes", err, n)
				return
			}
			if resp.Header.Get("Cache-Status") == collapsed {
				joined.Add(1)
			}
		})
	}
	all.Wait()
	if got := o.sent.Load(); got != int64(len(o.content)) {
		t.Errorf("upstream sent %d bytes, the file has %d", got, len(o.content))
	}
	awaitLines(t, s.log, "msg=filled", 1)
	resp, body, err := fetchCold(addr)
	if err != nil || !bytes.Equal(body, o.content) || resp.Header.Get("Cache-Status") != hitCurrent || resp.ContentLength != int64(len(body)) {
		t.Errorf("then: %v, %v", err, resp.Header)
	}
	if !s.store.Has(o.entry("").Digest) {
		t.Error("the file is not in the store")
	}
	samples, _ := scrape(t, addr)
	if joined.Load() == 0 || samples[`oxbow_fills_total{outcome="done",stream="stable"}`] != "1" || samples[`oxbow_fill_bytes_total{stream="stable"}`] != "8.388608e+06" || samples["oxbow_fills_in_progress"] != "0" {
		t.Errorf("%d joined; %v", joined.Load(), samples)
	}
}

// Requests that need no bytes begin no fill, and ranges of a cold file are those of a
// file that is here.
func TestFillRequests(t *testing.T) {
	o := newOrigin(t, 3<<20)
	_, addr := fillSite(t, o, Options{})
	etag := `"` + o.entry("").Digest.String() + `"`
	resp, err := http.Head("http://" + addr + coldFile)
	if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != 3<<20 || resp.Header.Get("ETag") != etag {
		t.Errorf("HEAD: %v, %v", err, resp)
	}
	for _, tt := range []struct {
		header []string
		status int
	}{
		{[]string{"If-None-Match", etag}, http.StatusNotModified},
		{[]string{"Range", "bytes=9999999-"}, http.StatusRequestedRangeNotSatisfiable},
	} {
		if resp, _, err := fetchCold(addr, tt.header...); err != nil || resp.StatusCode != tt.status {
			t.Errorf("%q: %v, %v", tt.header, err, resp)
		}
	}
	if n := o.asked.Load(); n != 0 {
		t.Fatalf("upstream was asked %d times for nothing", n)
	}
	for _, tt := range []struct {
		ranges   string
		from, to int
	}{
		{"bytes=100-199", 100, 200},
		{"bytes=-1000", 3<<20 - 1000, 3 << 20},
		{"bytes=1000000-", 1000000, 3 << 20},
	} {
		resp, body, err := fetchCold(addr, "Range", tt.ranges)
		if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, o.content[tt.from:tt.to]) {
			t.Errorf("%s: %v, %v, %d bytes", tt.ranges, err, resp, len(body))
		}
	}
}

// What upstream sends and its metadata does not promise is never completed by anyone,
// whole or in part, is not stored, and is told of; a good second source heals it.
func TestFillCorrupt(t *testing.T) {
	o := newOrigin(t, 1<<20)
	o.fault = func(w http.ResponseWriter, _ *http.Request, _ int64) http.ResponseWriter {
		return &flipping{ResponseWriter: w}
	}
	m := NewMetrics("v1")
	s, addr := fillSite(t, o, Options{Metrics: m})
	for _, header := range [][]string{nil, {"Range", "bytes=0-199999"}, {"Range", "bytes=500000-"}, {"Range", "bytes=0-9,20-29"}, {"User-Agent", "maas/3.8.0"}} {
		resp, body, err := fetchCold(addr, header...)
		if err == nil && resp.StatusCode < 500 {
			t.Errorf("%q: completed with status %d, %d bytes", header, resp.StatusCode, len(body))
		}
	}
	if s.store.Has(o.entry("").Digest) {
		t.Error("it is in the store")
	}
	samples, _ := scrape(t, addr)
	if samples[`oxbow_integrity_events_total{stream="stable"}`] == "0" || len(s.log.lines("integrity: upstream delivers something else")) == 0 {
		t.Errorf("nobody was told: %s", s.log)
	}
	good := &origin{content: o.content}
	server := httptest.NewServer(good)
	defer server.Close()
	addr = serve(t, s.server(Options{Pull: puller(t, o.url, server.URL)}, stable))
	var whole []byte
	for range 3 { // who was sent wrong bytes is cut, and comes again
		if _, body, err := fetchCold(addr); err == nil {
			whole = body
			break
		}
	}
	if !bytes.Equal(whole, o.content) {
		t.Errorf("the second source does not heal it")
	}
}

// A reader sees no more than a pause where upstream breaks off and comes back.
func TestFillGoesOn(t *testing.T) {
	o := newOrigin(t, 4<<20)
	o.fault = func(w http.ResponseWriter, _ *http.Request, n int64) http.ResponseWriter {
		if n <= 2 {
			return &cutAfter{w, len(o.content) * 3 / 10}
		}
		return w
	}
	_, addr := fillSite(t, o, Options{})
	resp, body, err := fetchCold(addr)
	if err != nil || !bytes.Equal(body, o.content) {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	if twice := o.sent.Load() - int64(len(o.content)); twice > 1<<20 {
		t.Errorf("%d bytes were asked for twice", twice)
	}
}

// Upstream that is not there: clients for which a status is final see a broken
// connection, the others a status and when to come back; what is here is served.
func TestFillUpstreamDown(t *testing.T) {
	o := newOrigin(t, 1000)
	down := httptest.NewServer(nil)
	down.Close()
	_, addr := fillSite(t, o, Options{Pull: puller(t, down.URL)})
	resp, body, err := fetchCold(addr)
	if err != nil || resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Retry-After") != "30" || resp.Header.Get("ETag") != "" {
		t.Errorf("%v, %v, %s", err, resp, body)
	}
	for _, agent := range []string{"maas/3.8.0", "python-simplestreams/0.1"} {
		if resp, _, err := fetchCold(addr, "User-Agent", agent); err == nil {
			t.Errorf("%s gets %v", agent, resp)
		}
	}
	if resp, _ := get(t, addr, "/ephemeral-v3/stable/streams/v1/index.json"); resp.StatusCode != http.StatusOK {
		t.Errorf("what is here: %v", resp)
	}
	offline := func(context.Context, string, string, *cache.Ingest, upstream.FetchOptions) (cache.Blob, error) {
		return cache.Blob{}, fmt.Errorf("cannot pull: %w", mirror.ErrOffline)
	}
	_, addr = fillSite(t, o, Options{Pull: offline})
	for _, agent := range []string{"curl/8", "maas/3.8.0"} {
		resp, body, err := fetchCold(addr, "User-Agent", agent)
		if err != nil || resp.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "offline") {
			t.Errorf("offline, %s: %v, %v, %s", agent, err, resp, body)
		}
	}
}

// A fill goes on when everybody who asked for it has left.
func TestFillWithoutReaders(t *testing.T) {
	o := newOrigin(t, 1<<20)
	gate := make(chan struct{})
	o.fault = func(w http.ResponseWriter, _ *http.Request, _ int64) http.ResponseWriter {
		<-gate
		return w
	}
	s, addr := fillSite(t, o, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+coldFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := http.DefaultClient.Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("the reader did not leave: %v", err)
	}
	close(gate)
	s.awaitHere(o)
}

// Bytes are passed on as they come, but for the last 64 KiB of a response, which wait for
// the proof of the whole content.
func TestFillHoldsBack(t *testing.T) {
	o := newOrigin(t, 1<<20)
	gate := make(chan struct{})
	o.fault = func(w http.ResponseWriter, r *http.Request, _ int64) http.ResponseWriter {
		w.Header().Set("Content-Length", fmt.Sprint(len(o.content)))
		w.Write(o.content[:len(o.content)-1])
		w.(http.Flusher).Flush()
		<-gate
		w.Write(o.content[len(o.content)-1:])
		return nil
	}
	_, addr := fillSite(t, o, Options{})
	for ranges, want := range map[string]int{"": len(o.content), "bytes=0-199999": 200000, "bytes=100-": len(o.content) - 100} {
		req, err := http.NewRequest(http.MethodGet, "http://"+addr+coldFile, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranges != "" {
			req.Header.Set("Range", ranges)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf := make([]byte, want-holdBack)
		if _, err := io.ReadFull(resp.Body, buf); err != nil {
			t.Errorf("%s: %v", ranges, err)
		}
		more := make(chan int, 1)
		go func() {
			n, _ := io.ReadFull(resp.Body, make([]byte, holdBack))
			more <- n
		}()
		select {
		case n := <-more:
			t.Errorf("%s: %d bytes came before the proof", ranges, n)
		case <-time.After(50 * time.Millisecond):
		}
		defer func() {
			if n := <-more; n != holdBack {
				t.Errorf("%s: %d bytes came after the proof, want %d", ranges, n, holdBack)
			}
		}()
	}
	close(gate)
}

// A server that is started again goes on where a fill was broken off.
func TestFillResumes(t *testing.T) {
	o := newOrigin(t, 8<<20)
	stop := make(chan struct{})
	o.fault = func(w http.ResponseWriter, r *http.Request, n int64) http.ResponseWriter {
		if n > 1 {
			return w
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(o.content)))
		(&counting{w, &o.sent}).Write(o.content[:len(o.content)/2])
		w.(http.Flusher).Flush()
		<-stop
		return nil
	}
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindSite, "streams/v1/index.json", "{}"), o.entry("noble/squashfs"))
	first := s.server(Options{Pull: puller(t, o.url)}, stable)
	server := httptest.NewServer(first)
	resp, err := http.Get(server.URL + coldFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, len(o.content)/4)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	first.fills.close()
	server.Close()
	close(stop)
	addr := serve(t, s.server(Options{Pull: puller(t, o.url)}, stable))
	_, body, err := fetchCold(addr)
	if err != nil || !bytes.Equal(body, o.content) {
		t.Errorf("%v, %d bytes", err, len(body))
	}
	if twice := o.sent.Load() - int64(len(o.content)); twice > 2<<20 {
		t.Errorf("%d bytes were asked for twice", twice)
	}
}

// Who was sent bytes that turned out to be wrong is cut, even if the right ones are here
// before it looks again; who was sent none gets these.
func TestFillAnewAndProven(t *testing.T) {
	f := &fill{entry: cache.Entry{Size: 100}, anew: 1, proven: true, changed: make(chan struct{}), waiting: map[*follower]int64{}}
	if n, err := f.ahead(t.Context(), nil, 40, 0); !errors.Is(err, errAnew) {
		t.Errorf("a reader of the wrong bytes gets %d more (%v)", n, err)
	}
	if n, err := f.ahead(t.Context(), nil, 40, 1); n != 60 || err != nil {
		t.Errorf("a reader of the right bytes gets %d more (%v)", n, err)
	}
}

// A file of any size is had from its first request on, small ones, which are proven
// before any of their bytes was sent, among them.
func TestFillSmall(t *testing.T) {
	for size := range 12 {
		o := newOrigin(t, size*size*1500)
		_, addr := fillSite(t, o, Options{})
		resp, body, err := fetchCold(addr)
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, o.content) {
			t.Errorf("%d bytes: %v, %v", len(o.content), resp, err)
		}
	}
}
