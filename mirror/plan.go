package mirror

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"oxbow/cache"
	"oxbow/streams"
)

// A Plan says what a sync is going to publish and what it has to fetch for
// that. It is made from upstream's verified metadata, the stream's definition
// and what the store holds; making one changes nothing.
type Plan struct {
	Stream     string        `json:"stream"`
	Upstream   string        `json:"upstream"` // the source whose metadata was read
	NothingNew bool          `json:"nothing_new"`
	Products   int           `json:"products"`
	Versions   int           `json:"versions"`
	Items      int           `json:"items"`
	Kept       Amount        `json:"kept"`  // files that the store has
	Fetch      Amount        `json:"fetch"` // files to be fetched
	Known      int           `json:"known"` // further files, which may be pulled through
	LeftOut    []Omission    `json:"left_out,omitempty"`
	Warnings   []string      `json:"warnings,omitempty"`
	Lists      []PlannedList `json:"lists,omitempty"`

	base     string // of the source
	profile  streams.Profile
	entries  []*streams.Entry // of the lists, in the same order
	lists    []*streams.Products
	evidence []document // older documents of upstream's that vouch for what stays from before
	files    []*file    // distinct contents, largest first
	byPath   map[streams.Path]*file
	ahead    []Lack                 // of a tree's, what nobody asked for yet
	spare    []*file                // of a tree's, what versions would need that are left out
	absent   map[streams.Path]int64 // of Absent
}

// An Amount counts distinct files.
type Amount struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (a *Amount) add(n int64) {
	a.Files++
	if a.Bytes += n; a.Bytes < 0 { // sizes that no disk has: there is no room for them
		a.Bytes = math.MaxInt64
	}
}

// A PlannedList names the versions of one list that are going to be published.
type PlannedList struct {
	ContentID string           `json:"content_id"`
	Products  []PlannedProduct `json:"products"`
}

// A PlannedProduct names the versions of one product, in the order of the list.
type PlannedProduct struct {
	Name     string   `json:"name"`
	Versions []string `json:"versions"`
}

// An Omission is a version that was selected and is not published, and why.
type Omission struct {
	ContentID string `json:"content_id"`
	Product   string `json:"product"`
	Version   string `json:"version"`
	Reason    string `json:"reason"`

	refused bool // by the profile: another try is no use while upstream stays the same
}

func (o Omission) String() string {
	return fmt.Sprintf("%s %s %s: %s", o.ContentID, o.Product, o.Version, o.Reason)
}

// compare orders omissions by what they leave out.
func (o Omission) compare(other Omission) int { return cmp.Compare(o.String(), other.String()) }

// A versionID names a version within the whole stream.
type versionID struct{ contentID, product, version string }

func (id versionID) omission(reason string) Omission {
	return Omission{ContentID: id.contentID, Product: id.product, Version: id.version, Reason: reason}
}

// A file is one distinct content that the published metadata will name.
type file struct {
	key    string // contentKey
	want   cache.Want
	digest cache.Digest // zero until known
	have   bool         // the store has it
	paths  []streams.Path
	users  []versionID // the versions that need it
}

// contentKey names a content by the strongest sum that upstream gives.
func contentKey(it *streams.Item) string {
	switch {
	case it.SHA256 != nil:
		return "sha256-" + hex.EncodeToString(it.SHA256)
	case it.SHA512 != nil:
		return "sha512-" + hex.EncodeToString(it.SHA512)
	}
	return fmt.Sprintf("md5-%x-%d", it.MD5, it.Size)
}

func wanted(it *streams.Item) cache.Want {
	w := cache.Want{Size: it.Size, SHA512: it.SHA512, MD5: it.MD5}
	copy(w.SHA256[:], it.SHA256)
	return w
}

// name returns the SHA-256 in hexadecimal or, while that is not known, the key.
func (f *file) name() string {
	if f.digest.IsZero() {
		return f.key
	}
	return f.digest.String()
}

// agrees reports whether it can be the same content as f.
func (f *file) agrees(it *streams.Item) bool {
	same := func(a, b []byte) bool { return a == nil || b == nil || bytes.Equal(a, b) }
	var sum []byte
	if !f.want.SHA256.IsZero() {
		sum = f.want.SHA256[:]
	}
	return f.want.Size == it.Size && same(sum, it.SHA256) && same(f.want.SHA512, it.SHA512) && same(f.want.MD5, it.MD5)
}

// count fills in what a plan tells of itself.
func (plan *Plan) count() {
	for _, l := range plan.lists {
		pl := PlannedList{ContentID: l.ContentID}
		for _, prod := range l.Products {
			pp := PlannedProduct{Name: prod.Name}
			for _, v := range prod.Versions {
				pp.Versions = append(pp.Versions, v.Name)
				plan.Items += len(v.Items)
			}
			plan.Products++
			plan.Versions += len(prod.Versions)
			pl.Products = append(pl.Products, pp)
		}
		plan.Lists = append(plan.Lists, pl)
	}
}

// versions yields every planned version.
func (plan *Plan) versions() iter.Seq2[versionID, *streams.Version] {
	return func(yield func(versionID, *streams.Version) bool) {
		for _, l := range plan.lists {
			for _, prod := range l.Products {
				for _, v := range prod.Versions {
					if !yield(versionID{l.ContentID, prod.Name, v.Name}, v) {
						return
					}
				}
			}
		}
	}
}

// addFiles finds the distinct contents of the planned versions, and which of them
// the store has. One path cannot serve two contents: a version that wants another
// one than upstream's current metadata does, or than an earlier version, is
// returned instead.
func (plan *Plan) addFiles(p *planner) (clash versionID, found bool) {
	byKey := map[string]*file{}
	plan.byPath = map[streams.Path]*file{}
	for _, carried := range []bool{false, true} {
		for id, v := range plan.versions() {
			if (p.carried[id] != nil) != carried {
				continue
			}
			if !plan.addVersion(byKey, id, v) {
				return id, true
			}
		}
	}
	if p.directory != nil {
		plan.Known = len(p.directory.known(plan.planned()))
	}
	for _, f := range plan.files {
		p.locate(f)
		if f.have {
			plan.Kept.add(f.want.Size)
		} else {
			plan.Fetch.add(f.want.Size)
		}
	}
	slices.SortStableFunc(plan.files, func(a, b *file) int { return cmp.Compare(b.want.Size, a.want.Size) })
	return versionID{}, false
}

// planned returns the paths of all files.
func (plan *Plan) planned() map[streams.Path]bool {
	paths := make(map[streams.Path]bool, len(plan.byPath))
	for path := range plan.byPath {
		paths[path] = true
	}
	return paths
}

// here returns the paths of the files that the store has.
func (plan *Plan) here() map[streams.Path]bool {
	paths := plan.planned()
	maps.DeleteFunc(paths, func(path streams.Path, _ bool) bool { return !plan.byPath[path].have })
	return paths
}

// addVersion adds the files of a version. It is false if one of its paths stands
// for another content already, or one of its sums for another size or other sums.
func (plan *Plan) addVersion(byKey map[string]*file, id versionID, v *streams.Version) bool {
	for _, it := range v.Items {
		if it.Path == "" {
			continue
		}
		f := plan.byPath[it.Path]
		if f != nil && !f.agrees(it) {
			return false
		}
		if f == nil {
			key := contentKey(it)
			if f = byKey[key]; f != nil && !f.agrees(it) {
				return false
			}
			if f == nil {
				f = &file{key: key, want: wanted(it)}
				byKey[key] = f
				plan.files = append(plan.files, f)
			}
			plan.byPath[it.Path] = f
			f.paths = append(f.paths, it.Path)
		}
		if n := len(f.users); n == 0 || f.users[n-1] != id {
			f.users = append(f.users, id)
		}
	}
	return true
}

// locate finds out whether the store has a file, which the lease covers from
// before the question on.
func (p *planner) locate(f *file) {
	if !f.want.SHA256.IsZero() {
		p.lease.Add(f.want.SHA256)
	}
	f.digest, f.have = p.m.store.Locate(f.want)
	if f.have && f.want.SHA256.IsZero() {
		p.lease.Add(f.digest)
		f.digest, f.have = p.m.store.Locate(f.want)
	}
}
