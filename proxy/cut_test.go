package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A server that is told to cut does not wait for the drain limit, whenever it is told and
// how often, and says so once. The client sees that it has not got all.
func TestCut(t *testing.T) {
	s := bigSite(t)
	for _, test := range []struct {
		name          string
		before, later int // how often it is told, before the drain and 10 s after
		want          time.Duration
	}{
		{"in the drain", 0, 1, 10 * time.Second},
		{"many times", 0, 5, 10 * time.Second},
		{"before", 1, 0, 0},
		{"before, and again", 3, 3, 0},
		{"never", 0, 0, 30 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := len(s.log.lines("told not to wait"))
				l := newPipeListener()
				srv := s.server(Options{}, stable)
				end := serveOn(t, srv, l)
				w := l.dial(t)
				w.send(t, bigGet)
				resp := w.head(t, http.MethodGet)
				tell := func(times int) {
					var all sync.WaitGroup
					for range times {
						all.Go(srv.Cut)
					}
					all.Wait()
				}
				tell(test.before)
				time.Sleep(time.Second)
				if _, err := io.CopyN(io.Discard, resp.Body, stride); err != nil {
					t.Fatalf("cut before it was told to end: %v", err)
				}
				began := time.Now()
				go func() {
					time.Sleep(10 * time.Second)
					tell(test.later)
				}()
				if err := end(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != test.want {
					t.Errorf("Serve returned after %v, want %v", took, test.want)
				}
				if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the client reads the rest: %v", err)
				}
				time.Sleep(10 * time.Second) // until the last was told
				tell(1)                      // of a server that has ended
				if got := len(s.log.lines("level=WARN", "told not to wait")) - before; (got == 1) != (test.want < 30*time.Second) || got > 1 {
					t.Errorf("%d lines of it:\n%s", got, s.log)
				}
			})
		})
	}
}

// With nothing to cut the drain ends by itself, without a warning.
func TestCutOfAnIdleServer(t *testing.T) {
	s := bigSite(t)
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		srv := s.server(Options{}, stable)
		srv.Cut()
		end := serveOn(t, srv, l)
		idle := l.dial(t)
		idle.send(t, "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\n")
		if resp, _ := idle.answer(t, http.MethodGet); resp.StatusCode != http.StatusOK {
			t.Errorf("before it is told to end: %d", resp.StatusCode)
		}
		synctest.Wait() // until the connection is idle for the server, too
		if err := end(); err != nil {
			t.Error(err)
		}
		if !idle.ended() {
			t.Error("the idle connection goes on")
		}
		if lines := s.log.lines("level=WARN"); lines != nil {
			t.Errorf("warnings: %s", lines)
		}
	})
}

// Over real connections, plain and TLS, slow downloads of every kind of client are cut at
// once and come out short: no error is hidden in an end that looks proper.
func TestCutOverLoopback(t *testing.T) {
	s := newSite(t, false)
	const size = 64 << 20 // far more than the buffers of a connection hold
	s.publish("stable", s.putZeros("big", size))
	files := newPairFiles(t, time.Now().Add(time.Hour))
	for name, certificate := range map[string]*Certificate{"plain": nil, "TLS": files.load(t, nil)} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := s.server(Options{Certificate: certificate}, stable)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- srv.Serve(ctx, ln) }()
			var bodies []io.Reader
			for _, agent := range []string{"curl/8.5.0", "maas/3.5.2", "python-simplestreams/0.1"} {
				var w *wire
				if certificate == nil {
					w = dial(t, ln.Addr().String())
				} else {
					w = dialTLS(t, ln.Addr().String(), trusts(t, files.cert))
				}
				w.SetDeadline(time.Now().Add(20 * time.Second))
				w.send(t, "GET /ephemeral-v3/stable/big HTTP/1.1\r\nHost: mirror\r\nUser-Agent: %s\r\n\r\n", agent)
				resp := w.head(t, http.MethodGet)
				if resp.ContentLength != size {
					t.Fatalf("promised %d bytes", resp.ContentLength)
				}
				bodies = append(bodies, resp.Body)
			}
			cancel()
			select {
			case err := <-ended:
				t.Fatalf("the drain ended by itself: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			began := time.Now()
			srv.Cut()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 10*time.Second { // of 30
				t.Errorf("it took %v", took)
			}
			for i, body := range bodies {
				if n, err := io.Copy(io.Discard, body); err == nil || n >= size {
					t.Errorf("client %d: %d bytes and no error", i, n)
				}
			}
		})
	}
	if got := s.log.lines("msg=request", "status=200", "of=67108864"); len(got) != 6 {
		t.Errorf("%d lines of downloads that came out short:\n%s", len(got), s.log)
	}
}
