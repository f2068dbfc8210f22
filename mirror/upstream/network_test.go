package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oxbow/cache"
)

// A network is one in memory, for the fake time of synctest. Connections cost
// no time, and as much as their rate says for what the server sends.
type network struct {
	conns chan net.Conn
	done  chan struct{}
	// rate is the bytes per second of the n-th connection, from 1. If nil or
	// 0, there is no limit.
	rate func(n int) int

	mu    sync.Mutex
	dials int
	open  []net.Conn
}

func (nw *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	nw.mu.Lock()
	nw.dials++
	slow := &slowConn{Conn: there}
	if nw.rate != nil {
		slow.rate = nw.rate(nw.dials)
	}
	nw.open = append(nw.open, here, there)
	nw.mu.Unlock()
	select {
	case nw.conns <- slow:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (nw *network) Accept() (net.Conn, error) {
	select {
	case c := <-nw.conns:
		return c, nil
	case <-nw.done:
		return nil, net.ErrClosed
	}
}

func (nw *network) Close() error   { return nil }
func (nw *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// slowConn takes its time to write.
type slowConn struct {
	net.Conn
	rate int
}

func (c *slowConn) Write(p []byte) (int, error) {
	if c.rate > 0 {
		time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(c.rate))
	}
	return c.Conn.Write(p)
}

// inBubble runs f in fake time, with a client of o whose every connection
// leads to h. Everything ends with f.
func inBubble(t *testing.T, o Options, h http.Handler, rate func(n int) int, f func(*testing.T, *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		nw := &network{conns: make(chan net.Conn), done: make(chan struct{}), rate: rate}
		srv := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		go srv.Serve(nw)
		o.Transport = &http.Transport{DialContext: nw.dial}
		c := NewClient(&o)
		f(t, c)
		c.Close()
		close(nw.done)
		srv.Close()
		for _, conn := range nw.open {
			conn.Close()
		}
		time.Sleep(time.Hour) // until all that sleeps has found out
	})
}

const upstreamURL = "http://upstream/f"

// hang keeps a request until its connection ends.
func hang(r *http.Request) { <-r.Context().Done() }

func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		c := NewClient(&Options{ConnectTimeout: 7 * time.Second, Attempts: 2, Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				dials++
				<-ctx.Done()
				return nil, ctx.Err()
			},
		}})
		start := time.Now()
		_, err := c.Document(t.Context(), upstreamURL, Validators{}, 100)
		const want = "cannot fetch http://upstream/f: cannot connect to upstream:80 within 7s (2 attempts)"
		if err == nil || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
		if d := time.Since(start); dials != 2 || d < 14*time.Second || d > 15*time.Second {
			t.Errorf("%d connects in %v", dials, d)
		}
	})
}

func TestHeaderTimeout(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hang(r) })
	inBubble(t, Options{HeaderTimeout: 7 * time.Second, Attempts: 3}, h, nil, func(t *testing.T, c *Client) {
		start := time.Now()
		_, err := c.Document(t.Context(), upstreamURL, Validators{}, 100)
		if err == nil || !strings.Contains(err.Error(), "timeout awaiting response headers (3 attempts)") {
			t.Errorf("error %v", err)
		}
		// Two waits lie between: up to 500 ms and up to 1 s.
		if d := time.Since(start); d < 21750*time.Millisecond || d > 22500*time.Millisecond {
			t.Errorf("it took %v", d)
		}
	})
}

// A body that stops is given up after the stall time-out; one that trickles
// is not, however long it takes.
func TestStall(t *testing.T) {
	const text = "0123456789"
	for _, tt := range []struct {
		name  string
		pause time.Duration
		want  string
	}{
		{"trickle", 29 * time.Second, ""},
		{"hung", 31 * time.Second, "cannot fetch http://upstream/f: no byte arrived for 30s (2 attempts)"},
	} {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			for i := range len(text) {
				w.Write([]byte(text[i : i+1]))
				http.NewResponseController(w).Flush()
				time.Sleep(tt.pause)
			}
		})
		inBubble(t, Options{Attempts: 2}, h, nil, func(t *testing.T, c *Client) {
			doc, err := c.Document(t.Context(), upstreamURL, Validators{}, 100)
			if tt.want == "" && (err != nil || string(doc.Bytes) != text) {
				t.Errorf("%s: %+v, %v", tt.name, doc, err)
			}
			if tt.want != "" && (err == nil || err.Error() != tt.want) {
				t.Errorf("%s: error %v\nwant %s", tt.name, err, tt.want)
			}
		})
	}
}

func TestRetryAfterHonoured(t *testing.T) {
	for _, tt := range []struct {
		name     string
		header   func() string
		min, max time.Duration
	}{
		{"seconds", func() string { return "7" }, 7 * time.Second, 8 * time.Second},
		{"date", func() string { return time.Now().Add(9 * time.Second).UTC().Format(http.TimeFormat) }, 8 * time.Second, 10 * time.Second},
		{"too long", func() string { return "86400" }, 2 * time.Minute, 2*time.Minute + time.Second},
		{"none", func() string { return "" }, 250 * time.Millisecond, 500 * time.Millisecond},
	} {
		n := 0
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 1 {
				w.Header().Set("Retry-After", tt.header())
				w.WriteHeader(http.StatusTooManyRequests)
			}
		})
		inBubble(t, Options{}, h, nil, func(t *testing.T, c *Client) {
			start := time.Now()
			if _, err := c.Document(t.Context(), upstreamURL, Validators{}, 100); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if d := time.Since(start); d < tt.min || d > tt.max {
				t.Errorf("%s: waited %v, want %v to %v", tt.name, d, tt.min, tt.max)
			}
		})
	}
}

// landTimed transfers what in lacks of data in fake time and returns how long
// that took. The commit is for later, outside of the bubble: the store's index
// knows no fake time.
func landTimed(t *testing.T, c *Client, in *cache.Ingest, data []byte, url string) time.Duration {
	t.Helper()
	u, err := parseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	tr := &transfer{c: c, source: u, in: in, size: int64(len(data)), landed: func(int64) {}}
	if err := tr.run(t.Context()); err != nil {
		t.Error(err)
	}
	return time.Since(start)
}

func commit(t *testing.T, in *cache.Ingest) {
	t.Helper()
	if _, err := in.Commit(t.Context()); err != nil {
		t.Error(err)
	}
}

// A file whose upstream hangs in the middle is resumed where it stopped.
func TestStalledFileResumes(t *testing.T) {
	t.Parallel()
	data := random(20, 100_000)
	in := ingest(t, newTestStore(t), data)
	o := &origin{files: map[string][]byte{"/f": data}}
	o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		if n > 1 {
			return w
		}
		w.Header().Set("ETag", etagOf(data))
		w.Header().Set("Content-Length", "100000")
		w.Write(data[:40_000])
		http.NewResponseController(w).Flush()
		hang(r)
		return nil
	}
	inBubble(t, Options{}, o, nil, func(t *testing.T, c *Client) {
		if d := landTimed(t, c, in, data, upstreamURL); d < 30250*time.Millisecond || d > 30500*time.Millisecond {
			t.Errorf("it took %v", d)
		}
	})
	commit(t, in)
	want := []string{"/f", "/f bytes=40000-99999 " + etagOf(data)}
	if got := o.asked(); !slices.Equal(got, want) {
		t.Errorf("upstream was asked %q, want %q", got, want)
	}
}

// Where upstream limits each connection, several are that much faster.
func TestParallelSpeed(t *testing.T) {
	t.Parallel()
	const rate = 20_000_000
	data := random(21, 48*mib)
	in := ingest(t, newTestStore(t), data)
	alone := time.Duration(len(data)) * time.Second / rate
	o := &origin{files: map[string][]byte{"/f": data}}
	inBubble(t, Options{}, o, func(int) int { return rate }, func(t *testing.T, c *Client) {
		if d := landTimed(t, c, in, data, upstreamURL); d > alone/7 {
			t.Errorf("8 connections took %v, one takes %v: %.1f times as fast, want 7", d, alone, alone.Seconds()/d.Seconds())
		}
	})
	commit(t, in)
	if sent, most := o.totals(); sent != int64(len(data)) || most != 8 {
		t.Errorf("%d bytes sent, %d requests at once", sent, most)
	}
}

// One slow connection does not hold up a file: the others take over.
func TestSlowConnection(t *testing.T) {
	t.Parallel()
	data := random(22, 24*mib)
	in := ingest(t, newTestStore(t), data)
	o := &origin{files: map[string][]byte{"/f": data}}
	rate := func(n int) int {
		if n == 3 {
			return 20_000 // nearly a minute for its first piece
		}
		return 20_000_000
	}
	inBubble(t, Options{}, o, rate, func(t *testing.T, c *Client) {
		if d := landTimed(t, c, in, data, upstreamURL); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
	})
	commit(t, in)
}

// One hung connection costs a stall time-out and little else: most of its
// piece comes by others meanwhile.
func TestHungConnection(t *testing.T) {
	t.Parallel()
	data := random(23, 24*mib)
	in := ingest(t, newTestStore(t), data)
	o := &origin{files: map[string][]byte{"/f": data}}
	o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		if n == 3 {
			hang(r)
			return nil
		}
		return w
	}
	inBubble(t, Options{HeaderTimeout: 20 * time.Second}, o, func(int) int { return 20_000_000 }, func(t *testing.T, c *Client) {
		if d := landTimed(t, c, in, data, upstreamURL); d > 21*time.Second {
			t.Errorf("it took %v", d)
		}
	})
	commit(t, in)
	asked := o.asked()
	last := asked[len(asked)-1]
	var from, to int
	if _, err := fmt.Sscanf(last, "/f bytes=%d-%d", &from, &to); err != nil || to-from >= 2*minShare {
		t.Errorf("the last request is %q: only a rest below %d bytes should have waited", last, 2*minShare)
	}
}

// An upstream that allows few connections is used with those, and is not
// pestered for more.
func TestFewConnections(t *testing.T) {
	t.Parallel()
	const rate = 2_000_000
	data := random(24, 48*mib)
	in := ingest(t, newTestStore(t), data)
	o := &origin{files: map[string][]byte{"/f": data}}
	var mu sync.Mutex
	refused := 0
	o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		o.mu.Lock()
		busy := o.busy
		o.mu.Unlock()
		if busy <= 3 {
			return w
		}
		mu.Lock()
		refused++
		mu.Unlock()
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}
	alone := time.Duration(len(data)) * time.Second / rate
	inBubble(t, Options{}, o, func(int) int { return rate }, func(t *testing.T, c *Client) {
		if d := landTimed(t, c, in, data, upstreamURL); d > alone*2/5 {
			t.Errorf("3 connections took %v, one takes %v", d, alone)
		}
	})
	commit(t, in)
	if refused > 40 {
		t.Errorf("upstream had to refuse %d times", refused)
	}
}

// An outage in the middle of a file is sat out, and all connections come back.
func TestOutage(t *testing.T) {
	t.Parallel()
	const rate = 5_000_000
	data := random(25, 48*mib)
	in := ingest(t, newTestStore(t), data)
	o := &origin{files: map[string][]byte{"/f": data}}
	var begun time.Time
	o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		if n == 1 {
			begun = time.Now()
		}
		if d := time.Since(begun); d > time.Second && d < 4*time.Second {
			panic(http.ErrAbortHandler)
		}
		return w
	}
	inBubble(t, Options{}, o, func(int) int { return rate }, func(t *testing.T, c *Client) {
		// 1.3 s of transfer and 3 s of outage.
		if d := landTimed(t, c, in, data, upstreamURL); d > 9*time.Second {
			t.Errorf("it took %v", d)
		}
	})
	commit(t, in)
}

// While a large file is under way a small one gets its turn at once.
func TestSmallBesideLarge(t *testing.T) {
	t.Parallel()
	const rate = 1_000_000
	large, small := random(26, 64*mib), random(27, 1000)
	s := newTestStore(t)
	inLarge, inSmall := ingest(t, s, large), ingest(t, s, small)
	o := &origin{files: map[string][]byte{"/f": large, "/small": small}}
	inBubble(t, Options{}, o, func(int) int { return rate }, func(t *testing.T, c *Client) {
		done := make(chan time.Duration)
		go func() { done <- landTimed(t, c, inLarge, large, upstreamURL) }()
		time.Sleep(time.Second)
		// All connections are taken: the first that ends its piece, of 4 MiB
		// or less, changes over.
		if d := landTimed(t, c, inSmall, small, "http://upstream/small"); d > 4*time.Second {
			t.Errorf("the small file took %v", d)
		}
		alone := time.Duration(len(large)) * time.Second / rate
		if d := <-done; d > alone/6 {
			t.Errorf("the large file took %v, over one connection it is %v", d, alone)
		}
	})
	commit(t, inSmall)
	commit(t, inLarge)
}

// A document that drips in for ever is given up in the end.
func TestDocumentThatDrips(t *testing.T) {
	requests := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Content-Length", "100000")
		for r.Context().Err() == nil {
			w.Write([]byte("x"))
			http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Second)
		}
	})
	for _, tt := range []struct{ given, want time.Duration }{{0, 10 * time.Minute}, {time.Minute, time.Minute}} {
		requests = 0
		inBubble(t, Options{DocumentTimeout: tt.given}, h, nil, func(t *testing.T, c *Client) {
			start := time.Now()
			_, err := c.Document(t.Context(), upstreamURL, Validators{}, 1_000_000)
			want := fmt.Sprintf("cannot fetch http://upstream/f: the document did not arrive within %v", tt.want)
			if _, upstream := errors.AsType[*FetchError](err); !upstream || err.Error() != want {
				t.Errorf("error %v\nwant  %s", err, want)
			}
			if d := time.Since(start); d != tt.want || requests != 1 {
				t.Errorf("given up after %v and %d requests, want %v and 1", d, requests, tt.want)
			}
		})
	}
}

// The body of an answer that is not wanted costs no more than a moment.
func TestUnwantedBodyThatDrips(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10000")
		w.WriteHeader(http.StatusNotFound)
		for r.Context().Err() == nil {
			w.Write([]byte("x"))
			http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	inBubble(t, Options{}, h, nil, func(t *testing.T, c *Client) {
		start := time.Now()
		_, err := c.Document(t.Context(), upstreamURL, Validators{}, 100)
		if d := time.Since(start); !errors.Is(err, ErrNotFound) || d > time.Second {
			t.Errorf("%v after %v", err, d)
		}
	})
}
