package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// A body is the body of a response. Every byte from upstream passes its Read.
type body struct {
	from   io.ReadCloser
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer // runs while Read waits, and then ends the request

	limit   *rate.Limiter // nil: none
	allowed *allowance    // for the whole transfer; nil: without end
}

// newBody returns the body of a response whose request ends by cancel.
func newBody(ctx context.Context, cancel context.CancelCauseFunc, from io.ReadCloser, stall time.Duration, limit *rate.Limiter) *body {
	b := &body{from: from, ctx: ctx, cancel: cancel, stall: stall, limit: limit}
	b.timer = time.AfterFunc(stall, func() { cancel(fmt.Errorf("no byte arrived for %v", stall)) })
	b.timer.Stop()
	return b
}

// Read fails when no byte arrives within the stall time-out, which does not run
// while it waits for the limit.
func (b *body) Read(p []byte) (int, error) {
	if b.limit != nil {
		p = p[:min(len(p), b.limit.Burst())]
	}
	b.timer.Reset(b.stall)
	n, err := b.from.Read(p)
	b.timer.Stop()
	if err := b.pace(n); err != nil {
		return n, err
	}
	if err != nil && err != io.EOF {
		err = closed(err)
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// closed returns err in words for people where it is a bare EOF.
func closed(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errClosed
	}
	return err
}

// Close ends the response. Its connection is kept if all was read.
func (b *body) Close() error {
	err := b.from.Close()
	b.timer.Stop()
	b.cancel(nil)
	return err
}

// drain reads the rest of a short body that nobody needs, so that its
// connection can be used again, and closes it. A body that is longer, or does
// not end within drainTime, is not worth the wait: its connection is closed.
func (b *body) drain() {
	timer := time.AfterFunc(drainTime, func() { b.cancel(errDrain) })
	io.CopyN(io.Discard, b, 16<<10)
	timer.Stop()
	b.Close()
}

const drainTime = time.Second

// fill reads into p until it is full, the body ends or upstream is slower
// than we are: a file that trickles in is to be passed on as it comes.
func (b *body) fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		before := time.Now()
		m, err = b.Read(p[n:])
		n += m
		if time.Since(before) > slowRead {
			break
		}
	}
	return n, err
}

const slowRead = 20 * time.Millisecond

var (
	errClosed = errors.New("upstream closed the connection")
	errDrain  = errors.New("the rest is not needed")
)
