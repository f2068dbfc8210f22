package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror/upstream"
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
	client := upstream.NewClient(&upstream.Options{Backoff: upstream.Backoff{Base: time.Millisecond, Max: 10 * time.Millisecond}})
	t.Cleanup(client.Close)
	return func(ctx context.Context, stream, path string, in *cache.Ingest, o upstream.FetchOptions) (cache.Blob, error) {
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

// awaitHere waits until the origin's file is in the store: readers are let go before that, when it is proven.
func (s *site) awaitHere(o *origin) {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !s.store.Has(o.entry("").Digest); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("the file does not come")
		}
	}
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
