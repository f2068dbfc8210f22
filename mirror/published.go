package mirror

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"oxbow/cache"
	"oxbow/streams"
)

// published is what a stream shows its clients now. The zero value stands for
// a stream without a snapshot.
type published struct {
	id        cache.Digest
	manifest  *cache.Manifest
	documents map[string][]byte // site documents by path
	index     *streams.Index    // nil without a snapshot
	lists     []*streams.Products
	evidence  []list // upstream's documents that vouch for it, newest first
}

// published reads the current snapshot of a stream.
func (m *Mirror) published(name string) (*published, error) {
	snap, err := m.store.Current(name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return &published{}, nil
	}
	if err != nil {
		return nil, err
	}
	man, err := m.store.Manifest(name, snap.ID)
	if err != nil {
		return nil, err
	}
	p := &published{id: snap.ID, manifest: man, documents: map[string][]byte{}}
	for _, e := range man.Entries {
		switch e.Kind {
		case cache.KindSite:
			if p.documents[e.Path], err = m.readBlob(e.Digest); err != nil {
				return nil, fmt.Errorf("cannot read %s of snapshot %s: %w", e.Path, snap.ID, err)
			}
		case cache.KindUpstream, cache.KindEvidence:
			if err := m.addEvidence(p, e); err != nil {
				return nil, fmt.Errorf("cannot read %s of snapshot %s: %w", e.Path, snap.ID, err)
			}
		}
	}
	return p, p.parse()
}

// parse reads the site's own metadata: what clients were told last.
func (p *published) parse() (err error) {
	p.index, err = streams.ParseIndex(p.documents[string(unsignedIndex)])
	if err != nil {
		return fmt.Errorf("cannot read the published index: %w", err)
	}
	for _, e := range p.index.Entries {
		l, err := streams.ParseProducts(p.documents[string(e.Path)])
		if err != nil {
			return fmt.Errorf("cannot read the published list %s: %w", e.ContentID, err)
		}
		p.lists = append(p.lists, l)
	}
	return nil
}

// addEvidence opens an upstream document that was verified when it arrived.
// Documents other than lists are kept in the store only.
func (m *Mirror) addEvidence(p *published, e cache.Entry) error {
	doc := document{path: streams.Path(e.Path), digest: e.Digest}
	if e.Kind == cache.KindEvidence {
		doc.path = evidenceOrigin(e.Path)
	}
	switch path.Base(e.Path) {
	case path.Base(string(signedIndex)), path.Base(string(unsignedIndex)):
		return nil
	}
	var err error
	if doc.bytes, err = m.readBlob(e.Digest); err != nil {
		return err
	}
	text := doc.bytes
	if streams.IsClearsigned(text) {
		if text, err = streams.ClearText(text); err != nil {
			return err
		}
	}
	l, err := streams.ParseProducts(text)
	if err != nil {
		return err
	}
	li := list{document: doc, l: l}
	if e.Kind == cache.KindUpstream {
		p.evidence = append([]list{li}, p.evidence...)
	} else {
		p.evidence = append(p.evidence, li)
	}
	return nil
}

// An evidence entry's path is the document's own below a folder named by its
// digest: several documents of one path may vouch for different versions.
func evidencePath(li list) string {
	return li.digest.String()[:16] + "/" + string(li.path)
}

func evidenceOrigin(p string) streams.Path {
	_, origin, _ := strings.Cut(p, "/")
	return streams.Path(origin)
}

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
// path of the list, or nil.
func (p *published) entry(contentID string, origin streams.Path) *streams.Entry {
	for _, e := range p.index.Entries {
		if e.ContentID == contentID {
			restored := *e
			restored.Path = origin
			return &restored
		}
	}
	return nil
}

// voucher returns the newest document that lists a version, or nil.
func (p *published) voucher(contentID, product, version string) *list {
	for i := range p.evidence {
		if li := &p.evidence[i]; li.l.ContentID == contentID && li.l.Version(product, version) != nil {
			return li
		}
	}
	return nil
}

func escapePath(p string) string {
	// url.URL escapes what a path cannot hold and keeps ':' as it is, except
	// in the first element of a relative one; a leading slash avoids that.
	return strings.TrimPrefix((&url.URL{Path: "/" + p}).EscapedPath(), "/")
}
