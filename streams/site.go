package streams

import (
	"errors"
	"fmt"
	"time"
)

// ErrNothing is returned by [Site.Render] when no list is left to publish.
var ErrNothing = errors.New("nothing is left to publish")

// A Document is a file of metadata.
type Document struct {
	Path  Path
	Bytes []byte
}

// A Site says how lists are published under our own signature.
type Site struct {
	// Updated is the date of whatever is new: index, lists and signatures.
	Updated time.Time

	// Profile says whose rules the published metadata meets.
	Profile Profile

	// Lenient publishes also what breaks rules of the profile: the findings only tell of it.
	Lenient bool

	// Previous returns the document that the site last published at a path,
	// nil if there is none. If nil, nothing was published before.
	Previous func(Path) []byte

	// Key signs. It is required.
	Key *SigningKey
}

// Render returns the documents that publish the lists, sorted by path, and why
// parts of them are left out ([Products.Conform]), unless the site is lenient.
//
// Each list is published as streams/v1/<edition>/<content id> in three forms:
// .json, clearsigned .sjson, and .json.gpg, a detached signature. The edition is
// made of the list's text: a path never changes its meaning, so a client that
// read an index gets the lists of that same index, whatever is published
// meanwhile. The same bytes stand under the plain name, which is the path of the
// list in upstream's index x, or its content id where another document has that
// path. Then there is the index in the three forms: the signed one names the
// signed lists, the other the others.
//
// Entries are upstream's, in upstream's order, with members nobody here knows.
// A list, or the index, that differs from the previous one in its date only keeps
// that date, and all its bytes. But for new signatures, equal arguments give equal
// documents. With no list left the error is [ErrNothing].
func (s Site) Render(x *Index, lists []*Products) ([]Document, []Finding, error) {
	w, err := newSiteWriter(s)
	if err != nil {
		return nil, nil, err
	}
	fields, found := x.Fields.withoutLong("")
	index := Index{Fields: fields, tail: x.tail}
	var published []*Products
	for _, l := range lists {
		conformed, problems := l.Conform(s.Profile)
		found = append(found, problems...)
		if s.Lenient && len(problems) > 0 {
			conformed = l.writtenOut(s.Profile)
		}
		if conformed == nil {
			continue
		}
		entry, problems, err := w.list(x.entry(l.ContentID), conformed)
		found = append(found, problems...)
		if clash, ok := errors.AsType[*clashError](err); ok {
			found = append(found, Finding{Profile: Plain, ContentID: l.ContentID, Problem: clash.Error()})
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("cannot publish list %s: %w", l.ContentID, err)
		}
		index.Entries = append(index.Entries, entry)
		published = append(published, conformed)
	}
	if len(index.Entries) == 0 {
		return nil, found, ErrNothing
	}
	index.Entries = x.ordered(index.Entries)
	if err := w.index(index); err != nil {
		return nil, nil, fmt.Errorf("cannot publish index: %w", err)
	}
	if err := w.checkItems(published); err != nil {
		return nil, nil, fmt.Errorf("cannot publish: %w", err)
	}
	return w.sorted(), found, nil
}
