package mirror

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// failures are the versions that cannot be had, with the reason.
type failures map[versionID]string

// fetch gets every planned file into the store. It returns the versions that
// upstream fails to deliver; an error means that the sync cannot go on.
func (r *run) fetch(ctx context.Context, plan *Plan) (failures, error) {
	if r.o.Tree != nil {
		return r.o.Tree.lacking(plan), nil
	}
	if err := r.m.store.Room(plan.Fetch.Bytes); err != nil {
		return nil, err
	}
	if plan.Fetch.Files > 0 {
		r.m.fetches(plan.Stream)
	}
	r.t.begin(plan.Fetch)
	f := &fetcher{run: r, base: plan.base, failed: failures{}}
	g, fetching := errgroup.WithContext(ctx)
	g.SetLimit(r.workers())
	for _, file := range plan.files {
		if file.have {
			continue
		}
		g.Go(func() error { return f.fetch(fetching, file) })
	}
	err := g.Wait()
	r.fetched.Files += f.fetched.Files
	r.fetched.Bytes += f.fetched.Bytes
	if err != nil {
		return nil, err
	}
	return f.failed, r.m.store.Flush(ctx)
}

func (r *run) workers() int {
	if r.o.Workers > 0 {
		return r.o.Workers
	}
	return defaultWorkers
}

// A fetcher gets the files of one plan.
type fetcher struct {
	run  *run
	base string // of the metadata that the plan was made from

	// inARow counts the files that upstream failed to deliver since the last that
	// arrived.
	inARow atomic.Int32

	mu      sync.Mutex // guards the rest
	failed  failures
	fetched Amount
}

// givenUp is how many files in a row may fail before the rest is not tried:
// then it is upstream that is down, and asking for each of thousands of files
// would take hours.
const givenUp = 32

func (f *fetcher) fetch(ctx context.Context, file *file) error {
	if f.hopeless(file) {
		return nil
	}
	if f.inARow.Load() >= givenUp {
		f.fail(file, errors.New("not tried, since upstream delivers nothing"))
		return nil
	}
	blob, err := f.get(ctx, file)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if upstreamsFault(err) {
		if !errors.Is(err, upstream.ErrNotFound) && !errors.Is(err, cache.ErrCorrupt) {
			f.inARow.Add(1) // upstream did not even answer
		}
		f.fail(file, err)
		return nil
	}
	if err != nil {
		return err
	}
	f.inARow.Store(0)
	file.digest, file.have = blob.Digest, true
	f.run.lease.Add(blob.Digest)
	f.run.t.fileDone()
	return nil
}

// hopeless reports whether every version that needs the file is left out
// already because of another one.
func (f *fetcher) hopeless(file *file) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range file.users {
		if _, failed := f.failed[id]; !failed {
			return false
		}
	}
	return true
}

func (f *fetcher) fail(file *file, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range file.users {
		if _, failed := f.failed[id]; !failed {
			f.failed[id] = err.Error()
		}
	}
}

// get fetches one file. A file that another sync or an earlier run brought
// meanwhile costs nothing.
func (f *fetcher) get(ctx context.Context, file *file) (cache.Blob, error) {
	in, err := f.run.m.store.Begin(ctx, file.want)
	if exists, ok := errors.AsType[*cache.ExistsError](err); ok {
		f.run.t.bytes(file.want.Size)
		return exists.Blob, nil
	}
	if err != nil {
		return cache.Blob{}, err
	}
	defer cache.Step(f.run.m.log, "fetch", "stream", f.run.reader.s.Name, "path", file.paths[0])()
	defer in.Close()
	before := file.want.Size
	for _, e := range in.Missing() {
		before -= e.Len
	}
	f.run.t.bytes(before)
	blob, err := f.run.reader.client.Fetch(ctx, f.fileURLs(file), in, file.want.Size, upstream.FetchOptions{Progress: f.run.t.bytes})
	if err == nil {
		f.mu.Lock()
		f.fetched.add(blob.Size - before)
		f.mu.Unlock()
	}
	return blob, err
}

// fileURLs returns where the file may be had: at the source whose metadata was
// read, then at the others.
func (f *fetcher) fileURLs(file *file) (urls []string) {
	bases := []string{f.base}
	for _, base := range f.run.reader.s.Upstream {
		if base != f.base {
			bases = append(bases, base)
		}
	}
	for _, base := range bases {
		for _, p := range file.paths {
			urls = append(urls, fileURL(base, p))
		}
	}
	return urls
}

// upstreamsFault reports whether err means that this file cannot be had from
// upstream, and not that the sync cannot go on.
func upstreamsFault(err error) bool {
	return errors.Is(err, upstream.ErrUpstream) || errors.Is(err, cache.ErrCorrupt)
}
