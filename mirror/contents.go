package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"oxbow/cache"
	"oxbow/streams"
)

// A Counter counts what clients of snapshots are told of. A list that several of them have is read once. It is for one goroutine.
type Counter struct {
	files *cache.Files
	known map[cache.Digest]counted
}

// counted is what a document lists: nothing, if it is an index.
type counted struct {
	contentID          string
	products, versions int
}

// NewCounter returns one for the snapshots of a store.
func NewCounter(f *cache.Files) *Counter {
	return &Counter{files: f, known: map[cache.Digest]counted{}}
}

// Count returns the numbers of products and of versions.
func (c *Counter) Count(man *cache.Manifest) (products, versions int, err error) {
	seen := map[string]bool{}
	for _, e := range shownDocuments(man) {
		n, err := c.document(e)
		if err != nil {
			return 0, 0, err
		}
		if !seen[n.contentID] { // else the other form of the same
			seen[n.contentID] = true
			products, versions = products+n.products, versions+n.versions
		}
	}
	return products, versions, nil
}

func (c *Counter) document(e cache.Entry) (counted, error) {
	if n, known := c.known[e.Digest]; known {
		return n, nil
	}
	l, err := readList(c.files, e)
	if err != nil {
		return counted{}, err
	}
	var n counted
	if l != nil {
		n = counted{l.ContentID, len(l.Products), 0}
		for _, p := range l.Products {
			n.versions += len(p.Versions)
		}
	}
	c.known[e.Digest] = n
	return n, nil
}

// ReadLists returns what clients of a snapshot are told of: of each list the versions of its products.
func ReadLists(f *cache.Files, man *cache.Manifest) ([]PlannedList, error) {
	lists, err := shownLists(f, man)
	if err != nil {
		return nil, err
	}
	shown := Plan{lists: lists}
	shown.count()
	return shown.Lists, nil
}

// shownLists returns the lists that clients of a snapshot read, in the order of their content ids.
func shownLists(f documents, man *cache.Manifest) (lists []*streams.Products, err error) {
	for _, e := range shownDocuments(man) {
		l, err := readList(f, e)
		if err != nil {
			return nil, err
		}
		if l != nil && !slices.ContainsFunc(lists, func(have *streams.Products) bool { return have.ContentID == l.ContentID }) {
			lists = append(lists, l) // else the other form of the same
		}
	}
	slices.SortFunc(lists, func(a, b *streams.Products) int { return cmp.Compare(a.ContentID, b.ContentID) })
	return lists, nil
}

// shownDocuments returns the metadata that a snapshot's clients read, without signatures apart, the shortest first: the site's or,
// where it has none, upstream's. Where a document has the two forms, the unsigned one is enough.
func shownDocuments(man *cache.Manifest) []cache.Entry {
	kind := shownKind(man)
	unsigned := map[string]bool{}
	for _, e := range man.Entries {
		if name, ok := strings.CutSuffix(e.Path, ".json"); ok && e.Kind == kind {
			unsigned[name] = true
		}
	}
	seen := map[cache.Digest]bool{}
	var docs []cache.Entry
	for _, e := range man.Entries {
		name, signed := strings.CutSuffix(e.Path, ".sjson")
		if e.Kind != kind || seen[e.Digest] || strings.HasSuffix(e.Path, ".gpg") || signed && unsigned[name] {
			continue
		}
		seen[e.Digest] = true
		docs = append(docs, e)
	}
	slices.SortFunc(docs, func(a, b cache.Entry) int { return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Path, b.Path)) })
	return docs
}

// shownKind returns whose documents a snapshot's clients read: the site's or, where it has none, upstream's.
func shownKind(man *cache.Manifest) cache.Kind {
	if slices.ContainsFunc(man.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindSite }) {
		return cache.KindSite
	}
	return cache.KindUpstream
}

// documents are what snapshots name, in a store or in a bundle.
type documents interface {
	texts
	Prove(d cache.Digest, w cache.Want) error
}

// texts are documents, of which the files that they name are not asked.
type texts interface {
	ReadFile(d cache.Digest, limit int64) ([]byte, error)
}

// readEntry returns the document that an entry names, proven by its digest.
func readEntry(f texts, e cache.Entry) ([]byte, error) {
	data, err := f.ReadFile(e.Digest, streams.MaxDocument)
	if err == nil && cache.Sum(data) != e.Digest {
		err = cache.ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", e.Path, err)
	}
	return data, nil
}

// readList returns the list that an entry names, without the signature that may be around it; nil: it is an index.
func readList(f documents, e cache.Entry) (*streams.Products, error) {
	data, err := readEntry(f, e)
	if err != nil {
		return nil, err
	}
	l, err := parseList(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", e.Path, err)
	}
	return l, nil
}

// parseList is readList for the bytes of a document.
func parseList(doc []byte) (*streams.Products, error) {
	text, err := textOf(doc)
	if err != nil {
		return nil, err
	}
	if _, err := streams.ParseIndex(text); err == nil {
		return nil, nil
	}
	return streams.ParseProducts(text)
}
