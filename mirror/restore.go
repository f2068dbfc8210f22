package mirror

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"oxbow/cache"
	"oxbow/streams"
)

// restore makes out what those of the site's own documents said that cannot be read: from their other forms and, where none is
// left, from upstream's documents and the files of the snapshot. The error is about the document without which that cannot be told.
func (p *published) restore(f *cache.Files) error {
	for _, u := range p.unread {
		if u.Kind != cache.KindSite {
			return fmt.Errorf("a document of upstream's is lost that vouches for it: %w", u.err)
		}
	}
	if shownKind(p.manifest) != cache.KindSite {
		return nil
	}
	if p.index == nil {
		if err := p.restoreIndex(f); err != nil {
			return err
		}
	}
	var lists []*streams.Products
	var made []string
	for _, e := range p.index.Entries {
		l := p.list(e.ContentID)
		if l == nil {
			if l = p.restoreList(e.ContentID); l == nil {
				return p.untold(e.ContentID, "list no version of which all files are in the snapshot")
			}
			made = append(made, e.ContentID)
			p.restored = append(p.restored, fmt.Sprintf("the list %s of snapshot %.12s is lost, and was made anew: it has every version of upstream's of which all files are in the snapshot", e.ContentID, p.id))
		}
		lists = append(lists, l)
	}
	p.lists = lists
	if unnamed := p.unnamed(); unnamed != "" && len(made) > 0 {
		return p.untold(made[0], "do not tell what "+unnamed+" belongs to")
	}
	return nil
}

// restoreIndex makes an index of the lists that there were from upstream's, and reads those lists of which a form is left.
func (p *published) restoreIndex(f *cache.Files) error {
	x, err := upstreamIndex(f, p.manifest)
	if err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(p.documents)) {
		if strings.HasSuffix(path, ".gpg") {
			continue
		}
		l, err := parseList(p.documents[path])
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", path, err)
		}
		if l != nil && p.list(l.ContentID) == nil {
			p.lists = append(p.lists, l)
		}
	}
	made := *x
	made.Entries = nil
	for _, id := range p.editions() {
		e := &streams.Entry{ContentID: id} // of a list that upstream has no more
		if i := slices.IndexFunc(x.Entries, func(e *streams.Entry) bool { return e.ContentID == id }); i >= 0 {
			e = x.Entries[i]
		}
		made.Entries = append(made.Entries, e)
	}
	p.index = &made
	p.restored = append(p.restored, fmt.Sprintf("the index of snapshot %.12s is lost, and was made anew from upstream's", p.id))
	return nil
}

// editions returns the content ids of the site's lists, by the paths of their documents.
func (p *published) editions() (ids []string) {
	for _, e := range p.manifest.Entries {
		if id, ok := streams.EditionOf(streams.Path(e.Path)); ok && e.Kind == cache.KindSite && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// restoreList returns what upstream's documents list of a content id with all files in the snapshot; nil: nothing. A version that
// the snapshot did not list may be among it, but none without files that are here and proven.
func (p *published) restoreList(contentID string) (l *streams.Products) {
	here := map[streams.Path]cache.Digest{}
	for _, e := range p.manifest.Entries {
		if e.Kind == cache.KindItem {
			here[streams.Path(e.Path)] = e.Digest
		}
	}
	absent := func(it *streams.Item) bool {
		d, there := here[it.Path]
		return it.Path != "" && (!there || it.SHA256 == nil || d != cache.Digest(it.SHA256))
	}
	for _, li := range slices.Backward(p.evidence) { // as in a manifest: upstream's documents of then are behind older ones
		if li.products.ContentID != contentID {
			continue
		}
		whole := li.products.Choose(streams.Choice{Skip: func(at streams.Pedigree) bool {
			return slices.ContainsFunc(li.products.Version(at.Product, at.Version).Items, absent)
		}})
		if l == nil {
			l = whole
			continue
		}
		for _, prod := range whole.Products {
			for _, v := range prod.Versions {
				l.AddVersion(prod, v)
			}
		}
	}
	if l == nil || len(l.Products) == 0 {
		return nil
	}
	return l
}

// unnamed returns the path of a file of the snapshot that none of the lists names, or "".
func (p *published) unnamed() string {
	named := map[string]bool{}
	for _, l := range p.lists {
		for _, it := range l.Items() {
			named[string(it.Path)] = true
		}
	}
	for _, e := range p.manifest.Entries {
		if e.Kind == cache.KindItem && !named[e.Path] {
			return e.Path
		}
	}
	return ""
}

// untold is the error about a list that is lost in both forms, and that upstream's documents do not replace.
func (p *published) untold(contentID, why string) error {
	for _, u := range p.unread {
		if id, ok := streams.EditionOf(streams.Path(u.Path)); ok && id == contentID {
			return fmt.Errorf("list %s is lost, and cannot be made anew, since upstream's documents %s: %w", contentID, why, u.err)
		}
	}
	return fmt.Errorf("list %s is lost: upstream's documents %s", contentID, why)
}
