package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tunnelIdle  = 10 * time.Minute // TLS connections are kept for reuse
	drainedIdle = 2 * time.Second  // once the server is told to end
)

var errIdleTunnel = errors.New("nothing came through the tunnel any more")

// A tunnel carries bytes between a client and a far host until both have ended or nothing
// comes any more. It knows nothing of what they say.
type tunnel struct {
	far      net.Conn
	idle     time.Duration
	draining *atomic.Bool // of the server
	metrics  *Metrics

	bytes atomic.Int64 // carried, both ways
	err   error        // why it was cut
}

// run carries bytes until the tunnel ends, or ctx does, and closes both ends.
func (t *tunnel) run(ctx context.Context, near net.Conn) {
	t.metrics.tunnels(1)
	defer t.metrics.tunnels(-1)
	ended := make(chan struct{})
	var ways, watch sync.WaitGroup
	watch.Go(func() {
		t.err = t.watch(ctx, ended)
		near.Close()
		t.far.Close()
	})
	ways.Go(func() { t.carry(t.far, near) })
	ways.Go(func() { t.carry(near, t.far) })
	ways.Wait()
	close(ended)
	watch.Wait()
}

// watch returns when the tunnel has ended, with nil, or why it has to.
func (t *tunnel) watch(ctx context.Context, ended <-chan struct{}) error {
	tick := time.NewTicker(min(time.Second, t.idle))
	defer tick.Stop()
	seen, since := int64(0), time.Now()
	for {
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			limit := t.idle
			if t.draining.Load() {
				limit = min(limit, drainedIdle)
			}
			if carried := t.bytes.Load(); carried != seen {
				seen, since = carried, now
			} else if now.Sub(since) >= limit {
				return errIdleTunnel
			}
		}
	}
}

// carry copies one way. The end of what comes is passed on, a failure ends the tunnel.
func (t *tunnel) carry(to, from net.Conn) {
	_, err := io.Copy(carrier{t, to}, onlyReader{from})
	half, ok := to.(interface{ CloseWrite() error })
	if err == nil && ok && half.CloseWrite() == nil {
		return
	}
	to.Close()
	from.Close()
}

// A carrier tells how much came through while it comes.
type carrier struct {
	t *tunnel
	w io.Writer
}

func (c carrier) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.t.bytes.Add(int64(n))
	c.t.metrics.carried(n)
	return n, err
}

// onlyReader hides that a connection can write itself to a writer, which would not count
// on the way.
type onlyReader struct{ io.Reader }

// hijackable is a reply whose connection can be taken over, with what the client has sent
// on it too early: goproxy does not look for that.
type hijackable struct{ *reply }

func (w hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return &replayed{Conn: c, early: bytes.NewReader(early)}, rw, nil
}

// A replayed connection gives what was read of it too early once more.
type replayed struct {
	net.Conn
	early *bytes.Reader
}

func (c *replayed) Read(p []byte) (int, error) {
	if c.early.Len() > 0 {
		return c.early.Read(p)
	}
	return c.Conn.Read(p)
}

func (c *replayed) CloseWrite() error {
	if half, ok := c.Conn.(halfCloser); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// waitForNone waits until there are no tunnels, or ctx ends.
func waitForNone(ctx context.Context, tunnels *atomic.Int64) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for tunnels.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
