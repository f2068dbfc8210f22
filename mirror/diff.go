package mirror

import (
	"cmp"
	"slices"

	"oxbow/cache"
)

// A Diff says what the clients of one snapshot see that those of another do not. What is changed is removed and added. All is in order.
type Diff struct {
	From     string              `json:"from"` // ids
	To       string              `json:"to"`
	Products Change[string]      `json:"products"`
	Versions Change[DiffVersion] `json:"versions"`
	Files    Change[DiffFile]    `json:"files"` // beside documents, whether they are here or may be pulled through
	Bytes    DiffBytes           `json:"bytes"`
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
	Digest string `json:"digest"`
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
	d := &Diff{From: from.ID.String(), To: to.ID.String(),
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
	return d, nil
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
	lists, err := ReadLists(f, man)
	if err != nil {
		return nil, err
	}
	side := &diffSide{map[string]bool{}, map[DiffVersion]bool{}, map[DiffFile]bool{}, map[string]int64{}}
	for _, l := range lists {
		for _, p := range l.Products {
			side.products[p.Name] = true
			for _, v := range p.Versions {
				side.versions[DiffVersion{p.Name, v}] = true
			}
		}
	}
	for _, e := range man.Entries {
		if e.Kind == cache.KindItem || e.Kind == cache.KindKnown {
			side.files[DiffFile{e.Path, e.Digest.String(), e.Size}] = true
			side.contents[e.Digest.String()] = e.Size
		}
	}
	return side, nil
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
