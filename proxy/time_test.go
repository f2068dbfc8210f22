package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener accepts connections that live in memory, so that a test with a fake
// clock can take minutes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newPipeListener() *pipeListener {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.close(); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(t *testing.T) *wire {
	t.Helper()
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.closed:
		t.Fatal("the listener is closed")
	}
	return newWire(t, client)
}

const (
	bigSize = 8*stride + 12345
	bigGet  = "GET /ephemeral-v3/stable/big HTTP/1.1\r\nHost: mirror\r\n\r\n"
)

// bigSite has one stream with one big file.
func bigSite(t *testing.T) *site {
	s := newSite(t, false)
	s.publish("stable", s.putZeros("big", bigSize))
	return s
}

// A client that takes nothing is cut when the stall limit is over, not before.
func TestStalledClientIsCut(t *testing.T) {
	s := bigSite(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		serveOn(t, s.server(Options{}, stable), l)
		w := l.dial(t)
		w.send(t, bigGet)
		resp := w.head(t, http.MethodGet)
		time.Sleep(2*time.Minute - time.Nanosecond)
		synctest.Wait()
		if s.log.String() != "" {
			t.Fatalf("cut before the limit:\n%s", s.log)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := s.log.lines("msg=request", "status=200", "of=8400953", `reason="`, "timeout", "seconds=120"); len(got) != 1 {
			t.Fatalf("not cut at the limit:\n%s", s.log)
		}
		if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the client reads the rest: %v", err)
		}
	})
}

// A client that takes a stride within each stall limit gets its file, however long that
// takes in all.
func TestSlowClientIsServed(t *testing.T) {
	s := bigSite(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		serveOn(t, s.server(Options{}, stable), l)
		w := l.dial(t)
		w.send(t, bigGet)
		began := time.Now()
		resp := w.head(t, http.MethodGet)
		var got int64
		for got < bigSize {
			n, err := io.CopyN(io.Discard, resp.Body, min(stride, bigSize-got))
			got += n
			if err != nil {
				t.Fatalf("%d bytes after %v: %v", got, time.Since(began), err)
			}
			time.Sleep(2*time.Minute - time.Second)
		}
		if took := time.Since(began); took < 15*time.Minute {
			t.Errorf("took only %v", took)
		}
	})
}

// Connections that do not get to a request, or to the next one, are closed in time.
func TestIdlersAreClosed(t *testing.T) {
	s := bigSite(t)
	for _, test := range []struct {
		name, send string
		answers    int
		after      time.Duration // of the last answer
	}{
		{"silent from the start", "", 0, 10 * time.Second},
		{"unfinished head", "GET / HTTP/1.1\r\nHost: mirr", 0, 10 * time.Second},
		{"between requests", "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\n", 1, 2 * time.Minute},
		{"second head unfinished", "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\nGET / HTTP/1.1\r\nHost: mirr", 1, 10 * time.Second},
		{"body that does not come", "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\nContent-Length: 9\r\n\r\n", 1, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				serveOn(t, s.server(Options{}, stable), l)
				w := l.dial(t)
				w.send(t, "%s", test.send)
				for range test.answers {
					w.answer(t, http.MethodGet)
				}
				began := time.Now()
				if !w.ended() {
					t.Fatal("the connection has more to say")
				}
				if took := time.Since(began); took != test.after {
					t.Errorf("closed after %v, want %v", took, test.after)
				}
			})
		})
	}
}

// A client that sends its header a byte a second does not gain time by it.
func TestSlowlorisIsClosed(t *testing.T) {
	s := bigSite(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		serveOn(t, s.server(Options{Header: 5 * time.Second}, stable), l)
		w := l.dial(t)
		began := time.Now()
		closed := make(chan time.Duration, 1)
		go func() {
			w.ended()
			closed <- time.Since(began)
		}()
		w.send(t, "GET / HTTP/1.1\r\n")
		for _, b := range []byte("Host: mirror\r\n\r\n") {
			if _, err := w.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := <-closed; took != 5*time.Second {
			t.Errorf("the connection lasted %v, want 5s", took)
		}
	})
}

// A request head has a bound.
func TestHugeHeadIsRefused(t *testing.T) {
	s := newSite(t, false)
	w := dial(t, serve(t, s.server(Options{})))
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", maxHeader+8<<10))
	if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", resp.StatusCode)
	}
}

// When the server is told to end, it accepts nothing more, idle connections end, running
// downloads are finished, and Serve returns once the last is.
func TestDrainFinishesDownloads(t *testing.T) {
	s := bigSite(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		srv := s.server(Options{}, stable)
		end := serveOn(t, srv, l)
		idle := l.dial(t)
		idle.send(t, "GET /-/readyz HTTP/1.1\r\nHost: mirror\r\n\r\n")
		if resp, body := idle.answer(t, http.MethodGet); resp.StatusCode != http.StatusOK || body != "ready\n" {
			t.Errorf("before the drain: %d %q", resp.StatusCode, body)
		}
		w := l.dial(t)
		w.send(t, bigGet)
		resp := w.head(t, http.MethodGet)

		began := time.Now()
		ended := make(chan time.Duration, 1)
		go func() {
			if err := end(); err != nil {
				t.Error(err)
			}
			ended <- time.Since(began)
		}()
		synctest.Wait()
		<-l.closed
		if !idle.ended() || time.Since(began) != 0 {
			t.Errorf("the idle connection ended after %v", time.Since(began))
		}
		ready := httptest.NewRecorder()
		srv.ServeHTTP(ready, httptest.NewRequest(http.MethodGet, "/-/readyz", nil))
		if ready.Code != http.StatusServiceUnavailable || ready.Body.String() != "draining: the server is about to end\n" {
			t.Errorf("while draining: %d %q", ready.Code, ready.Body)
		}
		time.Sleep(29 * time.Second)
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != bigSize {
			t.Errorf("the download ended after %d bytes: %v", n, err)
		}
		if took := <-ended; took < 29*time.Second || took > 30*time.Second {
			t.Errorf("Serve returned after %v", took)
		}
		if lines := s.log.lines("level=WARN"); lines != nil {
			t.Errorf("warnings: %s", lines)
		}
	})
}

// What outlasts the drain limit is cut, so that the client sees it, and Serve returns.
func TestDrainCutsAtItsLimit(t *testing.T) {
	s := bigSite(t)
	for i, test := range []struct {
		name          string
		option, limit time.Duration
	}{
		{"default", 0, 30 * time.Second},
		{"set", time.Hour, time.Hour},
		{"none", -1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				srv := s.server(Options{Drain: test.option, Stall: 2 * time.Hour}, stable)
				end := serveOn(t, srv, l)
				w := l.dial(t)
				w.send(t, bigGet)
				resp := w.head(t, http.MethodGet)
				began := time.Now()
				if err := end(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != test.limit {
					t.Errorf("Serve returned after %v, want %v", took, test.limit)
				}
				if n := len(s.log.lines("msg=request")); n != i+1 {
					t.Error("Serve returned while the request was running")
				}
				if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the client reads the rest: %v", err)
				}
			})
		})
	}
}

// A listener that fails ends Serve with its error, and no connection is left.
func TestServeReportsAListenerThatFails(t *testing.T) {
	s := bigSite(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		failed := make(chan error, 1)
		go func() { failed <- s.server(Options{}, stable).Serve(context.Background(), l) }()
		w := l.dial(t)
		w.send(t, bigGet)
		w.head(t, http.MethodGet)
		l.Close()
		err := <-failed
		if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "cannot accept connections on pipe: ") {
			t.Errorf("Serve: %v", err)
		}
		if _, err := io.Copy(io.Discard, w); err != nil {
			t.Errorf("the connection is not closed: %v", err)
		}
	})
}
