package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sized answers with as many bytes as the path says.
var sized = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Path[1:])
	w.Header().Set("Content-Length", strconv.Itoa(n))
	w.Write(make([]byte, n))
})

// A limit holds over all connections at once, from one byte a second on, and is used
// up: what comes takes as long as the limit says. What is not limited is not held up
// by it, though every connection of the limited client is busy.
func TestLimit(t *testing.T) {
	for _, tt := range []struct {
		limit        int64
		size, copies int
		want         time.Duration
	}{
		{1, 10, 1, 9 * time.Second},
		{1000, 10_000, 4, 40 * time.Second},
		{1_000_000, 3_000_000, 20, time.Minute},
		{0, 3_000_000, 20, 0},
	} {
		inBubble(t, Options{Connections: 3}, sized, nil, func(t *testing.T, c *Client) {
			limited := c.Limited(tt.limit)
			start := time.Now()
			var all sync.WaitGroup
			for range tt.copies {
				all.Go(func() {
					if _, err := limited.Document(t.Context(), "http://upstream/"+strconv.Itoa(tt.size), Validators{}, 1<<30); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if _, err := c.Document(t.Context(), "http://upstream/100", Validators{}, 100); err != nil || time.Since(start) != 0 {
				t.Errorf("without limit: %v, after %v", err, time.Since(start))
			}
			all.Wait()
			d := time.Since(start)
			if d < tt.want-tt.want/50 || d > tt.want+tt.want/50 {
				t.Errorf("%d times %d bytes at %d a second took %v, want %v", tt.copies, tt.size, tt.limit, d, tt.want)
			}
		})
	}
}

// One stream's upstream that trickles into every connection holds up no other stream.
func TestLimitedApart(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/trickles" {
			<-r.Context().Done()
		}
	})
	inBubble(t, Options{Connections: 2}, h, nil, func(t *testing.T, c *Client) {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		trickles := c.Limited(0)
		for range 2 {
			all.Go(func() { _, _ = trickles.Document(ctx, "http://upstream/trickles", Validators{}, 100) })
		}
		synctest.Wait()
		start := time.Now()
		if _, err := c.Limited(0).Document(t.Context(), "http://upstream/", Validators{}, 100); err != nil || time.Since(start) != 0 {
			t.Errorf("the other stream: %v, after %v", err, time.Since(start))
		}
		cancel()
		all.Wait()
	})
}

// No time-out of upstream runs while we wait for our own limit: a document may take
// longer than it would be given, and bytes may come slower than a stall.
func TestLimitIsNoFault(t *testing.T) {
	o := Options{DocumentTimeout: 2 * time.Second, StallTimeout: 500 * time.Millisecond, Attempts: 1}
	inBubble(t, o, sized, nil, func(t *testing.T, c *Client) {
		start := time.Now()
		if _, err := c.Limited(1).Document(t.Context(), "http://upstream/10", Validators{}, 100); err != nil || time.Since(start) < 8*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// What upstream itself takes still counts: a limit does not keep a document alive
// that drips.
func TestLimitedDocumentThatDrips(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		for r.Context().Err() == nil {
			w.Write([]byte("xx"))
			http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Second)
		}
	})
	inBubble(t, Options{DocumentTimeout: time.Minute}, h, nil, func(t *testing.T, c *Client) {
		start := time.Now()
		_, err := c.Limited(1).Document(t.Context(), upstreamURL, Validators{}, 1_000_000)
		// Some 12 waits of a second for the limit, in a minute of 10 s each.
		if d := time.Since(start); !errors.Is(err, ErrUpstream) || d < time.Minute || d > 80*time.Second {
			t.Errorf("%v after %v", err, d)
		}
	})
}

// The end of a context ends the wait for the limit at once, and what has arrived is
// not lost.
func TestLimitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		from, to := io.Pipe()
		b := newBody(ctx, cancel, from, time.Hour, NewLimit(100))
		go to.Write(make([]byte, 1000))
		time.AfterFunc(250*time.Millisecond, func() { cancel(stop) })
		start := time.Now()
		n, err := io.ReadFull(b, make([]byte, 1000))
		if err != stop || n != 40 || time.Since(start) != 250*time.Millisecond {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(start))
		}
		b.Close()
	})
}
