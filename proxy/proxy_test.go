package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
)

// TestMain fails when tests leave goroutines behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	status := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(status) // the fuzzing engine leaves one of its own
	}
	for wait := time.Millisecond; runtime.NumGoroutine() > before; wait *= 2 {
		if wait > 2*time.Second {
			fmt.Fprintf(os.Stderr, "%d goroutines were left behind:\n", runtime.NumGoroutine()-before)
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			status = 1
			break
		}
		time.Sleep(wait)
	}
	os.Exit(status)
}

// A site is a store with streams, for tests to publish to and serve.
type site struct {
	t     testing.TB
	dir   string
	store *cache.Store
	log   *logBuffer
	now   time.Time // of the next snapshot
}

// newSite makes an empty store. When the test ends the store has to be in order, unless
// the test damages it.
func newSite(t testing.TB, damaged bool) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "store"), log: new(logBuffer), now: time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)}
	var err error
	s.store, err = cache.Create(s.dir, &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !damaged {
			report, err := s.store.Check(context.Background(), cache.CheckOptions{Deep: true})
			if err != nil || !report.OK() {
				t.Errorf("store after the test: %v, %v", report, err)
			}
		}
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// put stores content and returns the entry that names it.
func (s *site) put(kind cache.Kind, path, content string) cache.Entry {
	s.t.Helper()
	d, err := s.store.Put(s.t.Context(), []byte(content))
	if err != nil {
		s.t.Fatal(err)
	}
	return cache.Entry{Kind: kind, Digest: d, Size: int64(len(content)), Path: path}
}

// putZeros stores a file of size zero bytes.
func (s *site) putZeros(path string, size int64) cache.Entry {
	s.t.Helper()
	zeros := make([]byte, 1<<20)
	h := sha256.New()
	for left := size; left > 0; left -= int64(len(zeros)) {
		h.Write(zeros[:min(int64(len(zeros)), left)])
	}
	e := cache.Entry{Kind: cache.KindItem, Digest: cache.Digest(h.Sum(nil)), Size: size, Path: path}
	in, err := s.store.Begin(s.t.Context(), cache.Want{Size: size, SHA256: e.Digest})
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := in.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := in.Commit(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// publish makes a snapshot of the entries current.
func (s *site) publish(stream string, entries ...cache.Entry) cache.Digest {
	s.t.Helper()
	if err := s.store.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	m := &cache.Manifest{Stream: stream, Created: s.now, Reason: "test", Entries: entries}
	if current, err := s.store.Current(stream); err == nil {
		m.Parent = current.ID
	}
	s.now = s.now.Add(time.Hour)
	id, err := s.store.Publish(s.t.Context(), m)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// server returns a server for streams; o may hold further options.
func (s *site) server(o Options, streams ...Stream) *Server {
	o.Store = s.store
	if o.Streams == nil {
		o.Streams = func() []Stream { return streams }
	}
	o.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return New(&o)
}

var stable = Stream{Name: "stable", Path: "/ephemeral-v3/stable/"}

// serve runs srv on loopback until the test ends, and returns its address.
func serve(t testing.TB, srv *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, srv, ln)
	return ln.Addr().String()
}

// serveOn runs srv on ln. It returns a function that ends the server, which the end of
// the test does otherwise, and gives what Serve returned.
func serveOn(t testing.TB, srv *Server, ln net.Listener) (end func() error) {
	return run(t, func(ctx context.Context) error { return srv.Serve(ctx, ln) })
}

// run is serveOn for what serves until its context ends.
func run(t testing.TB, serve func(context.Context) error) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx) }()
	end = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return end
}

// A logBuffer collects what is logged, for any number of writers.
type logBuffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// lines returns the lines that contain every one of the parts.
func (b *logBuffer) lines(parts ...string) (found []string) {
	for line := range strings.Lines(b.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// A wire is a client's end of a connection, for what http.Client would not send.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// dial opens a connection that ends with the test and fails it rather than to hang.
func dial(t testing.TB, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newWire(t, c)
}

func newWire(t testing.TB, c net.Conn) *wire {
	t.Cleanup(func() { c.Close() })
	return &wire{Conn: c, r: bufio.NewReader(c)}
}

// send writes a raw request.
func (w *wire) send(t testing.TB, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		t.Fatal(err)
	}
}

// head reads the head of an answer; its body is read from the connection.
func (w *wire) head(t testing.TB, method string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return resp
}

// answer reads a whole answer.
func (w *wire) answer(t testing.TB, method string) (*http.Response, string) {
	t.Helper()
	resp := w.head(t, method)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("body ends after %d bytes: %v", len(body), err)
	}
	return resp, string(body)
}

// ended reports whether the server closed the connection without a further byte.
func (w *wire) ended() bool {
	_, err := w.r.ReadByte()
	return err != nil
}

// get fetches a path once, on a connection of its own.
func get(t testing.TB, addr, path string, header ...string) (*http.Response, string) {
	t.Helper()
	w := dial(t, addr)
	defer w.Close()
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "GET %s HTTP/1.1\r\nHost: mirror\r\n%s\r\n", path, strings.Join(append(header, ""), "\r\n"))
	return w.answer(t, http.MethodGet)
}
