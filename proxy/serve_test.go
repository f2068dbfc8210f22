package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/cache"
)

// Two files in one list of streams: the first by its path, the second by another, while
// snapshots and the list change, are served from a snapshot that was current.
func TestStreamsAndSnapshotsMayChange(t *testing.T) {
	s := newSite(t, false)
	index := func(n int) cache.Entry {
		return s.put(cache.KindSite, "streams/v1/index.sjson", fmt.Sprintf("index %d", n))
	}
	s.publish("stable", index(0))
	var streams atomic.Pointer[[]Stream]
	streams.Store(&[]Stream{stable})
	addr := serve(t, s.server(Options{Streams: func() []Stream { return *streams.Load() }}))

	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			last := 0
			for {
				select {
				case <-done:
					return
				default:
				}
				var n int
				resp, body := get(t, addr, "/ephemeral-v3/stable/streams/v1/index.sjson")
				if _, err := fmt.Sscanf(body, "index %d", &n); err != nil || resp.StatusCode != http.StatusOK || n < last {
					t.Errorf("after index %d: %d %q", last, resp.StatusCode, body)
					return
				}
				last = n
			}
		})
	}
	for n := 1; n <= 20; n++ {
		s.publish("stable", index(n))
		streams.Store(&[]Stream{{Name: "stable", Path: fmt.Sprintf("/s%d/", n)}, stable})
		path := fmt.Sprintf("/s%d/streams/v1/index.sjson", n)
		if _, body := get(t, addr, path); body != fmt.Sprintf("index %d", n) {
			t.Errorf("after publishing index %d: %q", n, body)
		}
	}
	close(done)
	clients.Wait()
}

// The line of a request tells what was asked, what was answered and from where, and
// nothing of the query string.
func TestRequestLine(t *testing.T) {
	s := newSite(t, false)
	id := s.publish("stable", s.put(cache.KindItem, "a/squashfs", "0123456789"))
	srv := s.server(Options{}, stable)
	for _, test := range []struct{ method, target, want string }{
		{"GET", "/ephemeral-v3/stable/a/squashfs?token=secret#hidden",
			`level=INFO msg=request method=GET path=/ephemeral-v3/stable/a/squashfs status=200 bytes=10 seconds=S client=192.0.2.1 cache="oxbow; hit" stream=stable snapshot=` + id.String()[:12]},
		{"HEAD", "/ephemeral-v3/stable/a/squashfs",
			`level=INFO msg=request method=HEAD path=/ephemeral-v3/stable/a/squashfs status=200 bytes=0 seconds=S client=192.0.2.1 cache="oxbow; hit" stream=stable snapshot=` + id.String()[:12]},
		{"GET", "/ephemeral-v3/stable/b%0Alevel=ERROR",
			`level=INFO msg=request method=GET path="/ephemeral-v3/stable/b\nlevel=ERROR" status=404 bytes=10 seconds=S client=192.0.2.1 cache="oxbow; detail=unknown"`},
		{"GET", "http://user:secret@mirror/b?token=secret",
			`level=INFO msg=request method=GET path=/b status=404 bytes=10 seconds=S client=192.0.2.1 cache="oxbow; detail=unknown"`},
		{"POST", "/-/healthz",
			`level=DEBUG msg=request method=POST path=/-/healthz status=405 bytes=34 seconds=S client=192.0.2.1`},
	} {
		before := len(s.log.String())
		srv.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(test.method, test.target, nil))
		line := strings.TrimSuffix(s.log.String()[before:], "\n")
		_, line, _ = strings.Cut(line, " ") // the time
		if head, tail, ok := strings.Cut(line, "seconds="); ok {
			_, tail, _ = strings.Cut(tail, " ")
			line = head + "seconds=S " + tail
		}
		if line != test.want {
			t.Errorf("%s %s logs\n%s, want\n%s", test.method, test.target, line, test.want)
		}
	}
}

// A blob that is gone, too short or too long is never sent. Clients for which a status is
// final are cut, others see a 404; the log has an integrity error each time.
func TestDamagedFilesAreNotSent(t *testing.T) {
	const content = "0123456789"
	for name, damage := range map[string]func(file string) error{
		"gone":      os.Remove,
		"truncated": func(file string) error { return os.Truncate(file, 4) },
		"extended":  func(file string) error { return os.WriteFile(file, []byte(content+"more"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, true)
			e := s.put(cache.KindItem, "a/squashfs", content)
			s.publish("stable", e)
			addr := serve(t, s.server(Options{}, stable))
			if err := damage(s.blobFile(e)); err != nil {
				t.Fatal(err)
			}
			resp, body := get(t, addr, "/ephemeral-v3/stable/a/squashfs", "User-Agent: curl/8.5.0")
			if resp.StatusCode != http.StatusNotFound || body != "not available\n" ||
				resp.Header.Get("Cache-Status") != "oxbow; detail=damaged" || resp.Header.Get("ETag") != "" {
				t.Errorf("answer %d %q %v", resp.StatusCode, body, resp.Header)
			}
			for _, agent := range []string{"maas/3.8.0", "python-simplestreams/0.1", "Python/3.12 aiohttp/3.9.1"} {
				w := dial(t, addr)
				w.SetDeadline(time.Now().Add(20 * time.Second))
				w.send(t, "GET /ephemeral-v3/stable/a/squashfs HTTP/1.1\r\nHost: mirror\r\nUser-Agent: %s\r\n\r\n", agent)
				if !w.ended() {
					t.Errorf("%s is answered", agent)
				}
			}
			if got := s.log.lines("level=ERROR", "integrity", "stream=stable", "path=a/squashfs", e.Digest.String()); len(got) != 4 {
				t.Errorf("%d integrity errors, want 4:\n%s", len(got), s.log)
			}
		})
	}
}

// A file that ends while it is being sent leaves the client with less than was promised,
// on a connection that ends, and an integrity error in the log.
func TestFileThatEndsEarly(t *testing.T) {
	s := newSite(t, true)
	const size = 64 << 20 // far more than the buffers of a connection hold
	e := s.putZeros("big", size)
	s.publish("stable", e)
	addr := serve(t, s.server(Options{}, stable))
	w := dial(t, addr)
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	w.send(t, "GET /ephemeral-v3/stable/big HTTP/1.1\r\nHost: mirror\r\n\r\n")
	resp := w.head(t, http.MethodGet)
	if resp.ContentLength != size {
		t.Fatalf("promised %d bytes, want %d", resp.ContentLength, size)
	}
	if err := os.Truncate(s.blobFile(e), size/2); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != io.ErrUnexpectedEOF || n != size/2 {
		t.Errorf("got %d bytes, %v, want %d and an unexpected end", n, err, size/2)
	}
	if got := s.log.lines("level=ERROR", "integrity", "sent 33554432 of 67108864 bytes"); len(got) != 1 {
		t.Errorf("%d integrity errors, want 1:\n%s", len(got), s.log)
	}
}

// blobFile is where the store keeps an entry's bytes, made writable.
func (s *site) blobFile(e cache.Entry) string {
	s.t.Helper()
	name := filepath.Join(s.dir, "blobs", "sha256", e.Digest.String()[:2], e.Digest.String())
	if err := os.Chmod(name, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// A file that cannot be opened now, as for want of descriptors, may be whole: nothing is
// said of it that lasts, and the log does not call it damaged.
func TestFileThatCannotBeOpened(t *testing.T) {
	s := newSite(t, true)
	e := s.put(cache.KindItem, "a/squashfs", "0123456789")
	s.publish("stable", e)
	srv := s.server(Options{}, stable)
	name := s.blobFile(e)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name, name); err != nil { // fails in open for everyone, root too
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ephemeral-v3/stable/a/squashfs", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("answer %d %v", w.Code, w.Header())
	}
	addr := serve(t, srv)
	for _, agent := range []string{"maas/3.8.0", "python-simplestreams/0.1"} {
		w := dial(t, addr)
		w.SetDeadline(time.Now().Add(20 * time.Second))
		w.send(t, "GET /ephemeral-v3/stable/a/squashfs HTTP/1.1\r\nHost: mirror\r\nUser-Agent: %s\r\n\r\n", agent)
		if !w.ended() {
			t.Errorf("%s is answered", agent)
		}
	}
	if got := s.log.lines("integrity"); len(got) != 0 {
		t.Errorf("called damaged: %s", got)
	}
}

// The last no bytes of a file are a range that cannot be had.
func TestLastNoBytes(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	addr := serve(t, s.server(Options{}, stable))
	for _, test := range []struct {
		header       []string
		status       int
		contentRange string
		body         string
	}{
		{[]string{"Range: bytes=-0"}, 416, "bytes */10", "invalid range: failed to overlap\n"},
		{[]string{"Range: bytes= -00 "}, 416, "bytes */10", "invalid range: failed to overlap\n"},
		{[]string{"Range: bytes=-0,0-1"}, 206, "bytes 0-1/10", "01"},
		{[]string{"Range: bytes=-10"}, 206, "bytes 0-9/10", "0123456789"},
		{[]string{"Range: bytes=-0", `If-Range: "other"`}, 200, "", "0123456789"},
	} {
		resp, body := get(t, addr, "/ephemeral-v3/stable/a", test.header...)
		if resp.StatusCode != test.status || resp.Header.Get("Content-Range") != test.contentRange || body != test.body {
			t.Errorf("%q: %d %q %q", test.header, resp.StatusCode, resp.Header.Get("Content-Range"), body)
		}
	}
}
