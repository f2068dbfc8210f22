package mirror

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// A catalog is all that upstream's verified metadata says, as the source at one
// base URL had it at one time.
type catalog struct {
	base     string // without a trailing slash
	indexDoc document
	index    *streams.Index
	lists    []list // in the order of the index; nil until they are read

	// family are the unsigned forms of these documents, and their detached
	// signatures, where they are published as well.
	family []document

	// warnings say what of the metadata was passed over.
	warnings []string
	// unsettled is set when index and lists, or the signed and the unsigned family,
	// went on contradicting each other: they may be put right under the same index.
	unsettled bool

	custody syncCustody
}

// A document is one of upstream's own, as it came.
type document struct {
	path   streams.Path
	bytes  []byte
	digest cache.Digest
	offer  *offer // of its custody, by the answer that brought it or said that it is as it was; nil: none
}

// A list is a products document and the index entry that names it.
type list struct {
	document
	entry    *streams.Entry
	products *streams.Products
}

// ErrVerification is wrapped by every error that means: upstream said
// something that must not be believed. Nothing of that stream was published.
var ErrVerification = errors.New("verification failed")

// A contradictionError says how an index and its lists disagree.
type contradictionError string

func (e contradictionError) Error() string { return string(e) }

// contradiction compares the products that the index promises with those of
// the lists. The dates are not compared: in the real stream the index's
// `updated` of a list differs from the list's own.
func (c *catalog) contradiction() error {
	for _, li := range c.lists {
		promised := make(map[string]bool, len(li.entry.Products))
		for _, name := range li.entry.Products {
			promised[name] = true
			if li.products.Product(name) == nil {
				return contradictionError(fmt.Sprintf("the index names the product %s, which the list %s lacks", name, li.products.ContentID))
			}
		}
		for _, p := range li.products.Products {
			if !promised[p.Name] {
				return contradictionError(fmt.Sprintf("the list %s has the product %s, which the index does not name", li.products.ContentID, p.Name))
			}
		}
	}
	return nil
}

// dates returns what a sync of c makes the accepted state.
func (c *catalog) dates() (index time.Time, lists map[string]time.Time) {
	index, _ = streams.ParseTime(c.index.Updated)
	lists = map[string]time.Time{}
	for _, li := range c.lists {
		lists[li.products.ContentID], _ = streams.ParseTime(li.products.Updated)
	}
	return index, lists
}

// documents returns upstream's documents, those that were verified first.
func (c *catalog) documents() []document {
	all := []document{c.indexDoc}
	for _, li := range c.lists {
		all = append(all, li.document)
	}
	return append(all, c.family...)
}

// sameIndex reports whether two catalogs have the index from the same place and
// with the same content.
func (c *catalog) sameIndex(other *catalog) bool {
	return c.base == other.base && c.indexDoc.digest == other.indexDoc.digest
}

// readBlob returns a small blob whole.
func (m *Mirror) readBlob(d cache.Digest) ([]byte, error) {
	return m.store.Files().ReadFile(d, streams.MaxDocument)
}

// fileURL joins a base URL and a path: the path's characters are sent
// literally where a URL allows them, as simplestreams' own clients do.
func fileURL(base string, p streams.Path) string {
	// url.URL keeps ':' as it is, except in the first element of a relative
	// path; the leading slash avoids that.
	return strings.TrimRight(base, "/") + (&url.URL{Path: "/" + string(p)}).EscapedPath()
}

// shown returns a URL for people: without the user and password that it may hold.
func shown(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(malformed URL)"
	}
	return upstream.Display(u)
}
