package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"oxbow/cache"
)

// FetchOptions are the wishes of one [Client.Fetch]. The zero value is good.
type FetchOptions struct {
	// Progress, if not nil, is told of every n bytes that landed on disk, by
	// several goroutines at once. When a file is begun anew, n is negative:
	// minus what had landed, with what an earlier run left. So all n of a
	// Fetch that succeeds add up to what was missing before it.
	Progress func(n int64)

	// Next, if not nil, returns where a reader waits for bytes, and whether one does:
	// these are fetched first, where upstream answers ranges.
	Next func() (off int64, ok bool)

	// Corrupt, if not nil, is told of each source that turned out to deliver something
	// else than what is wanted.
	Corrupt func(err error)
}

// Fetch brings what in lacks of a file of size bytes, and commits it. Sources
// are URLs of the same content, tried in order; a large file comes in ranges
// over several connections where upstream answers them.
//
// Content that does not match is no proof against upstream when it was put
// together from ranges, of an earlier run or of several sources: then it is
// fetched once more, whole, from one source. If that does not match either,
// the source is corrupt and the next one has its turn.
//
// Errors are a [*FetchError] when no source delivers (cache.ErrCorrupt when
// one delivers something else, ErrNotFound when all say so), else the
// context's or the store's, such as cache.ErrNoSpace. After an error in keeps
// what has landed, unless it is known to be bad.
func (c *Client) Fetch(ctx context.Context, sources []string, in *cache.Ingest, size int64, o FetchOptions) (cache.Blob, error) {
	if size < 0 {
		return cache.Blob{}, errors.New("cannot fetch a file of unknown size")
	}
	f := &fetching{c: c, in: in, size: size, report: o.Progress, corrupt: o.Corrupt, next: o.Next}
	f.held.Store(size)
	for _, e := range in.Missing() {
		f.held.Add(-e.Len)
	}
	f.mixed = f.held.Load() > 0
	var failures sourcesError
	for _, source := range sources {
		blob, err := f.from(ctx, source)
		if err == nil {
			return blob, nil
		}
		if _, ok := errors.AsType[*FetchError](err); !ok {
			return cache.Blob{}, err
		}
		failures = append(failures, err)
	}
	if err := f.clean(); err != nil {
		return cache.Blob{}, err
	}
	switch len(failures) {
	case 0:
		return cache.Blob{}, errNoSource
	case 1:
		return cache.Blob{}, failures[0]
	}
	return cache.Blob{}, failures
}

var errNoSource = errors.New("cannot fetch a file that has no source")

// fetching is one call of Fetch.
type fetching struct {
	c       *Client
	in      *cache.Ingest
	size    int64
	report  func(int64)
	corrupt func(error)

	next  func() (off int64, ok bool) // of FetchOptions
	held  atomic.Int64                // bytes that in has
	mixed bool                        // what in has is not all of one answer
	bad   bool                        // what in has is of no use
}

// from fetches from one source, the second time whole where the first leaves
// doubts.
func (f *fetching) from(ctx context.Context, rawURL string) (cache.Blob, error) {
	u, err := parseURL(rawURL)
	if err != nil {
		return cache.Blob{}, err
	}
	t := &transfer{c: f.c, source: u, in: f.in, size: f.size, landed: f.land, wanted: f.next}
	blob, err := f.try(ctx, t)
	if !doubtful(err) || errors.Is(err, cache.ErrCorrupt) && !f.mixed && t.answers == 1 {
		f.mixed = f.mixed || t.answers > 0
		return blob, f.blame(t, 1, err)
	}
	f.c.opts.Log.Warn("what was fetched is in doubt, fetching it whole", "url", Display(u), "reason", err)
	t = &transfer{c: f.c, source: u, in: f.in, size: f.size, landed: f.land, wanted: f.next, whole: true}
	blob, err = f.try(ctx, t)
	return blob, f.blame(t, 2, err)
}

// try runs a transfer and commits what it brought.
func (f *fetching) try(ctx context.Context, t *transfer) (cache.Blob, error) {
	if err := f.clean(); err != nil {
		return cache.Blob{}, err
	}
	err := t.run(ctx)
	var blob cache.Blob
	if err == nil {
		blob, err = f.in.Commit(ctx)
	}
	f.bad = doubtful(err)
	return blob, err
}

// doubtful reports whether err means that what the ingest has is of no use.
func doubtful(err error) bool {
	_, ok := errors.AsType[*doubt](err)
	return ok || errors.Is(err, cache.ErrCorrupt)
}

// blame makes an error of t one of upstream, if it is upstream's.
func (f *fetching) blame(t *transfer, attempts int, err error) error {
	if !doubtful(err) {
		return err
	}
	if mismatch, ok := errors.AsType[*cache.MismatchError](err); ok {
		err = mismatch
	}
	blamed := &FetchError{URL: Display(t.source), Attempts: attempts, Err: err}
	if f.corrupt != nil && errors.Is(err, cache.ErrCorrupt) {
		f.corrupt(blamed)
	}
	return blamed
}

// clean throws away what in has if it is of no use.
func (f *fetching) clean() error {
	if !f.bad {
		return nil
	}
	if err := f.in.Reset(); err != nil {
		return fmt.Errorf("cannot begin a file anew: %w", err)
	}
	f.bad, f.mixed = false, false
	f.land(-f.held.Load())
	return nil
}

func (f *fetching) land(n int64) {
	f.held.Add(n)
	if f.report != nil {
		f.report(n)
	}
}
