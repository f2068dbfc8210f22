package mirror

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// traceCustody is TraceCustody for documents in any place.
func traceCustody(f documents, man *cache.Manifest, by tracedBy, now time.Time) (*Custody, error) {
	t, err := by.stream.trust()
	if err != nil {
		return nil, err
	}
	tr := &tracing{files: f, trust: t, given: by.given, now: now, custody: &Custody{Stream: man.Stream, Versions: []VouchedVersion{}, Faults: []string{}},
		published: map[string]cache.Entry{}, unnamed: map[string]bool{}, fitting: map[string]bool{},
		known: map[string]bool{}, origins: map[string]*Origin{}, room: cmp.Or(by.room, maxCustodyText)}
	if err := tr.know(by); err != nil {
		return nil, err
	}
	for _, e := range man.Entries {
		if e.Kind == cache.KindItem || e.Kind == cache.KindKnown {
			tr.published[e.Path], tr.unnamed[e.Path] = e, true
		}
	}
	lists, err := tr.toldLists(man)
	if err != nil {
		return nil, err
	}
	tr.level = tr.newLevel(f, man, nil)
	for i, l := range lists {
		tr.list(l, i > 0 && lists[i-1].ContentID == l.ContentID)
	}
	tr.rest()
	tr.handedOn()
	return tr.custody, nil
}

// A tracing is a custody being traced.
type tracing struct {
	files     documents
	trust     trust
	given     bool // of tracedBy
	now       time.Time
	custody   *Custody
	level     *level                 // of the snapshot itself
	published map[string]cache.Entry // by path
	unnamed   map[string]bool        // of these paths those of which no list was met yet that names them
	fitting   map[string]bool        // whether contents fit other sums than SHA-256, as they were read
	own       bool                   // the lists are the site's own, and name nothing but what is published
	misfits   []misfit               // where they do

	known   map[string]bool    // fingerprints of the keys of sites
	along   *streams.Keyring   // of tracedBy; nil: none
	origins map[string]*Origin // by what they are: many versions share one
	room    int64              // bytes of custody volumes, and of documents in them, that may still be read
}

// A misfit is an item of the site's own lists that is not published so.
type misfit struct{ path, fault string }

// toldLists returns the lists that clients of a snapshot may be told, in the order of their content ids. Of the site's own it returns
// every text, whatever form and name a document has: whoever made the snapshot may have a word for each client. They have to be
// documents, so that nothing else is served in their place, and indexes have to name some of them.
func (tr *tracing) toldLists(man *cache.Manifest) (lists []*streams.Products, err error) {
	if shownKind(man) != cache.KindSite {
		return shownLists(tr.files, man)
	}
	tr.own = true
	site, seen := map[string]bool{}, map[cache.Digest]bool{}
	for _, e := range man.Entries {
		site[e.Path] = site[e.Path] || e.Kind == cache.KindSite
	}
	for _, e := range man.Entries {
		if e.Kind != cache.KindSite {
			continue
		}
		if doc, apart := strings.CutSuffix(e.Path, ".gpg"); apart && site[doc] {
			continue
		}
		data, err := readEntry(tr.files, e)
		if err != nil {
			return nil, err
		}
		text, err := textOf(data)
		if err != nil {
			tr.fault("cannot read %s: %v", e.Path, err)
			continue
		}
		if told := cache.Sum(bytes.TrimRight(text, "\n")); !seen[told] {
			seen[told] = true
			lists = append(lists, tr.told(e.Path, text, site)...)
		}
	}
	slices.SortStableFunc(lists, func(a, b *streams.Products) int { return cmp.Compare(a.ContentID, b.ContentID) })
	return lists, nil
}

// told returns the list that a document of the site's is, if it is one.
func (tr *tracing) told(path string, text []byte, site map[string]bool) []*streams.Products {
	if x, err := streams.ParseIndex(text); err == nil {
		for _, e := range x.Entries {
			if !site[string(e.Path)] {
				tr.fault("%s names %s, which is no document of the site's", path, e.Path)
			}
		}
		return nil
	}
	l, err := streams.ParseProducts(text)
	if err != nil {
		tr.fault("cannot read %s: %v", path, err)
		return nil
	}
	return []*streams.Products{l}
}

// list traces every version of a list that clients are shown; again: another text of it was traced before.
func (tr *tracing) list(l *streams.Products, again bool) {
	for _, prod := range l.Products {
		for _, v := range prod.Versions {
			items := slices.DeleteFunc(slices.Clone(v.Items), func(it *streams.Item) bool {
				e, ok := tr.published[string(it.Path)]
				ok = ok && tr.fits(it, e)
				if !ok && tr.own {
					tr.misfits = append(tr.misfits, misfit{string(it.Path), fmt.Sprintf("%s %s: %s is not published as the site's list says", prod.Name, v.Name, it.Path)})
				}
				return !ok
			})
			if len(items) == 0 {
				continue // upstream's to name: nothing of it is published
			}
			for _, it := range items {
				delete(tr.unnamed, string(it.Path))
			}
			voucher, origin, err := tr.level.vouch(versionID{l.ContentID, prod.Name, v.Name}, func(v *streams.Version) bool { return tr.covers(v, items) }, false)
			if err != nil {
				tr.fault("%s %s: %v", prod.Name, v.Name, err)
			}
			if again {
				continue
			}
			var doc *Voucher
			if voucher != nil {
				doc = &voucher.Voucher
			}
			tr.custody.Versions = append(tr.custody.Versions, VouchedVersion{l.ContentID, prod.Name, v.Name, len(items), doc, origin})
		}
	}
}

// covers reports whether v names every one of the published items, with the content that they have here.
func (tr *tracing) covers(v *streams.Version, items []*streams.Item) bool {
	for _, it := range items {
		if !slices.ContainsFunc(v.Items, func(other *streams.Item) bool {
			return other.Name == it.Name && other.Path == it.Path && tr.fits(other, tr.published[string(it.Path)])
		}) {
			return false
		}
	}
	return true
}

// fits reports whether the content of an entry is what an item says. Without a SHA-256 of upstream's the file itself tells.
func (tr *tracing) fits(it *streams.Item, e cache.Entry) bool {
	switch {
	case it.Size != e.Size:
		return false
	case it.SHA256 != nil:
		return bytes.Equal(it.SHA256, e.Digest[:])
	}
	key := e.Digest.String() + " " + contentKey(it)
	fits, known := tr.fitting[key]
	if !known {
		want := wanted(it)
		want.SHA256 = e.Digest
		fits = tr.files.Prove(e.Digest, want) == nil
		tr.fitting[key] = fits
	}
	return fits
}

// rest looks for what is published beside the lists: a list that clients would refuse is left out of the index.
func (tr *tracing) rest() {
	for _, c := range tr.level.candidates {
		if len(tr.unnamed) == 0 {
			break
		}
		for _, it := range c.products.Items() {
			path := string(it.Path)
			fits := func(it *streams.Item) bool { return tr.fits(it, tr.published[path]) }
			if tr.unnamed[path] && fits(it) && tr.level.countsFor(c, path, fits, false) {
				delete(tr.unnamed, path)
			}
		}
	}
	tr.faultUnnamed()
}

// faultUnnamed notes what nothing names with the content that it has, and what the site's own lists name with another.
func (tr *tracing) faultUnnamed() {
	for _, m := range tr.misfits {
		if !tr.unnamed[m.path] {
			tr.fault("%s", m.fault)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(tr.unnamed)) {
		tr.fault("%s: no document of upstream's that is here names it with the content that it has", path)
	}
}

// handedOn lists the links of all chains.
func (tr *tracing) handedOn() {
	for _, v := range tr.custody.Versions {
		if v.Origin == nil {
			continue
		}
		for _, h := range v.Origin.HandedOn {
			if !slices.Contains(tr.custody.HandedOn, h) {
				tr.custody.HandedOn = append(tr.custody.HandedOn, h)
			}
		}
	}
}

func (tr *tracing) fault(format string, args ...any) {
	tr.custody.Faults = append(tr.custody.Faults, fmt.Sprintf(format, args...))
}
