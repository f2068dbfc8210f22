package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// A Puller brings the bytes of a path that a snapshot of the stream knows into an
// ingest, and commits it: [mirror.Mirror.Pull].
type Puller func(ctx context.Context, stream, path string, in *cache.Ingest, o upstream.FetchOptions) (cache.Blob, error)

const (
	// fillPatience is how long a fill goes on trying without a new byte, once it has
	// brought any. Clients wait for as long: MAAS for two minutes.
	fillPatience = 2 * time.Minute

	// fillPause is the wait between tries, each of which has its own tries inside.
	fillPause = 2 * time.Second
)

// fills are the misses under way: one of each content, whatever the paths and
// streams. They belong to the server, not to the requests that began them.
type fills struct {
	store   *cache.Store
	pull    Puller
	log     *slog.Logger
	metrics *Metrics

	ctx  context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu  sync.Mutex // guards all
	all map[cache.Digest]*fill
}

func newFills(s *Server, pull Puller) *fills {
	f := &fills{store: s.store, pull: pull, log: s.log, metrics: s.metrics, all: map[cache.Digest]*fill{}}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// close ends every fill. What has landed is kept, for the next to go on with.
func (fs *fills) close() {
	fs.end()
	fs.work.Wait()
}

// join returns the fill of an entry, which it begins if there is none, and whether
// another request began it.
func (fs *fills) join(stream string, e cache.Entry) (f *fill, collapsed bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.all[e.Digest]; f != nil {
		return f, true
	}
	f = &fill{fills: fs, stream: stream, entry: e, changed: make(chan struct{}), waiting: map[*follower]int64{}}
	fs.all[e.Digest] = f
	fs.metrics.fillBegins()
	fs.work.Go(func() { f.run(fs.ctx) })
	return f, false
}

func (fs *fills) remove(d cache.Digest) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.all, d)
}

// A fill brings one content from upstream. Followers read what has come so far.
type fill struct {
	*fills
	stream string
	entry  cache.Entry

	mu      sync.Mutex    // guards the rest
	in      *cache.Ingest // nil: not begun
	landed  int64         // bytes that this fill brought
	last    time.Time     // when the last of them did
	anew    int           // how often the bytes were dropped and begun anew
	proven  bool          // the content is what it should be, if not durable yet
	ended   bool
	err     error               // after the end; nil: the content is proven, and here
	changed chan struct{}       // closed when any of this changes
	waiting map[*follower]int64 // where followers wait for bytes
}

// run brings the content, or finds out that it cannot be had.
func (f *fill) run(ctx context.Context) {
	began := time.Now()
	done := cache.Step(f.log, "fill", "stream", f.stream, "path", f.entry.Path)
	err := f.bring(ctx)
	done()
	f.remove(f.entry.Digest) // who comes now finds it in the store, or tries anew
	f.change(func() { f.ended, f.err = true, err })
	f.metrics.fillEnds(f.stream, err, f.landed)
	attrs := []any{"stream", f.stream, "path", f.entry.Path, "digest", f.entry.Digest.String(), "bytes", f.landed, "seconds", time.Since(began).Seconds()}
	switch {
	case err == nil:
		f.log.Info("filled", attrs...)
	case ctx.Err() != nil:
		f.log.Info("a fill was interrupted", attrs...)
	default:
		f.log.Warn("a fill failed", append(attrs, "reason", err)...)
	}
}

// bring tries until the content is here or trying is no use any more. It keeps one ingest
// for all of that: what has landed of a small file goes with its ingest.
func (f *fill) bring(ctx context.Context) error {
	begin := f.store.BeginPull
	if f.entry.Kind != cache.KindKnown { // a snapshot needs it: it was damaged
		begin = f.store.Begin
	}
	in, err := begin(ctx, cache.Want{SHA256: f.entry.Digest, Size: f.entry.Size})
	if errors.Is(err, cache.ErrExists) {
		return f.store.Flush(ctx) // it may have come a moment ago
	}
	if err != nil {
		return err
	}
	defer in.Close()
	in.WhenProven(func() { f.change(func() { f.proven = true }) })
	f.change(func() { f.in = in })
	for {
		_, err := f.pull(ctx, f.stream, f.entry.Path, in, upstream.FetchOptions{Progress: f.progress, Next: f.next, Corrupt: f.corrupt})
		if err == nil {
			return f.store.Flush(ctx)
		}
		if !f.again(ctx, err) {
			return err
		}
		f.log.Warn("a fill stands still, and is tried again", "stream", f.stream, "path", f.entry.Path, "reason", err)
		select {
		case <-time.After(fillPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// again reports whether another try may help those who follow: upstream was there and
// went away. One that was not there at all is told of at once, and one of which bytes had
// to be dropped may go on for ever.
func (f *fill) again(ctx context.Context, err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ctx.Err() == nil && errors.Is(err, upstream.ErrUpstream) && !errors.Is(err, cache.ErrCorrupt) &&
		f.anew == 0 && f.landed > 0 && time.Since(f.last) < fillPatience
}

// change changes the fill and wakes who waits.
func (f *fill) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// progress is told of n bytes that landed; n is negative when all were dropped.
func (f *fill) progress(n int64) {
	f.change(func() {
		if n < 0 {
			f.anew++
			return
		}
		f.landed += n
		f.last = time.Now()
	})
}

// next returns where a follower waits for bytes that are not here.
func (f *fill) next() (off int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.waiting {
		if !ok || at < off {
			off, ok = at, true
		}
	}
	return off, ok
}

// corrupt is told of a source that delivers something else.
func (f *fill) corrupt(err error) {
	f.metrics.Damaged(f.stream)
	f.log.Error("integrity: upstream delivers something else than its metadata says", "stream", f.stream, "path", f.entry.Path,
		"digest", f.entry.Digest.String(), "reason", err)
}

var (
	// errAnew: bytes were sent that turned out to be wrong, or may be.
	errAnew = errors.New("the bytes were begun anew")
	errFill = errors.New("the fill failed")
)

// ahead returns how many bytes are here from off on, waiting for the first of them;
// all the rest once the content is proven. anew is how often the bytes had been begun
// anew when the caller began to read.
func (f *fill) ahead(ctx context.Context, r *follower, off int64, anew int) (int64, error) {
	return f.await(ctx, r, off, anew, func(in *cache.Ingest) int64 { return in.Ahead(off) })
}

// await waits until the content is proven, or here finds bytes from off on.
func (f *fill) await(ctx context.Context, r *follower, off int64, anew int, here func(*cache.Ingest) int64) (int64, error) {
	defer f.waits(r, -1)
	for {
		f.mu.Lock()
		in, changed, proven, err := f.in, f.changed, f.proven || f.ended && f.err == nil, error(nil)
		switch {
		case f.anew != anew:
			err = errAnew // also when what came since is proven
		case f.ended && !proven:
			err = fmt.Errorf("%w: %w", errFill, f.err)
		}
		f.mu.Unlock()
		if proven || err != nil {
			return f.entry.Size - off, err
		}
		if in != nil && here != nil {
			if n := here(in); n > 0 {
				return n, nil
			}
		}
		f.waits(r, off)
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// waits notes where a follower waits; -1: it does not.
func (f *fill) waits(r *follower, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < 0 {
		delete(f.waiting, r)
		return
	}
	f.waiting[r] = off
}

// begun returns how often the bytes were begun anew.
func (f *fill) begun() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.anew
}

// open opens what has landed, for a reader beside those who write, unless the bytes were
// begun anew since the caller asked. Between the proof and the end of a fill there is a
// moment when the bytes have no name to open them by.
func (f *fill) open(ctx context.Context, anew int) (*os.File, error) {
	for {
		f.mu.Lock()
		in, begun, ended, changed := f.in, f.anew, f.ended, f.changed
		f.mu.Unlock()
		if begun != anew {
			return nil, errAnew
		}
		if ended {
			return f.store.Blob(f.entry.Digest)
		}
		if in != nil {
			if file, err := in.Follow(); err == nil {
				return file, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
