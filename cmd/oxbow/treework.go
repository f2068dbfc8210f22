package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

// The steps of an import of a tree. It is the command that looks into the tree: the owner of the store may have no right to, or see
// another /srv.
const (
	stepPlan    = "plan"    // what the store lacks of what the tree may have
	stepTake    = "take"    // files that were found
	stepPublish = "publish" // what is here by now
)

// A treeWork is one step of an import.
type treeWork struct {
	Dir        string         // of the tree
	Name       string         // of the stream
	Stream     *mirror.Stream // a new one; nil: it is there
	AllowOlder bool
	FilesOnly  bool
	DryRun     bool
	Step       string

	Documents []string // the paths of the files that come with a plan or a publication
	Sizes     []int64  // of the files in the tree; they come with the documents
	Bad       []string // contents that it does not have for all that
	First     bool     // nothing was asked before

	Take        []mirror.Lack // what the files that come along should be
	Done, Total mirror.Amount

	handed // the documents, or what is to be taken in
}

func (w *treeWork) wants() int { return len(w.Documents) + len(w.Take) }

func (w *treeWork) do(ctx context.Context, o *owner, out *screen) error {
	switch w.Step {
	case stepPlan:
		return w.plan(ctx, o, out)
	case stepTake:
		return w.take(ctx, o, out)
	case stepPublish:
		return w.publish(ctx, o, out)
	}
	return fmt.Errorf("unknown step %q of an import: restart the server that has the store", w.Step)
}

// tree is the tree, as far as it came along.
func (w *treeWork) tree() *mirror.Tree {
	sizes, bad := map[int64]bool{}, map[string]bool{}
	for _, n := range w.Sizes {
		sizes[n] = true
	}
	for _, key := range w.Bad {
		bad[key] = true
	}
	may := func(key string, size int64) bool { return sizes[size] && !bad[key] }
	return &mirror.Tree{Dir: w.Dir, MayHave: may, Taken: w.Step == stepPublish, Documents: func(_ context.Context, p streams.Path) ([]byte, error) {
		i := slices.Index(w.Documents, string(p))
		if i < 0 {
			return nil, fs.ErrNotExist
		}
		return readAll(io.NewSectionReader(w.files[i], 0, math.MaxInt64), string(p), streams.MaxDocument)
	}}
}

// A treePlan is what the step `plan` prints.
type treePlan struct {
	Plan   *mirror.Plan
	Lacks  []mirror.Lack
	Absent map[streams.Path]int64 // of the first one
}

func (w *treeWork) plan(ctx context.Context, o *owner, out *screen) error {
	so := mirror.SyncOptions{Tree: w.tree(), AllowOlder: w.AllowOlder || w.FilesOnly}
	var p *mirror.Plan
	var err error
	if w.Stream != nil {
		if w.First {
			printChanges(out.stderr, o.mirror, *w.Stream)
		}
		p, err = o.mirror.PlanNew(ctx, *w.Stream, so)
	} else {
		p, err = o.mirror.Plan(ctx, w.Name, so)
	}
	if err != nil {
		return w.failed(err)
	}
	if !w.DryRun {
		if err := o.store.Room(p.Fetch.Bytes); err != nil {
			return err
		}
		if err := o.mirror.ExpectTree(p); err != nil {
			return err
		}
	}
	tp := treePlan{Plan: p, Lacks: p.Lacks()}
	if w.First {
		tp.Absent = p.Absent()
	}
	return printJSON(out.stdout, tp)
}

// failed says what to do about an error, if that is known.
func (w *treeWork) failed(err error) error {
	err = fmt.Errorf("cannot import %s: %w", w.Dir, err)
	switch {
	case errors.Is(err, mirror.ErrBehind) && w.Stream == nil:
		return &hinted{err, "--files-only takes the files in for the next sync, and publishes nothing"}
	case errors.Is(err, mirror.ErrNothing):
		return &hinted{err, "filters, as the tree was made with, select what it has"}
	}
	return err
}

// take takes in the files that came with the work. What they are is proven here.
func (w *treeWork) take(ctx context.Context, o *owner, out *screen) error {
	results := make([]takenView, len(w.Take))
	p := mirror.Progress{Stream: w.Name, Phase: mirror.PhaseTaking, Files: w.Total.Files, Bytes: w.Total.Bytes, FilesDone: w.Done.Files, BytesDone: w.Done.Bytes}
	out.progress(&p)
	shown := time.Now()
	for i, l := range w.Take {
		r := &toldReader{Reader: io.NewSectionReader(w.files[i], 0, math.MaxInt64), tell: func(n int) {
			p.BytesDone += int64(n)
			if now := time.Now(); now.Sub(shown) >= progressEvery {
				shown = now
				out.progress(&p)
			}
		}}
		_, err := o.store.Take(ctx, l.Want, r)
		p.FilesDone++
		results[i].Digest = l.Key
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil || errors.Is(err, cache.ErrExists):
		case errors.Is(err, cache.ErrNoSpace):
			return err
		default:
			results[i].Error = reasonOf(err)
		}
	}
	if err := o.store.Flush(ctx); err != nil {
		return err
	}
	return printJSON(out.stdout, results)
}

// progressEvery is how often progress is told.
const progressEvery = 200 * time.Millisecond

// A toldReader tells of what is read.
type toldReader struct {
	io.Reader
	tell func(n int)
}

func (r *toldReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.tell(n)
	return n, err
}

// reasonOf says of a file that was refused what is wrong with it.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*cache.MismatchError](err); ok {
		return e.Error()
	}
	return err.Error()
}

// publish publishes what is here by now.
func (w *treeWork) publish(ctx context.Context, o *owner, out *screen) error {
	so := mirror.SyncOptions{Tree: w.tree(), AllowOlder: w.AllowOlder, Wait: true, Progress: func(p mirror.Progress) { out.progress(&p) }}
	var res *mirror.Result
	var err error
	if w.Stream != nil {
		res, err = o.mirror.SyncNew(ctx, *w.Stream, so)
	} else {
		res, err = o.mirror.Sync(ctx, w.Name, so)
	}
	out.progress(nil)
	if err != nil {
		return w.failed(err)
	}
	for _, warning := range res.Warnings {
		printLine(out.stderr, "oxbow: %s: warning: %s", w.Name, warning)
	}
	printTreeLeftOut(out.stderr, w.Name, res.LeftOut)
	if !res.Held && len(res.LeftOut) == 0 { // else what came waits for the sync that follows
		if err := o.mirror.UnexpectTree(w.Name); err != nil {
			return err
		}
	}
	if err := printJSON(out.stdout, res); err != nil || len(res.LeftOut) == 0 {
		return err
	}
	return errPartial
}
