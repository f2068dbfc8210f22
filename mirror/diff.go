package mirror

import (
	"cmp"
	"context"
	"slices"

	"oxbow/cache"
	"oxbow/streams"
)

// UpstreamNow stands in a [Diff] for what a sync would publish now.
const UpstreamNow = "upstream"

// A Diff says what the clients of one snapshot see that those of another do not, or would after a sync. What is changed is removed and
// added. All is in order.
type Diff struct {
	From     string              `json:"from"` // an id, or UpstreamNow
	To       string              `json:"to"`
	Products Change[string]      `json:"products"`
	Versions Change[DiffVersion] `json:"versions"`
	Files    Change[DiffFile]    `json:"files"` // beside documents, whether they are here or may be pulled through
	Bytes    DiffBytes           `json:"bytes"`

	// Of a sync: what it would leave out, and warn of.
	LeftOut  []Omission `json:"left_out,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
}

// A Change is what one of two has and the other has not.
type Change[T any] struct {
	Added   []T `json:"added"`
	Removed []T `json:"removed"`
}

// A DiffVersion names a version.
type DiffVersion struct {
	Product string `json:"product"`
	Version string `json:"version"`
}

// A DiffFile is a content under a path.
type DiffFile struct {
	Path   string `json:"path"`
	Digest string `json:"digest"` // SHA-256; where that is not known, upstream's sum with its kind before it
	Size   int64  `json:"size"`
}

// DiffBytes is the size of the distinct contents that only one of two has.
type DiffBytes struct {
	Added   int64 `json:"added"`
	Removed int64 `json:"removed"`
}

// DiffSnapshots compares two kept snapshots, of one stream or of two. It needs no lock.
func DiffSnapshots(f *cache.Files, from, to cache.Snapshot) (*Diff, error) {
	a, err := readSide(f, from)
	if err != nil {
		return nil, err
	}
	b, err := readSide(f, to)
	if err != nil {
		return nil, err
	}
	return newDiff(from.ID.String(), to.ID.String(), a, b), nil
}

// DiffUpstream compares a kept snapshot with what a sync of its stream would publish now. Upstream's metadata is read and verified as for
// [Mirror.Plan], with the same errors and as little change. A stream that a rollback holds is compared as if it were not.
func (m *Mirror) DiffUpstream(ctx context.Context, from cache.Snapshot, o SyncOptions) (*Diff, error) {
	a, err := readSide(m.store.Files(), from)
	if err != nil {
		return nil, err
	}
	st, err := readState(m.store.Files(), from.Stream)
	if err != nil {
		return nil, err
	}
	p, plan, err := m.planned(ctx, st, o)
	if err != nil {
		return nil, err
	}
	var b *diffSide
	if p != nil {
		b = p.side(plan)
	} else if b, err = m.currentSide(from.Stream); err != nil {
		return nil, err
	}
	d := newDiff(from.ID.String(), UpstreamNow, a, b)
	d.LeftOut, d.Warnings = plan.LeftOut, plan.Warnings
	return d, nil
}

// Reverse returns the difference the other way.
func (d *Diff) Reverse() *Diff {
	r := *d
	r.From, r.To = d.To, d.From
	r.Products, r.Versions, r.Files = d.Products.reverse(), d.Versions.reverse(), d.Files.reverse()
	r.Bytes = DiffBytes{Added: d.Bytes.Removed, Removed: d.Bytes.Added}
	return &r
}

func (c Change[T]) reverse() Change[T] { return Change[T]{Added: c.Removed, Removed: c.Added} }

func newDiff(from, to string, a, b *diffSide) *Diff {
	d := &Diff{From: from, To: to,
		Products: change(a.products, b.products, cmp.Compare[string]),
		Versions: change(a.versions, b.versions, func(x, y DiffVersion) int {
			return cmp.Or(cmp.Compare(x.Product, y.Product), cmp.Compare(x.Version, y.Version))
		}),
		Files: change(a.files, b.files, func(x, y DiffFile) int {
			return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Digest, y.Digest))
		}),
	}
	for digest, size := range b.contents {
		if _, same := a.contents[digest]; !same {
			d.Bytes.Added += size
		}
	}
	for digest, size := range a.contents {
		if _, same := b.contents[digest]; !same {
			d.Bytes.Removed += size
		}
	}
	return d
}

// A diffSide is what one of two snapshots shows.
type diffSide struct {
	products map[string]bool
	versions map[DiffVersion]bool
	files    map[DiffFile]bool
	contents map[string]int64 // sizes by digest
}

func readSide(f *cache.Files, s cache.Snapshot) (*diffSide, error) {
	man, err := f.Manifest(s.Stream, s.ID)
	if err != nil {
		return nil, err
	}
	lists, err := shownLists(f, man)
	if err != nil {
		return nil, err
	}
	side := newSide(lists)
	for _, e := range man.Entries {
		if e.Kind == cache.KindItem || e.Kind == cache.KindKnown {
			side.addFile(e.Path, e.Digest.String(), e.Size)
		}
	}
	return side, nil
}

func (m *Mirror) currentSide(stream string) (*diffSide, error) {
	snap, err := m.store.Current(stream)
	if err != nil {
		return nil, err
	}
	return readSide(m.store.Files(), snap)
}

// side returns what clients would see of a plan.
func (p *planner) side(plan *Plan) *diffSide {
	lists := plan.lists
	if p.s.all() {
		lists = nil
		for _, li := range p.c.lists {
			lists = append(lists, li.products)
		}
	}
	side := newSide(lists)
	for path, f := range plan.byPath {
		side.addFile(string(path), f.name(), f.want.Size)
	}
	if p.directory != nil {
		for _, e := range p.directory.known(plan.planned()) {
			side.addFile(e.Path, e.Digest.String(), e.Size)
		}
	}
	return side
}

func newSide(lists []*streams.Products) *diffSide {
	side := &diffSide{map[string]bool{}, map[DiffVersion]bool{}, map[DiffFile]bool{}, map[string]int64{}}
	for _, l := range lists {
		for _, p := range l.Products {
			side.products[p.Name] = true
			for _, v := range p.Versions {
				side.versions[DiffVersion{p.Name, v.Name}] = true
			}
		}
	}
	return side
}

func (side *diffSide) addFile(path, digest string, size int64) {
	side.files[DiffFile{path, digest, size}] = true
	side.contents[digest] = size
}

// change returns what of b is not in a, and the reverse, in order.
func change[T comparable](a, b map[T]bool, order func(x, y T) int) Change[T] {
	without := func(all, others map[T]bool) []T {
		only := []T{}
		for x := range all {
			if !others[x] {
				only = append(only, x)
			}
		}
		slices.SortFunc(only, order)
		return only
	}
	return Change[T]{Added: without(b, a), Removed: without(a, b)}
}
