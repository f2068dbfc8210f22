package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// An echo gives back what is sent to it, and ends after its client has.
func newEcho(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	return ln.Addr().String()
}

// connect opens a tunnel to a host, and sends early along with the request.
func (f *forwarded) connect(t testing.TB, host, early string) *wire {
	t.Helper()
	w := dial(t, f.addr)
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n%s", host, host, early)
	if resp := w.head(t, "CONNECT"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Via"), "1.1 oxbow-") {
		t.Fatalf("no tunnel: %v", resp)
	}
	return w
}

// A tunnel carries all that is sent, also what comes before it stands, both ways, and the
// end of one way leaves the other.
func TestTunnel(t *testing.T) {
	m := NewMetrics("v1")
	echo := newEcho(t)
	f := newForwarded(t, Options{Metrics: m}, ubuntu, echo)
	f.listen(t)
	w := f.connect(t, echo, "early, ")
	waitUntil(t, func() bool {
		samples, _ := scrape(t, f.front)
		return samples["oxbow_forward_tunnels_open"] == "1"
	})
	big := strings.Repeat("0123456789", 50000)
	go io.WriteString(w, big)
	if got, err := io.ReadAll(io.LimitReader(w.r, int64(len("early, "+big)))); err != nil || string(got) != "early, "+big {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	w.send(t, "last")
	w.Conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(w.r); err != nil || string(got) != "last" {
		t.Errorf("%q, %v", got, err)
	}
	want := 2 * (len("early, "+big) + len("last"))
	waitUntil(t, func() bool {
		return len(f.log.lines("method=CONNECT", "forward=tunnelled", fmt.Sprint("tunnelled=", want))) == 1
	})
	samples, _ := scrape(t, f.front)
	for name, value := range map[string]float64{
		`oxbow_forward_requests_total{outcome="tunnelled"}`: 1, `oxbow_forward_requests_total{outcome="refused"}`: 0,
		"oxbow_forward_tunnels_open": 0, "oxbow_forward_tunnel_bytes_total": float64(want),
	} {
		if got, err := strconv.ParseFloat(samples[name], 64); err != nil || got != value {
			t.Errorf("%s is %s, want %v", name, samples[name], value)
		}
	}
}

func waitUntil(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

// A tunnel through which nothing comes any more ends.
func TestIdleTunnel(t *testing.T) {
	near, client := net.Pipe()
	far, host := net.Pipe()
	s := New(&Options{})
	tunnel := &tunnel{far: far, idle: 100 * time.Millisecond, draining: &s.draining}
	began := time.Now()
	go func() {
		client.Write([]byte("a"))
		io.Copy(io.Discard, client)
	}()
	go io.Copy(io.Discard, host)
	tunnel.run(t.Context(), near)
	if tunnel.err != errIdleTunnel || tunnel.bytes.Load() != 1 || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%v after %d bytes and %v", tunnel.err, tunnel.bytes.Load(), time.Since(began))
	}
}

// A server that is told to end lets tunnels go on that are in use, and ends those that are
// idle; Cut ends all.
func TestTunnelsAtTheEnd(t *testing.T) {
	echo := newEcho(t)
	f := newForwarded(t, Options{}, ubuntu, echo)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.srv.ServeForward(ctx, ln) }()
	idle, used := f.connect(t, echo, ""), f.connect(t, echo, "")
	cancel()
	stop := make(chan struct{})
	var user sync.WaitGroup
	user.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				used.Write([]byte("x"))
			}
		}
	})
	if !idle.ended() {
		t.Error("the idle tunnel carries something")
	}
	if _, err := io.CopyN(io.Discard, used.r, 20); err != nil {
		t.Errorf("the tunnel in use: %v", err)
	}
	f.srv.Cut()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(stop)
	user.Wait()
	if _, err := io.Copy(io.Discard, used.r); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}
