package mirror

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"oxbow/cache"
)

// failures are the versions that cannot be had, with the reason.
type failures map[pedigree]string

// fetch gets every planned file into the store. It returns the versions that
// upstream fails to deliver; an error means that the sync cannot go on.
func (run *run) fetch(ctx context.Context, plan *Plan) (failures, error) {
	if err := run.m.store.Room(plan.Fetch.Bytes); err != nil {
		return nil, err
	}
	run.t.begin(plan.Fetch)
	f := &fetcher{run: run, plan: plan, failed: failures{}}
	g, fetching := errgroup.WithContext(ctx)
	g.SetLimit(run.workers())
	for _, file := range plan.files {
		if file.digest != (cache.Digest{}) {
			run.lease.Add(file.digest)
		}
		if file.have {
			continue
		}
		g.Go(func() error { return f.fetch(fetching, file) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return f.failed, run.m.store.Flush(ctx)
}

func (run *run) workers() int {
	if run.o.Workers > 0 {
		return run.o.Workers
	}
	return defaultWorkers
}

// A fetcher gets the files of one plan.
type fetcher struct {
	run  *run
	plan *Plan

	// inARow counts the files that failed since the last that arrived.
	inARow atomic.Int32

	mu     sync.Mutex // guards failed, run.fetched
	failed failures
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
		f.inARow.Add(1)
		f.fail(file, err)
		return nil
	}
	if err != nil {
		return err
	}
	f.inARow.Store(0)
	file.digest = blob.Digest
	f.run.lease.Add(blob.Digest)
	f.run.t.fileDone()
	return f.remember(file)
}

// hopeless reports whether every version that needs the file is left out
// already because of another one.
func (f *fetcher) hopeless(file *file) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ped := range file.users {
		if _, failed := f.failed[ped]; !failed {
			return false
		}
	}
	return true
}

func (f *fetcher) fail(file *file, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ped := range file.users {
		if _, failed := f.failed[ped]; !failed {
			f.failed[ped] = err.Error()
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
	defer in.Close()
	var sources []string
	for _, base := range f.sources() {
		for _, p := range file.paths {
			sources = append(sources, fileURL(base, p))
		}
	}
	before := file.want.Size
	for _, e := range in.Missing() {
		before -= e.Len
	}
	f.run.t.bytes(before)
	blob, err := f.run.m.client.Fetch(ctx, sources, in, file.want.Size, FetchOptions{Progress: f.run.t.bytes})
	if err == nil {
		f.mu.Lock()
		f.run.fetched.add(blob.Size - before)
		f.mu.Unlock()
	}
	return blob, err
}

// sources are the base URLs to fetch from: the one whose metadata was read,
// then the others.
func (f *fetcher) sources() []string {
	all := []string{f.plan.Upstream}
	for _, base := range f.run.r.s.Upstream {
		if base != f.plan.Upstream {
			all = append(all, base)
		}
	}
	return all
}

// remember records which content a sum other than SHA-256 stands for.
func (f *fetcher) remember(file *file) error {
	if file.want.SHA256 != (cache.Digest{}) {
		return nil
	}
	return f.run.m.store.SetNote("sum "+file.key, []byte(file.digest.String()))
}

// upstreamsFault reports whether err means that this file cannot be had from
// upstream, and not that the sync cannot go on.
func upstreamsFault(err error) bool {
	return errors.Is(err, ErrUpstream) || errors.Is(err, cache.ErrCorrupt)
}
