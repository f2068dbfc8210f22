package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// An origin is an upstream with one file, at every path.
type origin struct {
	content []byte
	url     string
	sent    atomic.Int64
	asked   atomic.Int64

	// fault, if set, is told of the n-th request, from 1, and may return a writer that
	// misbehaves, or nil where it has answered.
	fault func(w http.ResponseWriter, r *http.Request, n int64) http.ResponseWriter
}

func newOrigin(t testing.TB, size int) *origin {
	o := &origin{content: make([]byte, size)}
	random := rand.NewChaCha8([32]byte{byte(size)})
	random.Read(o.content)
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := o.asked.Add(1)
	if o.fault != nil {
		if w = o.fault(w, r, n); w == nil {
			return
		}
	}
	http.ServeContent(&counting{w, &o.sent}, r, "", time.Time{}, bytes.NewReader(o.content))
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// cutAfter drops the connection after n bytes.
type cutAfter struct {
	http.ResponseWriter
	n int
}

func (c *cutAfter) Write(p []byte) (int, error) {
	if len(p) > c.n {
		c.ResponseWriter.Write(p[:c.n])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.n -= len(p)
	return c.ResponseWriter.Write(p)
}

// flipping inverts the first byte that it writes.
type flipping struct {
	http.ResponseWriter
	done bool
}

func (f *flipping) Write(p []byte) (int, error) {
	if !f.done {
		f.done = true
		p = bytes.Clone(p)
		p[0] ^= 0xff
	}
	return f.ResponseWriter.Write(p)
}

// entry is that of a snapshot that knows the file.
func (o *origin) entry(path string) cache.Entry {
	return cache.Entry{Kind: cache.KindKnown, Path: path, Digest: sha256.Sum256(o.content), Size: int64(len(o.content))}
}

// puller pulls from these upstreams, in order, with short waits between tries.
func puller(t testing.TB, urls ...string) Puller {
	client := mirror.NewClient(&mirror.ClientOptions{Backoff: mirror.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond}})
	t.Cleanup(client.Close)
	return func(ctx context.Context, stream, path string, in *cache.Ingest, o mirror.FetchOptions) (cache.Blob, error) {
		sources := make([]string, len(urls))
		for i, u := range urls {
			sources[i] = u + "/" + path
		}
		return client.Fetch(ctx, sources, in, in.Size(), o)
	}
}

const coldFile = "/ephemeral-v3/stable/noble/squashfs"

// fillSite is a site whose snapshot knows the origin's file.
func fillSite(t *testing.T, o *origin, more Options) (*site, string) {
	t.Helper()
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindSite, "streams/v1/index.json", "{}"), o.entry("noble/squashfs"))
	if more.Pull == nil {
		more.Pull = puller(t, o.url)
	}
	return s, serve(t, s.server(more, stable))
}

// fetchCold requests the file and returns the body as far as it came.
func fetchCold(addr string, header ...string) (resp *http.Response, body []byte, err error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+coldFile, nil)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return do(req)
}

// do sends a request on a connection of its own, and returns the body as far as it came.
func do(req *http.Request) (resp *http.Response, body []byte, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err = client.Do(req); err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp, body, err
}

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
	offline := func(context.Context, string, string, *cache.Ingest, mirror.FetchOptions) (cache.Blob, error) {
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
	for end := time.Now().Add(10 * time.Second); !s.store.Has(o.entry("").Digest); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the fill ended with its reader")
		}
	}
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
