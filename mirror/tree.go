package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// A Tree is a plain tree, such as sstream-mirror makes, that a sync reads in place of the stream's upstreams: nothing is asked of
// these. What it publishes the tree has, or the store; the rest is left out. Nothing of the tree is recorded in the definition.
type Tree struct {
	// Dir is where the tree is, an absolute path: for people.
	Dir string

	// Documents reads its metadata, which is believed as that of an upstream is.
	Documents Documents

	// MayHave reports whether the tree may have a content that the store lacks.
	MayHave func(key string, size int64) bool

	// Taken says that all that is wanted of the tree is in the store by now. Else what MayHave says is counted on, for a plan.
	Taken bool
}

// NothingOfIt is the reason why a version is left out of which a tree has no file: it was not selected when the tree was made.
const NothingOfIt = "the tree has nothing of it"

// errBundled: the documents that clients of the stream read are another site's.
var errBundled = errors.New("the stream comes by bundles, and another site signs it: give the tree another name with --name")

// base is what stands for the tree where an upstream has a URL.
func (t *Tree) base() string { return "file://" + (&url.URL{Path: t.Dir}).EscapedPath() }

// document reads one of the tree's documents.
func (t *Tree) document(ctx context.Context, p streams.Path) ([]byte, error) {
	data, err := t.Documents(ctx, p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no %s in %s", upstream.ErrNotFound, p, t.Dir)
	case err != nil:
		return nil, fmt.Errorf("cannot read %s in %s: %w", p, t.Dir, err)
	}
	return data, nil
}

// lacking returns the versions of a plan that cannot be published whole, with the reason.
func (t *Tree) lacking(plan *Plan) failures {
	failed, something := failures{}, map[versionID]bool{}
	for _, f := range plan.files {
		may := t.may(f)
		for _, id := range f.users {
			something[id] = something[id] || may
			if !f.have && (t.Taken || !may) && failed[id] == "" {
				failed[id] = "the tree lacks " + string(f.paths[0])
			}
		}
	}
	for id := range failed {
		if !something[id] {
			failed[id] = NothingOfIt
		}
	}
	return failed
}

// may reports whether the store has a file, or the tree may have it.
func (t *Tree) may(f *file) bool { return f.have || t.MayHave(f.key, f.want.Size) }

// planFrom is the plan of what a tree may have.
func (p *planner) planFrom(t *Tree) *Plan {
	absent := map[streams.Path]int64{}
	spare := map[string]*file{}
	for {
		plan := p.plan()
		failed := t.lacking(plan)
		if len(failed) == 0 {
			plan.addSpare(spare)
			plan.absent = absent
			return plan
		}
		for _, f := range plan.files {
			if t.may(f) {
				spare[f.key] = f
				continue
			}
			for _, path := range f.paths {
				absent[path] = f.want.Size
			}
		}
		for id, reason := range failed {
			p.leaveOut(id, reason)
		}
	}
}

// addSpare adds files of versions that are left out for the lack of others: a sync that brings these needs them no more to fetch.
func (plan *Plan) addSpare(spare map[string]*file) {
	for _, f := range plan.files {
		delete(spare, f.key)
	}
	for _, key := range slices.Sorted(maps.Keys(spare)) {
		f := spare[key]
		plan.spare = append(plan.spare, f)
		if !f.have {
			plan.Fetch.add(f.want.Size)
		}
	}
}

// A Lack is a content that the store lacks.
type Lack struct {
	Key   string // names it
	Want  cache.Want
	Paths []streams.Path
}

// Lacks returns what the plan counts on that the store lacks, in the order of its paths, with what the tree has of versions that are
// left out. Of a stream that advertises all of
// upstream's, what may be pulled through is among it, from the newest version on, as far as MayHave and the limit of the cache
// go.
func (plan *Plan) Lacks() (all []Lack) {
	for _, f := range slices.Concat(plan.files, plan.spare) {
		if !f.have {
			all = append(all, Lack{f.key, f.want, f.paths})
		}
	}
	slices.SortFunc(all, func(a, b Lack) int { return cmp.Compare(a.Paths[0], b.Paths[0]) })
	return append(all, plan.ahead...)
}

// Absent returns the paths of the files that neither the store nor the tree has, of versions that are left out because of that, with
// the sizes that they should have.
func (plan *Plan) Absent() map[streams.Path]int64 { return plan.absent }

// addAhead adds what a tree may have of what may be pulled through, as much as stays.
func (plan *Plan) addAhead(p *planner, t *Tree) {
	here := plan.planned()
	known := p.directory.known(here)
	version := func(e cache.Entry) string { return p.directory.names[streams.Path(e.Path)].version }
	slices.SortFunc(known, func(a, b cache.Entry) int {
		return cmp.Or(-cmp.Compare(version(a), version(b)), cmp.Compare(a.Path, b.Path))
	})
	st := p.m.store.PullStats()
	room, added := st.Limit-st.Bytes, map[cache.Digest]bool{}
	for _, e := range known {
		it := p.directory.names[streams.Path(e.Path)].item
		key := contentKey(it)
		if added[e.Digest] || p.m.store.Has(e.Digest) || !t.MayHave(key, e.Size) || st.Limit > 0 && e.Size > room {
			continue
		}
		added[e.Digest] = true
		room -= e.Size
		plan.ahead = append(plan.ahead, Lack{key, wanted(it), []streams.Path{it.Path}})
		plan.Fetch.add(e.Size)
	}
}

// ExpectTree keeps what a plan from a tree counts on from being swept until [Mirror.UnexpectTree], or for sixty days: it is taken in
// bit by bit.
func (m *Mirror) ExpectTree(plan *Plan) error {
	var blobs []cache.Digest
	for _, f := range slices.Concat(plan.files, plan.spare) {
		if !f.want.SHA256.IsZero() {
			blobs = append(blobs, f.want.SHA256)
		}
	}
	for _, l := range plan.ahead {
		blobs = append(blobs, l.Want.SHA256)
	}
	return m.store.Expect(expectedTree(plan.Stream), blobs)
}

// UnexpectTree ends ExpectTree.
func (m *Mirror) UnexpectTree(stream string) error { return m.store.Unexpect(expectedTree(stream)) }

func expectedTree(stream string) cache.Digest { return cache.Sum([]byte("tree for stream " + stream)) }
