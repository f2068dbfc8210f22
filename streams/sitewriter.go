package streams

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The endings of the three forms of a document: the text, the text clearsigned,
// and a signature apart from the text.
const (
	textEnding     = ".json"
	signedEnding   = ".sjson"
	detachedEnding = ".json.gpg"
)

const (
	documentDir = "streams/v1/"
	indexName   = documentDir + "index"
)

// An edition is named by the beginning of the SHA-256 of a list's text, in this
// many hex digits. It need not resist forgers: a path is only ever looked up in
// snapshots of our own.
const editionLen = 12

// A siteWriter gathers the documents of one rendering of a site.
type siteWriter struct {
	Site
	own       *Keyring // the key that signs, to judge earlier signatures
	documents map[Path][]byte
	lists     map[string]bool // content ids of the lists added
}

func newSiteWriter(s Site) (*siteWriter, error) {
	if s.Key == nil {
		return nil, errors.New("cannot publish: there is no signing key")
	}
	own, err := ReadKeyring(s.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("cannot publish: %w", err)
	}
	if s.Previous == nil {
		s.Previous = func(Path) []byte { return nil }
	}
	return &siteWriter{s, own, map[Path][]byte{}, map[string]bool{}}, nil
}

// list adds the documents of a list that upstream has the entry for, or nil,
// and returns the new entry. Its Path has no ending.
// A list that no name is left for is a clashError.
func (w *siteWriter) list(upstream *Entry, l *Products) (e *Entry, found []Finding, err error) {
	if w.lists[l.ContentID] {
		return nil, nil, errors.New("there are two lists of that content id")
	}
	w.lists[l.ContentID] = true
	plain := documentDir + l.ContentID
	e = &Entry{ContentID: l.ContentID}
	if upstream != nil {
		if name := plainName(upstream); w.free(name) {
			plain = name
		}
		e.Fields, found = upstream.Fields.withoutLong(l.ContentID)
	}
	if !w.free(plain) {
		return nil, nil, &clashError{plain}
	}
	l, text := w.dated(l, Path(plain+textEnding))
	sum := sha256.Sum256(text)
	name := documentDir + hex.EncodeToString(sum[:])[:editionLen] + "/" + l.ContentID
	if !w.free(name) {
		return nil, nil, &clashError{name}
	}
	forms, err := w.forms(name, text, text)
	if err != nil {
		return nil, nil, err
	}
	for ending, doc := range forms {
		if err := errors.Join(w.add(name+ending, doc), w.add(plain+ending, doc)); err != nil {
			return nil, nil, err
		}
	}
	w.describe(e, l)
	e.Path = Path(name)
	return e, found, nil
}

// A clashError says that a list cannot be published beside the others.
type clashError struct{ name string }

func (e *clashError) Error() string {
	return fmt.Sprintf("another document has the path %s, where the list would be published", e.name)
}

// free reports whether a list can have the name: the index and the lists so far
// do not, and with every ending it is a path.
func (w *siteWriter) free(name string) bool {
	for _, ending := range []string{textEnding, signedEnding, detachedEnding} {
		p, err := ParsePath(name + ending)
		if _, taken := w.documents[p]; err != nil || taken {
			return false
		}
	}
	return name != indexName
}

// plainName returns upstream's path of a list without its ending. If upstream
// is such a site as this one, its paths change with the content, and the plain
// name is the one beside them.
func plainName(e *Entry) string {
	if id, ok := EditionOf(e.Path); ok && id == e.ContentID {
		return documentDir + id
	}
	name, _ := strings.CutSuffix(string(e.Path), textEnding)
	name, _ = strings.CutSuffix(name, signedEnding)
	return name
}

// EditionOf returns the content id of the list of which a site publishes an edition at p.
func EditionOf(p Path) (contentID string, ok bool) {
	name := string(p)
	for _, ending := range []string{detachedEnding, signedEnding, textEnding} {
		name = strings.TrimSuffix(name, ending)
	}
	rest, there := strings.CutPrefix(name, documentDir)
	edition, contentID, ok := strings.Cut(rest, "/")
	return contentID, there && ok && len(edition) == editionLen && strings.Trim(edition, hexDigits) == ""
}

// dated returns the list with its date, and its text: if that is the previous
// text but for the date, the previous text.
func (w *siteWriter) dated(l *Products, at Path) (*Products, []byte) {
	if previous := w.Previous(at); previous != nil {
		same := *l
		same.setUpdated(textUpdated(previous))
		if bytes.Equal(same.Render(), previous) {
			return &same, previous
		}
	}
	fresh := *l
	fresh.setUpdated(FormatTime(w.Updated))
	return &fresh, fresh.Render()
}

// textUpdated returns the date that a document bears, "" if it has none.
func textUpdated(doc []byte) string {
	s, err := newScanner(doc)
	if err != nil {
		return ""
	}
	f, err := s.object("", nil)
	if err != nil {
		return ""
	}
	return f.Text("updated")
}

// forms returns the three forms of a document by ending. signed is the text to
// be clearsigned. A previous signature of the same text by the same key stays.
func (w *siteWriter) forms(name string, text, signed []byte) (forms map[string][]byte, err error) {
	inline := w.previousSigned(Path(name+signedEnding), signed)
	if inline == nil {
		if inline, err = w.Key.Clearsign(signed, w.Updated); err != nil {
			return nil, err
		}
	}
	detached := w.previousSignature(Path(name+detachedEnding), text)
	if detached == nil {
		if detached, err = w.Key.Detach(text, w.Updated); err != nil {
			return nil, err
		}
	}
	return map[string][]byte{textEnding: text, signedEnding: inline, detachedEnding: detached}, nil
}

// previousSigned returns the document at p if our key signed this text there.
func (w *siteWriter) previousSigned(p Path, text []byte) []byte {
	doc := w.Previous(p)
	if doc == nil {
		return nil
	}
	if s, err := w.own.Verify(doc, w.Updated); err != nil || !sameText(s.Text, text) {
		return nil
	}
	return doc
}

// previousSignature returns the document at p if it is our key's signature of
// this text.
func (w *siteWriter) previousSignature(p Path, text []byte) []byte {
	sig := w.Previous(p)
	if sig == nil {
		return nil
	}
	if _, err := w.own.VerifyDetached(text, sig, w.Updated); err != nil {
		return nil
	}
	return sig
}

// sameText compares texts as a clearsigned document keeps them.
func sameText(a, b []byte) bool {
	return bytes.Equal(bytes.TrimRight(a, "\n"), bytes.TrimRight(b, "\n"))
}

// add refuses a second document at a path.
func (w *siteWriter) add(name string, doc []byte) error {
	p, err := ParsePath(name)
	if err != nil {
		return err
	}
	if old, taken := w.documents[p]; taken && !bytes.Equal(old, doc) {
		return fmt.Errorf("another document has the path %s", p)
	}
	w.documents[p] = doc
	return nil
}

// describe writes into e what is in the list.
func (w *siteWriter) describe(e *Entry, l *Products) {
	if w.Profile.includes(V38) {
		e.Fields = e.Fields.without("name")
	}
	e.Format, e.Updated = productsFormat, l.Updated
	e.Fields.SetText("format", e.Format)
	e.Fields.SetText("updated", e.Updated)
	if l.DataType != "" {
		e.DataType = l.DataType
		e.Fields.SetText("datatype", e.DataType)
	}
	for _, p := range l.Products {
		e.Products = append(e.Products, p.Name)
	}
	slices.Sort(e.Products)
	names := []byte{'['}
	for i, name := range e.Products {
		if i > 0 {
			names = append(names, ',')
		}
		names = appendQuoted(names, name)
	}
	e.Fields.Set("products", append(names, ']'))
}

// index adds the documents of the index, whose entries have paths without
// ending.
func (w *siteWriter) index(x Index) error {
	x.Fields.SetText("updated", w.indexDate(x))
	signed := x.withEnding(signedEnding).Render()
	forms, err := w.forms(indexName, x.withEnding(textEnding).Render(), signed)
	if err != nil {
		return err
	}
	for ending, doc := range forms {
		if err := w.add(indexName+ending, doc); err != nil {
			return err
		}
	}
	return nil
}

// indexDate is the date of the previous index where nothing else is new in x.
func (w *siteWriter) indexDate(x Index) string {
	if previous := w.Previous(indexName + textEnding); previous != nil {
		date := textUpdated(previous)
		x.Fields.SetText("updated", date)
		if bytes.Equal(x.withEnding(textEnding).Render(), previous) {
			return date
		}
	}
	return FormatTime(w.Updated)
}

// withEnding returns the index with an ending added to the paths of all lists.
func (x Index) withEnding(ending string) *Index {
	entries := make([]*Entry, len(x.Entries))
	for i, e := range x.Entries {
		named := *e
		named.Path += Path(ending)
		named.Fields.SetText("path", string(named.Path))
		entries[i] = &named
	}
	x.Entries = entries
	return &x
}

// checkItems reports an item that has the path of a document.
func (w *siteWriter) checkItems(lists []*Products) error {
	for _, l := range lists {
		for at, it := range l.Items() {
			if _, taken := w.documents[it.Path]; taken {
				return fmt.Errorf("%s: %v has the path of a document, %s", l.ContentID, at, it.Path)
			}
		}
	}
	return nil
}

func (w *siteWriter) sorted() []Document {
	var docs []Document
	for _, p := range slices.Sorted(maps.Keys(w.documents)) {
		docs = append(docs, Document{p, w.documents[p]})
	}
	return docs
}

// entry returns the entry of a list, nil if there is none.
func (x *Index) entry(contentID string) *Entry {
	for _, e := range x.Entries {
		if e.ContentID == contentID {
			return e
		}
	}
	return nil
}

// ordered returns entries in the order that x has them in; others go before
// the first greater one.
func (x *Index) ordered(entries []*Entry) []*Entry {
	var ordered, others []*Entry
	for _, known := range x.Entries {
		for _, e := range entries {
			if e.ContentID == known.ContentID {
				ordered = append(ordered, e)
			}
		}
	}
	for _, e := range entries {
		if x.entry(e.ContentID) == nil {
			others = append(others, e)
		}
	}
	for _, e := range others {
		i := firstGreater(ordered, func(o *Entry) bool { return o.ContentID > e.ContentID })
		ordered = slices.Insert(ordered, i, e)
	}
	return ordered
}
