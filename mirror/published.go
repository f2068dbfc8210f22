package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"oxbow/cache"
	"oxbow/streams"
)

// published is what a stream shows its clients now. A stream without a snapshot
// has no manifest.
type published struct {
	id        cache.Digest
	manifest  *cache.Manifest
	documents map[string][]byte // site documents by path; none where upstream's are shown
	index     *streams.Index
	lists     []*streams.Products
	evidence  []list   // upstream's lists that vouch for it, without entries
	unread    []unread // documents of either
	restored  []string // warnings of what restore had to make anew
}

// An unread is a document that cannot be read.
type unread struct {
	cache.Entry
	err error
}

// published reads the current snapshot of a stream. Metadata that is lost or
// damaged is made anew by the next publication, and so it is only warned of. What
// is told by either form of a document is not lost with the other; with both, which
// versions to keep that upstream no longer has.
func (m *Mirror) published(name string) (*published, error) {
	snap, err := m.store.Current(name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return &published{}, nil
	}
	if err != nil {
		return nil, err
	}
	man, err := m.store.Manifest(name, snap.ID)
	if errors.Is(err, cache.ErrCorrupt) || errors.Is(err, cache.ErrNoSnapshot) {
		m.log.Error("the current snapshot is damaged and will be made anew", "stream", name, "snapshot", snap.ID, "reason", err)
		return &published{id: snap.ID}, nil
	}
	if err != nil {
		return nil, err
	}
	p := &published{id: snap.ID, manifest: man, documents: map[string][]byte{}}
	if err := p.read(m.store.Files()); err != nil {
		m.log.Error("the published metadata is damaged and will be made anew", "stream", name, "snapshot", snap.ID, "reason", err)
		if err := m.doubt(p.unread); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// doubt sets documents aside that are lost or damaged, so that they are made or fetched anew.
func (m *Mirror) doubt(documents []unread) error {
	for _, d := range documents {
		if !errors.Is(d.err, cache.ErrCorrupt) && !errors.Is(d.err, cache.ErrMiss) {
			continue
		}
		if err := m.store.Doubt(d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// read opens the documents of the snapshot. The error is about those that cannot be read; the others are there all the same.
func (p *published) read(f *cache.Files) error {
	var errs []error
	for _, e := range p.manifest.Entries {
		if e.Kind != cache.KindSite && e.Kind != cache.KindUpstream && e.Kind != cache.KindEvidence || isCustody(e) {
			continue
		}
		data, err := readEntry(f, e)
		switch {
		case err != nil:
			p.unread = append(p.unread, unread{e, err})
		case e.Kind == cache.KindSite:
			p.documents[e.Path] = data
		default:
			if err = p.addEvidence(e, data); err != nil {
				err = fmt.Errorf("cannot read %s: %w", e.Path, err)
			}
		}
		errs = append(errs, err)
	}
	if shownKind(p.manifest) == cache.KindSite { // else upstream's own are what clients read
		errs = append(errs, p.parse())
	}
	return errors.Join(errs...)
}

// result says what the snapshot shows, as the result of a sync that changes nothing.
func (p *published) result(stream string) *Result {
	shown := Plan{lists: p.lists}
	shown.count()
	res := &Result{Stream: stream, Products: shown.Products, Versions: shown.Versions, Items: shown.Items, Known: p.known()}
	if !p.id.IsZero() {
		res.Snapshot = p.id.String()
	}
	return res
}

// known returns the number of files that may be pulled through.
func (p *published) known() (n int) {
	if p.manifest == nil {
		return 0
	}
	for _, e := range p.manifest.Entries {
		if e.Kind == cache.KindKnown {
			n++
		}
	}
	return n
}

// parse reads the site's own metadata: what clients were told last. A list that cannot be read is left out.
func (p *published) parse() error {
	text, err := p.text(streams.UnsignedIndex)
	if err == nil {
		p.index, err = streams.ParseIndex(text)
	}
	if err != nil {
		return fmt.Errorf("cannot read the published index: %w", err)
	}
	var errs []error
	for _, e := range p.index.Entries {
		var l *streams.Products
		text, err := p.text(e.Path)
		if err == nil {
			l, err = streams.ParseProducts(text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read the published list %s: %w", e.ContentID, err))
			continue
		}
		p.lists = append(p.lists, l)
	}
	return errors.Join(errs...)
}

// text returns what a document of the site says, of which either form is there.
func (p *published) text(path streams.Path) ([]byte, error) {
	name := strings.TrimSuffix(strings.TrimSuffix(string(path), ".json"), ".sjson")
	if doc, ok := p.documents[name+".json"]; ok {
		return doc, nil
	}
	doc, ok := p.documents[name+".sjson"]
	if !ok {
		return nil, fmt.Errorf("neither %s.json nor %s.sjson is there", name, name)
	}
	return streams.ClearText(doc)
}

// addEvidence opens a document of upstream's, which was verified when it
// arrived. An index vouches for nothing by itself, nor does a signature apart.
func (p *published) addEvidence(e cache.Entry, data []byte) error {
	if strings.HasSuffix(e.Path, ".gpg") {
		return nil
	}
	l, err := parseList(data)
	if err != nil || l == nil {
		return err
	}
	doc := document{path: streams.Path(e.Path), bytes: data, digest: e.Digest}
	if e.Kind == cache.KindEvidence {
		doc.path = evidenceOrigin(e.Path)
	}
	p.evidence = append(p.evidence, list{document: doc, products: l})
	return nil
}

// An evidence entry's path is the document's own below a folder named by its
// digest: several documents of one path may vouch for different versions.
func evidencePath(doc document) string {
	return doc.digest.String()[:16] + "/" + string(doc.path)
}

func evidenceOrigin(p string) streams.Path {
	_, origin, _ := strings.Cut(p, "/")
	return streams.Path(origin)
}

// document returns a published document of the site, or nil.
func (p *published) document(path streams.Path) []byte { return p.documents[string(path)] }

// list returns the published list of a content id, or nil.
func (p *published) list(contentID string) *streams.Products {
	for _, l := range p.lists {
		if l.ContentID == contentID {
			return l
		}
	}
	return nil
}

// entry returns the published index entry of a content id with upstream's own
// path of the list.
func (p *published) entry(contentID string, origin streams.Path) *streams.Entry {
	restored := &streams.Entry{ContentID: contentID}
	for _, e := range p.index.Entries {
		if e.ContentID == contentID {
			*restored = *e
		}
	}
	restored.Path = origin
	return restored
}

// voucher returns a document of upstream's that lists a version as it is
// published, and that is believed now, or nil: the path of a version's file may have
// come to stand for other bytes since.
func (p *published) voucher(id versionID, believed func(document) bool) *list {
	now := p.list(id.contentID).Version(id.product, id.version)
	for i := range p.evidence {
		li := &p.evidence[i]
		if li.products.ContentID != id.contentID {
			continue
		}
		if v := li.products.Version(id.product, id.version); v != nil && covers(v, now) && believed(li.document) {
			return li
		}
	}
	return nil
}

// covers reports whether v lists every file of part with the same content.
func covers(v, part *streams.Version) bool {
	for _, it := range part.Items {
		same := func(other *streams.Item) bool {
			return other.Name == it.Name && other.Path == it.Path && other.Size == it.Size &&
				(other.SHA256 == nil || bytes.Equal(other.SHA256, it.SHA256))
		}
		if it.Path != "" && !slices.ContainsFunc(v.Items, same) {
			return false
		}
	}
	return true
}
