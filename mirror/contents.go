package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"oxbow/cache"
	"oxbow/streams"
)

// CountProducts returns how many products the index of a snapshot names: that which clients are shown. It reads no list.
func CountProducts(f *cache.Files, man *cache.Manifest) (n int, err error) {
	for _, e := range shownDocuments(man) {
		text, err := readDocumentText(f, e)
		if err != nil {
			return 0, err
		}
		x, err := streams.ParseIndex(text)
		if err != nil {
			continue // a list that is shorter than the index
		}
		for _, e := range x.Entries {
			n += len(e.Products)
		}
		return n, nil
	}
	return 0, fmt.Errorf("cannot count the products of a snapshot of %s: it has no index", man.Stream)
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
func shownLists(f *cache.Files, man *cache.Manifest) (lists []*streams.Products, err error) {
	for _, e := range shownDocuments(man) {
		text, err := readDocumentText(f, e)
		if err != nil {
			return nil, err
		}
		if _, err := streams.ParseIndex(text); err == nil {
			continue
		}
		l, err := streams.ParseProducts(text)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", e.Path, err)
		}
		if !slices.ContainsFunc(lists, func(have *streams.Products) bool { return have.ContentID == l.ContentID }) {
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

// readEntry returns the document that an entry names, proven by its digest.
func readEntry(f *cache.Files, e cache.Entry) ([]byte, error) {
	data, err := f.ReadFile(e.Digest, streams.MaxDocument)
	if err == nil && cache.Sum(data) != e.Digest {
		err = cache.ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", e.Path, err)
	}
	return data, nil
}

// readDocumentText returns the text of a document of a snapshot, without the signature that may be around it.
func readDocumentText(f *cache.Files, e cache.Entry) ([]byte, error) {
	data, err := readEntry(f, e)
	if err != nil {
		return nil, err
	}
	text, err := textOf(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", e.Path, err)
	}
	return text, nil
}
