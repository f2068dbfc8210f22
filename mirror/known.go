package mirror

import (
	"bytes"
	"fmt"
	"slices"

	"oxbow/cache"
	"oxbow/streams"
)

// maxNamed bounds the warnings of one kind about paths: beyond it they are counted.
const maxNamed = 5

// A naming is what upstream's metadata says of a path.
type naming struct {
	version string
	item    *streams.Item
}

// A directory is every path that upstream's metadata names. Where a path stands for
// two contents it is the one of the newer version: clients take the newest.
type directory struct {
	names    map[streams.Path]naming
	warnings []string
}

// directory returns every path that the lists name.
func (c *catalog) directory() *directory {
	d := &directory{names: map[streams.Path]naming{}}
	taken := map[streams.Path]bool{}
	for _, doc := range c.documents() {
		taken[doc.path] = true
	}
	var twice, documents, weak []streams.Path
	for _, li := range c.lists {
		for at, it := range li.products.Items() {
			if it.Path == "" {
				continue
			}
			if taken[it.Path] {
				documents = append(documents, it.Path)
				continue
			}
			before, there := d.names[it.Path]
			if there && !sameContent(before.item, it) {
				twice = append(twice, it.Path)
			}
			if !there || at.Version > before.version || at.Version == before.version && before.item.SHA256 == nil {
				d.names[it.Path] = naming{at.Version, it}
			}
		}
	}
	for path, n := range d.names {
		if !n.fetchable() {
			weak = append(weak, path)
		}
	}
	d.warn(twice, "upstream names two contents of %s: that of the newer version is served")
	d.warn(documents, "upstream names %s as a file, which is one of its documents")
	d.warn(weak, "upstream gives no SHA-256 of %s, which is served only if it is selected")
	return d
}

// warn adds a warning for each path, up to a bound.
func (d *directory) warn(paths []streams.Path, format string) {
	slices.Sort(paths)
	paths = slices.Compact(paths)
	for _, p := range paths[:min(len(paths), maxNamed)] {
		d.warnings = append(d.warnings, fmt.Sprintf(format, p))
	}
	if more := len(paths) - maxNamed; more > 0 {
		d.warnings = append(d.warnings, fmt.Sprintf(format, fmt.Sprintf("%d more files", more)))
	}
}

// fetchable reports whether the content can be told from any other.
func (n naming) fetchable() bool {
	return n.item.SHA256 != nil && !bytes.Equal(n.item.SHA256, make([]byte, len(cache.Digest{})))
}

// sameContent reports whether two items can be of one content.
func sameContent(a, b *streams.Item) bool {
	f := &file{want: wanted(a)}
	return f.agrees(b)
}

// serves reports whether every path of a version stands for its content.
func (d *directory) serves(v *streams.Version) bool {
	return !slices.ContainsFunc(v.Items, func(it *streams.Item) bool {
		n, there := d.names[it.Path]
		return it.Path != "" && (!there || !sameContent(n.item, it))
	})
}

// known returns the entries of what may be fetched: all but the paths that are here.
func (d *directory) known(here map[streams.Path]bool) (entries []cache.Entry) {
	for path, n := range d.names {
		if !here[path] && n.fetchable() {
			entries = append(entries, cache.Entry{Kind: cache.KindKnown, Digest: cache.Digest(n.item.SHA256), Size: n.item.Size, Path: string(path)})
		}
	}
	return entries
}
