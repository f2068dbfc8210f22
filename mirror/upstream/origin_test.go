package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
)

// An origin is an upstream that holds files and counts what it is asked.
type origin struct {
	files map[string][]byte // by URL path
	// fault, if not nil, may answer the n-th request, from 1, in its own way:
	// with the writer it returns, or, if that is nil, it has answered already.
	fault func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter

	mu       sync.Mutex
	idle     *sync.Cond // on mu, when busy falls; nil before the first request
	requests []string   // "PATH RANGE IF-RANGE", parts that are set
	sent     int64      // bytes of bodies
	busy     int
	mostBusy int
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	if o.idle == nil {
		o.idle = sync.NewCond(&o.mu)
	}
	line := r.URL.Path
	for _, key := range []string{"Range", "If-Range"} {
		if v := r.Header.Get(key); v != "" {
			line += " " + v
		}
	}
	o.requests = append(o.requests, line)
	n := len(o.requests)
	o.busy++
	o.mostBusy = max(o.mostBusy, o.busy)
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.busy--
		o.idle.Broadcast()
		o.mu.Unlock()
	}()
	w = &counter{w, o}
	if o.fault != nil {
		if w = o.fault(w, r, n); w == nil {
			return
		}
	}
	data, ok := o.files[r.URL.Path]
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	if w.Header().Get("ETag") == "" {
		w.Header().Set("ETag", etagOf(data))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func etagOf(data []byte) string {
	return fmt.Sprintf(`"%d-%.8x"`, len(data), sha256.Sum256(data[:min(len(data), 64)]))
}

// asked returns the requests so far.
func (o *origin) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.requests)
}

// totals waits until nothing is under way, and returns the bytes sent and how
// many requests there were at once.
func (o *origin) totals() (sent int64, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.busy > 0 {
		o.idle.Wait()
	}
	return o.sent, o.mostBusy
}

// counter counts the bytes of bodies.
type counter struct {
	http.ResponseWriter
	o *origin
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.o.mu.Lock()
	c.o.sent += int64(n)
	c.o.mu.Unlock()
	return n, err
}

func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// cutter breaks the connection after n bytes of a body.
type cutter struct {
	http.ResponseWriter
	n int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.n)])
	if c.n -= n; c.n == 0 {
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// flipper inverts one byte of a body.
type flipper struct {
	http.ResponseWriter
	at int
}

func (f *flipper) Write(p []byte) (int, error) {
	if f.at >= 0 && f.at < len(p) {
		p = slices.Clone(p)
		p[f.at] ^= 0xff
	}
	f.at -= len(p)
	return f.ResponseWriter.Write(p)
}

// start serves o on loopback and returns its URL.
func (o *origin) start(t *testing.T) string {
	srv := httptest.NewUnstartedServer(o)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// random returns n bytes that depend on seed only.
func random(seed uint64, n int) []byte {
	data := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	rnd.Read(data)
	return data
}

// quick are options for tests of loopback: waits of a millisecond, and no
// connection to anywhere else.
func quick() *Options {
	return &Options{
		StallTimeout: 10 * time.Second,
		Backoff:      Backoff{Base: time.Millisecond, Max: 2 * time.Millisecond, MaxRetryAfter: 10 * time.Millisecond},
		Transport:    &http.Transport{DialContext: dialLoopback},
	}
}

func dialLoopback(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("a test may not connect to %s", addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func newTestClient(t *testing.T, o *Options) *Client {
	c := NewClient(o)
	t.Cleanup(c.Close)
	return c
}

// newTestStore returns an empty store that is checked when the test ends.
func newTestStore(t *testing.T) *cache.Store {
	s, err := cache.Create(t.TempDir()+"/store", &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		report, err := s.Check(context.Background(), cache.CheckOptions{Deep: true})
		if err != nil {
			t.Errorf("check: %v", err)
		} else if !report.OK() {
			t.Errorf("check finds %+v", report)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// ingest begins to take in data.
func ingest(t *testing.T, s *cache.Store, data []byte) *cache.Ingest {
	t.Helper()
	in, err := s.Begin(t.Context(), cache.Want{Size: int64(len(data)), SHA256: sha256.Sum256(data)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// stored reads a blob that Fetch has just committed.
func stored(t *testing.T, s *cache.Store, b cache.Blob) []byte {
	t.Helper()
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := s.Blob(b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fetchAll fetches data from the sources into a fresh ingest and compares it.
// Progress has to add up.
func fetchAll(t *testing.T, c *Client, s *cache.Store, data []byte, sources ...string) error {
	t.Helper()
	in := ingest(t, s, data)
	defer in.Close()
	missing := int64(0)
	for _, e := range in.Missing() {
		missing += e.Len
	}
	var mu sync.Mutex
	var landed int64
	blob, err := c.Fetch(t.Context(), sources, in, int64(len(data)), FetchOptions{Progress: func(n int64) {
		mu.Lock()
		landed += n
		mu.Unlock()
	}})
	if err != nil {
		return err
	}
	if landed != missing {
		t.Errorf("progress adds up to %d bytes, want %d", landed, missing)
	}
	if !bytes.Equal(stored(t, s, blob), data) {
		t.Error("the blob is not what upstream has")
	}
	return nil
}

// host returns the host and port of a URL.
func host(url string) string {
	return strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "https://")
}
