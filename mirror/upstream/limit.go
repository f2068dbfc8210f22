package upstream

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// Limited returns a client that shares the transport of c and takes at most that
// many bytes a second from upstream, documents and files together; 0 is no limit.
// Its connections are counted apart: those of a stream that is limited, or of an
// upstream that trickles, are held for hours, and no other stream must wait for them.
func (c *Client) Limited(bytesPerSecond int64) *Client { return c.Within(NewLimit(bytesPerSecond)) }

// Within is Limited with a limit that others may share; nil is none.
func (c *Client) Within(l *rate.Limiter) *Client {
	limited := newClient(c.opts, c.transport)
	limited.limit = l
	return limited
}

// Trying returns a client that makes this many attempts, or as many as c if that makes fewer. Its limit is that of c, and its
// connections are counted apart.
func (c *Client) Trying(attempts int) *Client {
	hasty := c.Within(c.limit)
	hasty.opts.Attempts = min(c.opts.Attempts, attempts)
	return hasty
}

// NewLimit returns  a limit that lets a tenth of a second pass at once: so reads stay
// large, and what comes too early at the start soon does not count. That of 0 is nil.
func NewLimit(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(bytesPerSecond/10, 1)))
}

// pace waits until n bytes that have arrived are within the limit. Meanwhile
// upstream's next ones fill the connection's buffers, and then wait, too.
func (b *body) pace(n int) error {
	if b.limit == nil || n == 0 {
		return nil
	}
	// Wait would refuse at once what a deadline of the context comes before.
	delay := b.limit.ReserveN(time.Now(), n).Delay()
	if delay == 0 {
		return nil
	}
	b.allowed.pause()
	defer b.allowed.resume()
	return wait(b.ctx, nil, delay)
}

// An allowance is the time that a request may take. What it waits for our own limit
// takes none of it. A nil allowance is without end.
type allowance struct {
	timer *time.Timer
	left  time.Duration // when it was last resumed
	since time.Time     // when that was
}

// allow ends a request by cancel, with cause, after d.
func allow(d time.Duration, cancel context.CancelCauseFunc, cause error) *allowance {
	return &allowance{timer: time.AfterFunc(d, func() { cancel(cause) }), left: d, since: time.Now()}
}

func (a *allowance) pause() {
	if a != nil && a.timer.Stop() {
		a.left -= time.Since(a.since)
	}
}

func (a *allowance) resume() {
	if a != nil {
		a.since = time.Now()
		a.timer.Reset(max(a.left, 0))
	}
}

func (a *allowance) end() { a.timer.Stop() }
