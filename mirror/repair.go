package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// A Repaired says what a repair came to.
type Repaired struct {
	Mended  []Mended
	Left    []Left
	Reasons []string // why a stream could not be published anew, or its index not be made

	// Faults are those besides blobs that are left.
	Faults []cache.Problem
}

// OK reports whether nothing is left.
func (r *Repaired) OK() bool { return len(r.Left) == 0 && len(r.Faults) == 0 }

// A Mended is a blob that is whole again.
type Mended struct {
	Digest cache.Digest `json:"digest"`
	Size   int64        `json:"size"`
	Stream string       `json:"stream"`
	Path   string       `json:"path"`
	How    string       `json:"how"`
}

func (m Mended) String() string {
	return fmt.Sprintf("%.12s, stream %s, path %s: %s", m.Digest, m.Stream, m.Path, m.How)
}

// A Left is a blob that snapshots name and that could not be had again.
type Left struct {
	Digest cache.Digest `json:"digest"`
	Size   int64        `json:"size"`
	Reason string       `json:"reason"`
	Hurts  []Hurt       `json:"hurts"`
}

// A Hurt is what a kept snapshot lacks.
type Hurt struct {
	Stream   string       `json:"stream"`
	Snapshot cache.Digest `json:"snapshot"`
	Current  bool         `json:"current"`
	Path     string       `json:"path"`
	Product  string       `json:"product,omitempty"` // none for a document
	Version  string       `json:"version,omitempty"`
}

func (h Hurt) String() string {
	s := fmt.Sprintf("stream %s, snapshot %.12s", h.Stream, h.Snapshot)
	if h.Current {
		s += " (current)"
	}
	if h.Product != "" {
		s += fmt.Sprintf(", product %s, version %s", h.Product, h.Version)
	}
	return s + ", path " + h.Path
}

// RepairOptions are the wishes of one [Mirror.Repair].
type RepairOptions struct {
	// Mended, if not nil, is told of each blob as it is whole again.
	Mended func(Mended)
}

// Repair mends what a check has found, as far as that can be done without the operator: the index is made anew from the files, and
// blobs are fetched again from upstream by the path under which a kept snapshot names them, and proven. Metadata of a current
// snapshot that cannot be had again is made anew by a sync of its stream. Nobody is given the bytes of what is left: a client's
// request for it begins a fill.
//
// The error says that the repair could not be done; what it came to is in the result.
func (m *Mirror) Repair(ctx context.Context, report *cache.Report, o RepairOptions) (*Repaired, error) {
	r := &repair{m: m, o: o, res: &Repaired{}}
	if err := r.run(ctx, report); err != nil {
		return nil, fmt.Errorf("cannot repair the store: %w", err)
	}
	return r.res, nil
}

// A repair is one under way.
type repair struct {
	m   *Mirror
	o   RepairOptions
	res *Repaired
}

func (r *repair) run(ctx context.Context, report *cache.Report) error {
	hurt, due := map[cache.Digest]bool{}, map[string]bool{}
	others := false
	for _, p := range report.Problems {
		switch {
		case p.Kind == cache.MissingBlob, p.Kind == cache.WrongSize, p.Kind == cache.DamagedBlob && p.Stream != "":
			hurt[p.Digest] = true
		case p.Kind == cache.DanglingCurrent, p.Kind == cache.DamagedManifest:
			due[p.Stream], others = true, true
		case p.Remedy != "":
			others = true
		}
	}
	if others {
		if err := r.m.store.Rebuild(ctx); err != nil {
			return err
		}
	}
	for d := range hurt {
		if err := r.m.store.Doubt(d); err != nil {
			return err
		}
	}
	if err := r.mend(ctx, hurt, due); err != nil {
		return err
	}
	if others {
		return r.recheck(ctx, hurt)
	}
	return nil
}

// mend has the blobs again, publishes streams anew that lack some still, or are due, and lists what is left.
func (r *repair) mend(ctx context.Context, hurt map[cache.Digest]bool, due map[string]bool) error {
	named, err := r.namers(hurt)
	if err != nil {
		return err
	}
	reasons := map[cache.Digest]error{}
	for _, d := range sortedDigests(named) {
		how, at, err := r.fetch(ctx, d, named[d])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			reasons[d] = err
			continue
		}
		r.mended(d, at, how)
	}
	if err := r.m.store.Flush(ctx); err != nil {
		return err
	}
	for d := range reasons {
		for _, n := range named[d] {
			if n.current && n.Kind != cache.KindItem {
				due[n.stream] = true
			}
		}
	}
	if err := r.publish(ctx, due); err != nil {
		return err
	}
	for d := range reasons {
		if r.m.store.Has(d) {
			delete(reasons, d)
			r.mended(d, named[d][0], "made again by a sync")
		}
	}
	return r.list(reasons)
}

// A namer is an entry of a kept snapshot that names a blob.
type namer struct {
	cache.Entry
	stream   string
	snapshot cache.Digest
	current  bool
}

// namers returns what names the blobs: the newest snapshots of each stream first.
func (r *repair) namers(hurt map[cache.Digest]bool) (map[cache.Digest][]namer, error) {
	named := map[cache.Digest][]namer{}
	f := r.m.store.Files()
	all, err := f.Streams()
	if err != nil {
		return nil, err
	}
	for _, stream := range all {
		kept, err := r.m.store.Snapshots(stream)
		if err != nil {
			continue // it has none
		}
		for i, snap := range kept {
			man, err := f.Manifest(stream, snap.ID)
			if err != nil {
				continue // which is a fault of its own
			}
			for _, e := range man.Entries {
				if hurt[e.Digest] && e.Kind != cache.KindKnown {
					named[e.Digest] = append(named[e.Digest], namer{e, stream, snap.ID, i == 0})
				}
			}
		}
	}
	return named, nil
}

// fetch has a blob again: by what is there after all, or from an upstream. It says how, and by which entry.
func (r *repair) fetch(ctx context.Context, d cache.Digest, by []namer) (how string, at namer, err error) {
	in, err := r.m.store.Begin(ctx, cache.Want{SHA256: d, Size: by[0].Size})
	if errors.Is(err, cache.ErrExists) {
		return "it is whole after all", by[0], nil
	}
	if err != nil {
		return "", namer{}, err
	}
	defer in.Close()
	tried := map[string]bool{}
	var failures []error
	for _, n := range by {
		if n.Kind != cache.KindItem && n.Kind != cache.KindUpstream || tried[n.stream+" "+n.Path] {
			continue
		}
		tried[n.stream+" "+n.Path] = true
		_, err := r.m.pull(ctx, n.stream, n.Path, in, upstream.FetchOptions{}, cache.KindItem, cache.KindUpstream)
		if err == nil {
			return "fetched again", n, nil
		}
		if ctx.Err() != nil {
			return "", namer{}, context.Cause(ctx)
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return "", namer{}, errOurs
	}
	return "", namer{}, errors.Join(failures...)
}

var errOurs = errors.New("upstream does not have it, since this site made it, or upstream had it long ago")

func (r *repair) mended(d cache.Digest, at namer, how string) {
	done := Mended{Digest: d, Size: at.Size, Stream: at.stream, Path: at.Path, How: how}
	r.res.Mended = append(r.res.Mended, done)
	if r.o.Mended != nil {
		r.o.Mended(done)
	}
}

// publish syncs streams of which the current snapshot lacks what could not be had again: what is published then is whole.
func (r *repair) publish(ctx context.Context, due map[string]bool) error {
	for _, stream := range slices.Sorted(maps.Keys(due)) {
		res, err := r.m.Sync(ctx, stream, SyncOptions{Wait: true})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case err != nil:
			r.res.Reasons = append(r.res.Reasons, fmt.Sprintf("stream %s cannot be published anew: %v", stream, err))
		case res.Held:
			r.res.Reasons = append(r.res.Reasons, fmt.Sprintf("stream %s is held by a rollback and was not published anew: `oxbow snapshot rollback %s --resume`, or roll it back to another snapshot", stream, stream))
		}
	}
	return nil
}

// list lists the blobs that are left, with what they hurt by now.
func (r *repair) list(reasons map[cache.Digest]error) error {
	if len(reasons) == 0 {
		return nil
	}
	hurt := map[cache.Digest]bool{}
	for d := range reasons {
		hurt[d] = true
	}
	named, err := r.namers(hurt)
	if err != nil {
		return err
	}
	products := map[cache.Digest]map[string]versionID{} // by snapshot and path
	for _, d := range sortedDigests(named) {
		left := Left{Digest: d, Size: named[d][0].Size, Reason: oneLine(reasons[d].Error())}
		for _, n := range named[d] {
			if products[n.snapshot] == nil {
				products[n.snapshot] = r.products(n)
			}
			of := products[n.snapshot][n.Path]
			left.Hurts = append(left.Hurts, Hurt{n.stream, n.snapshot, n.current, n.Path, of.product, of.version})
		}
		r.res.Left = append(r.res.Left, left)
	}
	return nil
}

// products returns the version to which each path of a snapshot belongs. Where the metadata that says so is lost too, there is none.
func (r *repair) products(n namer) map[string]versionID {
	of := map[string]versionID{}
	f := r.m.store.Files()
	man, err := f.Manifest(n.stream, n.snapshot)
	if err != nil {
		return of
	}
	for _, e := range shownDocuments(man) {
		l, err := readList(f, e)
		if err != nil || l == nil {
			continue
		}
		for at, it := range l.Items() {
			of[string(it.Path)] = versionID{l.ContentID, at.Product, at.Version}
		}
	}
	return of
}

// recheck lists the faults besides blobs that are left.
func (r *repair) recheck(ctx context.Context, hurt map[cache.Digest]bool) error {
	const none = 1e-12 // of the blobs is read again: those that are left are listed
	again, err := r.m.store.Check(ctx, cache.CheckOptions{Part: cache.Part{Share: none}})
	if err != nil {
		return err
	}
	for _, p := range again.Problems {
		if !hurt[p.Digest] {
			r.res.Faults = append(r.res.Faults, p)
		}
	}
	return nil
}

func sortedDigests[V any](m map[cache.Digest]V) []cache.Digest {
	return slices.SortedFunc(maps.Keys(m), cache.Digest.Compare)
}
