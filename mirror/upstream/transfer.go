package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"oxbow/cache"
)

// A transfer brings what an ingest lacks of a file from one URL.
//
// One goroutine, the lead, sees it through: it makes the first request, and
// tries again when something fails. Once upstream has shown that it answers
// ranges, helpers fetch pieces too, as far as the client has connections that
// nothing else needs. A helper that fails hands its piece back and ends; so
// an upstream that allows only a few connections is used with those.
type transfer struct {
	c      *Client
	source *url.URL
	in     *cache.Ingest
	size   int64
	whole  bool        // ask for no ranges: the file comes from its start, over one connection
	landed func(int64) // told of bytes written, by several goroutines at once

	wanted func() (off int64, ok bool) // where somebody who reads the bytes as they land waits; nil: nobody does
	pieces *pieces

	helpers sync.WaitGroup
	abort   context.CancelCauseFunc

	mu       sync.Mutex // guards the rest
	entity   *entity    // nil until an answer brought content
	answers  int        // that brought content
	helping  int        // helpers there are
	setbacks int        // of helpers, in a row
	recruits time.Time  // no new helpers before
	failure  error      // of a helper, that ends the transfer
}

// An entity is what upstream's answers have to agree on.
type entity struct {
	validators Validators
	ranges     bool     // upstream answers ranges
	url        *url.URL // where it answers, after redirects
}

// A doubt is a reason why what has landed may not be of one content, or not
// where it belongs. A file fetched whole, once more, settles it.
type doubt struct{ reason error }

func (d *doubt) Error() string { return d.reason.Error() }
func (d *doubt) Unwrap() error { return d.reason }

var (
	errChanged = errors.New("upstream changed the file while it was fetched")
	errRange   = errors.New("upstream does not answer ranges as it should")
)

// wrongSize is the doubt of an answer that declares n bytes for the file.
func (t *transfer) wrongSize(n string) error {
	return &doubt{fmt.Errorf("%w: want %d bytes, upstream has %s", cache.ErrCorrupt, t.size, n)}
}

// A localError is a failure on our side: no other upstream can help.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// run returns when every missing byte has landed. Its error is a
// [*FetchError], a doubt, a localError or the context's.
func (t *transfer) run(ctx context.Context) error {
	slow := slowPiece
	if t.wanted != nil {
		slow = slowFollowed
	}
	t.pieces = newPieces(t.in.Missing(), slow)
	helperCtx, cancel := context.WithCancelCause(ctx)
	t.abort = cancel
	err := t.lead(helperCtx)
	cancel(nil)
	t.helpers.Wait()
	if t.failure != nil {
		return t.failure
	}
	return err
}

func (t *transfer) lead(ctx context.Context) error {
	failures, before := 0, int64(0)
	for {
		p, err := t.next(ctx, urgent)
		if p == nil {
			return err
		}
		err = t.fetch(ctx, p)
		t.done(p)
		if err == nil {
			failures = 0
			t.recruit(ctx)
			continue
		}
		if final(err) {
			return err
		}
		if now := t.pieces.progress(); now > before {
			failures, before = 0, now
		}
		failures++
		if err := t.c.retry(ctx, t.source, failures, err); err != nil {
			return err
		}
	}
}

// final reports whether err ends the transfer, retries or not.
func final(err error) bool {
	_, doubtful := errors.AsType[*doubt](err)
	_, local := errors.AsType[*localError](err)
	return doubtful || local
}

// next waits for a place in the client's gate and claims a piece. It returns
// nil when there is nothing left to fetch.
func (t *transfer) next(ctx context.Context, how patience) (*piece, error) {
	for {
		outlook, changed := t.pieces.look(time.Now())
		switch outlook {
		case allHere:
			return nil, nil
		case allClaimed:
			if err := wait(ctx, changed, shareAfter); err != nil {
				return nil, t.interrupted(err)
			}
			continue
		}
		if err := t.c.gate.enter(ctx, how); err != nil {
			return nil, t.interrupted(err)
		}
		idle := 0
		if !t.whole {
			idle = t.c.gate.idle()
		}
		if p := t.pieces.claim(time.Now(), idle, t.start()); p != nil {
			return p, nil
		}
		t.c.gate.leave()
	}
}

// start returns where the next piece should begin. Before upstream has shown that it
// answers ranges, that is the first: an answer may be the whole file.
func (t *transfer) start() int64 {
	if t.wanted == nil || !t.known().ranges {
		return 0
	}
	off, _ := t.wanted()
	return off
}

func (t *transfer) interrupted(err error) error {
	return fmt.Errorf("cannot fetch %s: %w", Display(t.source), err)
}

// wait returns when c is closed, if it is not nil, or after d.
func wait(ctx context.Context, c <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// done hands back what is left of p, and the place in the gate.
func (t *transfer) done(p *piece) {
	t.c.gate.leave()
	t.pieces.giveBack(p)
}

// recruit starts helpers, one for each connection that has something to do.
// After a setback it starts one: when that gets its answer the next follows.
func (t *transfer) recruit(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entity == nil || !t.entity.ranges || time.Now().Before(t.recruits) {
		return
	}
	n := min(t.c.opts.Connections-1, t.pieces.room()) - t.helping
	if t.setbacks > 0 {
		n = min(n, 1)
	}
	for range n {
		t.helping++
		t.helpers.Go(func() { t.help(ctx) })
	}
}

func (t *transfer) help(ctx context.Context) {
	for {
		p, err := t.next(ctx, patient)
		if p == nil {
			t.retire(ctx, err)
			return
		}
		err = t.fetch(ctx, p)
		t.done(p)
		if err != nil {
			t.retire(ctx, err)
			return
		}
	}
}

// retire takes note of how a helper ended. Failures at the same time count as one.
func (t *transfer) retire(ctx context.Context, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.helping--
	if err == nil || ctx.Err() != nil {
		return
	}
	if final(err) {
		t.failure = err
		t.abort(err)
		return
	}
	now := time.Now()
	if now.Before(t.recruits) {
		return
	}
	t.setbacks++
	pause := t.c.opts.Backoff.after(t.setbacks, err)
	t.recruits = now.Add(pause)
	t.c.opts.Log.Debug("a connection fails, going on with fewer", "url", Display(t.source), "reason", err, "pause", pause)
}

// fetch makes one request for p and lands what it brings.
func (t *transfer) fetch(ctx context.Context, p *piece) error {
	off, end := t.pieces.bounds(p)
	known := t.known()
	header := http.Header{}
	if !t.whole && end-off < t.size {
		header.Set("Range", "bytes="+strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(end-1, 10))
		if etag := known.validators.strong(); etag != "" {
			header.Set("If-Range", etag)
		}
	}
	a, err := t.c.get(ctx, known.url, header)
	if err != nil {
		return t.elsewhere(known.url, err)
	}
	defer a.body.Close()
	switch ranged := header.Get("Range") != ""; {
	case a.StatusCode == http.StatusOK:
		return t.fromStart(ctx, a, p)
	case a.StatusCode == http.StatusPartialContent && ranged:
		return t.part(ctx, a, p, contentRange{off, end - 1, t.size})
	case a.StatusCode == http.StatusRequestedRangeNotSatisfiable && ranged:
		if r, ok := parseContentRange(a.Header.Get("Content-Range")); ok && r.total != t.size {
			return t.wrongSize(strconv.FormatInt(r.total, 10))
		}
		return &doubt{errRange}
	}
	return t.elsewhere(known.url, statusError(a))
}

// known returns what is known of the file upstream.
func (t *transfer) known() entity {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entity == nil {
		return entity{url: t.source}
	}
	return *t.entity
}

// elsewhere returns err, of a request to u. If u is where the source
// redirected to before, the next request asks the source again, whatever the
// error.
func (t *transfer) elsewhere(u *url.URL, err error) error {
	if u == t.source {
		return err
	}
	t.mu.Lock()
	t.entity.url = t.source
	t.mu.Unlock()
	return fmt.Errorf("redirected to %s: %v", Display(u), err)
}

// agree compares an answer with those before it.
func (t *transfer) agree(a *answer, ranges bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := validatorsOf(a.Header)
	if t.entity != nil && t.entity.validators.contradicts(v) {
		return &doubt{errChanged}
	}
	if t.entity != nil && t.entity.ranges && !ranges {
		return &doubt{errRange}
	}
	t.entity = &entity{validators: v, ranges: ranges, url: a.url}
	t.answers++
	return nil
}

// fromStart lands an answer that is the whole file: p and everything else
// that is missing. What is there already is passed over.
func (t *transfer) fromStart(ctx context.Context, a *answer, p *piece) error {
	if a.ContentLength >= 0 && a.ContentLength != t.size {
		return t.wrongSize(strconv.FormatInt(a.ContentLength, 10))
	}
	if err := t.agree(a, false); err != nil {
		return err
	}
	pos, err := t.land(a.body, 0, p, t.size)
	for err == nil {
		more := t.pieces.next(time.Now())
		if more == nil {
			break
		}
		pos, err = t.land(a.body, pos, more, t.size)
		t.pieces.giveBack(more)
	}
	if err == nil && pos == t.size && a.ContentLength < 0 {
		if n, _ := a.body.Read(make([]byte, 1)); n > 0 {
			return t.wrongSize("more")
		}
	}
	return err
}

// minPart is the least that an answer may bring of a longer range. By less a
// file would come in requests without end.
const minPart = 64 << 10

// part lands an answer that is the asked range of the file, or its beginning.
func (t *transfer) part(ctx context.Context, a *answer, p *piece, asked contentRange) error {
	got, ok := parseContentRange(a.Header.Get("Content-Range"))
	if ok && got.total >= 0 && got.total != t.size {
		return t.wrongSize(strconv.FormatInt(got.total, 10))
	}
	length := got.last - got.first + 1
	short := got.last < asked.last && length < minPart
	if !ok || got.first != asked.first || got.last > asked.last || short || a.ContentLength >= 0 && a.ContentLength != length {
		return &doubt{errRange}
	}
	if err := t.agree(a, true); err != nil {
		return err
	}
	t.recruit(ctx)
	_, err := t.land(a.body, got.first, p, got.last+1)
	return err
}

// land writes the bytes of p, up to offset end of the file, from a body that
// is at offset pos. It returns the offset that the body is at then.
func (t *transfer) land(b *body, pos int64, p *piece, end int64) (int64, error) {
	buf := t.c.buffers.Get().(*[]byte)
	defer t.c.buffers.Put(buf)
	for {
		from, to := t.pieces.bounds(p)
		to = min(to, end)
		if from >= to {
			return pos, nil
		}
		if pos < from {
			to = from // what is there already
		}
		take := b.fill
		if t.wanted != nil {
			take = b.Read // what is here must not wait for what is not
		}
		n, err := take((*buf)[:min(to-pos, bufferSize)])
		if pos == from {
			if err := t.write((*buf)[:n], p); err != nil {
				return pos, err
			}
		}
		pos += int64(n)
		if err == io.EOF {
			err = errClosed
		}
		if err != nil && pos < to {
			return pos, err
		}
	}
}

// write puts what has arrived of p into the ingest.
func (t *transfer) write(data []byte, p *piece) error {
	off, n := t.pieces.take(p, len(data))
	if n == 0 {
		return nil
	}
	if _, err := t.in.WriteAt(data[:n], off); err != nil {
		return &localError{fmt.Errorf("cannot store %s: %w", Display(t.source), err)}
	}
	t.landed(int64(n))
	return nil
}
