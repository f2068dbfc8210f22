package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
)

// damagedSite is a site whose snapshot has the origin's file, which the store lost or damaged.
func damagedSite(t *testing.T, o *origin, damage func(file string) error, more Options) (*site, string) {
	t.Helper()
	s := newSite(t, false)
	e := o.entry("noble/squashfs")
	e.Kind = cache.KindItem
	if _, err := s.store.Take(t.Context(), cache.Want{SHA256: e.Digest, Size: e.Size}, bytes.NewReader(o.content)); err != nil {
		t.Fatal(err)
	}
	s.publish("stable", e)
	if err := damage(s.blobFile(e)); err != nil {
		t.Fatal(err)
	}
	if more.Pull == nil {
		more.Pull = puller(t, o.url)
	}
	return s, serve(t, s.server(more, stable))
}

// Who asks for a file that the store lost or cut off gets it all the same, from upstream, once however many ask, and it is whole
// afterwards; it does not become one that may be evicted.
func TestDamagedIsFetchedAgain(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"gone":      os.Remove,
		"truncated": func(file string) error { return os.Truncate(file, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, 2<<20)
			var mu sync.Mutex
			var told []cache.Entry
			s, addr := damagedSite(t, o, damage, Options{Damaged: func(stream string, e cache.Entry) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, e)
			}})
			if resp, err := http.Head("http://" + addr + coldFile); err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != 2<<20 {
				t.Errorf("HEAD: %v, %v", err, resp)
			}
			var all sync.WaitGroup
			for _, agent := range []string{"maas/3.8.0", "curl/8.5.0", "python-simplestreams/0.1"} {
				all.Go(func() {
					resp, body, err := fetchCold(addr, "User-Agent", agent)
					if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, o.content) {
						t.Errorf("%s: %v, %v, %d bytes", agent, err, resp, len(body))
					}
				})
			}
			all.Wait()
			awaitLines(t, s.log, "msg=filled", 1)
			if n := o.sent.Load(); n != int64(len(o.content)) {
				t.Errorf("upstream sent %d bytes, the file has %d", n, len(o.content))
			}
			if resp, _, err := fetchCold(addr); err != nil || resp.Header.Get("Cache-Status") != hitCurrent {
				t.Errorf("then: %v, %v", err, resp)
			}
			if st := s.store.PullStats(); st.Blobs != 0 {
				t.Errorf("%d files may be evicted", st.Blobs)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(told) == 0 || told[0].Path != "noble/squashfs" || len(s.log.lines("level=ERROR", "integrity")) != len(told) {
				t.Errorf("told of %v; the log:\n%s", told, s.log)
			}
		})
	}
}

// A file that ends while it is sent is fetched again for the next one who asks.
func TestFileThatEndsEarlyIsFetchedAgain(t *testing.T) {
	o := newOrigin(t, 64<<20)
	s, addr := damagedSite(t, o, func(string) error { return nil }, Options{})
	e := o.entry("noble/squashfs")
	w := dial(t, addr)
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", coldFile)
	w.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	resp := w.head(t, http.MethodGet)
	if err := os.Truncate(s.blobFile(e), 32<<20); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != io.ErrUnexpectedEOF {
		t.Errorf("got %d bytes, %v", n, err)
	}
	awaitLines(t, s.log, "msg=filled", 1)
	if resp, body, err := fetchCold(addr); err != nil || resp.Header.Get("Cache-Status") != hitCurrent || !bytes.Equal(body, o.content) {
		t.Errorf("then: %v, %v, %d bytes", err, resp, len(body))
	}
}

// Where upstream must not be asked for a damaged file, a client for which a status is final is cut, and another told why.
func TestDamagedOffline(t *testing.T) {
	o := newOrigin(t, 100<<10)
	offline := func(context.Context, string, string, *cache.Ingest, upstream.FetchOptions) (cache.Blob, error) {
		return cache.Blob{}, mirror.ErrOffline
	}
	s, addr := damagedSite(t, o, os.Remove, Options{Pull: offline})
	if resp, _, err := fetchCold(addr, "User-Agent", "maas/3.8.0"); err == nil {
		t.Errorf("MAAS got %v", resp)
	}
	resp, body, err := fetchCold(addr)
	if err != nil || resp.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "offline") {
		t.Errorf("%v, %v, %q", err, resp, body)
	}
	e := o.entry("noble/squashfs")
	if _, err := s.store.Take(t.Context(), cache.Want{SHA256: e.Digest, Size: e.Size}, bytes.NewReader(o.content)); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}
