package streamstest

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"oxbow/streams"
)

// Epoch is when the trees of this package begin: the date of the first index.
var Epoch = time.Date(2025, 7, 24, 8, 1, 48, 0, time.UTC)

// A Tree is an upstream. It is plain data, to be built, changed and rendered by
// one goroutine at a time.
type Tree struct {
	// Updated is the date of the index, and of signatures.
	Updated time.Time
	Lists   []*List
	Tags    Tags // laid over the index
	// Key signs. If nil, the tree has no signed documents at all.
	Key *streams.SigningKey
	// Extra are files that no list names, by path.
	Extra map[string]*File
}

// Tags are members of a JSON object: strings, booleans, integers, []string,
// nested Tags or [json.RawMessage]. What they say goes before what is made up
// from other fields; nil leaves a member out.
type Tags map[string]any

// A List is a products document.
type List struct {
	ContentID string
	Path      string // of the unsigned form; "streams/v1/" + ContentID + ".json" if empty
	DataType  string // left out if empty
	Updated   time.Time
	// Ahead is how much later than Updated the list dates itself; the index always
	// says Updated. In the real stream it is an hour.
	Ahead    time.Duration
	Tags     Tags // of the list
	Entry    Tags // laid over its entry in the index
	Products []*Product
}

// A Product has tags and versions.
type Product struct {
	Name     string
	Tags     Tags
	Versions []*Version
}

// A Version has tags and items.
type Version struct {
	Name  string // a serial; the greatest string is the newest
	Tags  Tags
	Items []*Item
}

// An Item may name a file, whose path, size and sums become members of it.
type Item struct {
	Name string
	Tags Tags
	File *File
	// Sums are the digests that are given: "md5", "sha256", "sha512". If nil, sha256.
	Sums []string
	// SizeAsString renders the size in quotes.
	SizeAsString bool
}

// Entry is an item with what it belongs to.
type Entry struct {
	List    *List
	Product *Product
	Version *Version
	Item    *Item
}

// String returns "product/version/item".
func (e Entry) String() string {
	return e.Product.Name + "/" + e.Version.Name + "/" + e.Item.Name
}

// NewTree returns an empty tree with a throw-away key of its own, dated [Epoch].
func NewTree() *Tree {
	key, err := streams.GenerateSigningKey(streams.Ed25519, "streamstest upstream", Epoch)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return &Tree{Updated: Epoch, Key: key}
}

// Keyring returns the public key as a binary keyring, nil if the tree is unsigned.
func (t *Tree) Keyring() []byte {
	if t.Key == nil {
		return nil
	}
	return t.Key.Public()
}

// Entries yields every item, in the order of the tree.
func (t *Tree) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, l := range t.Lists {
			for _, p := range l.Products {
				for _, v := range p.Versions {
					for _, i := range v.Items {
						if !yield(Entry{l, p, v, i}) {
							return
						}
					}
				}
			}
		}
	}
}

// Files returns the files that items name, by path.
func (t *Tree) Files() map[string]*File {
	files := make(map[string]*File)
	for e := range t.Entries() {
		if f := e.Item.File; f != nil && files[f.Path] == nil {
			files[f.Path] = f
		}
	}
	return files
}

// File returns the file at path, also one of Extra. It panics if there is none:
// the test has a wrong path.
func (t *Tree) File(path string) *File {
	if f := t.Files()[path]; f != nil {
		return f
	}
	if f := t.Extra[path]; f != nil {
		return f
	}
	panic(fmt.Sprintf("streamstest: no file %q; there are %q", path, slices.Sorted(maps.Keys(t.Files()))))
}

// List returns the list with the content id. It panics if there is none.
func (t *Tree) List(contentID string) *List {
	for _, l := range t.Lists {
		if l.ContentID == contentID {
			return l
		}
	}
	panic(fmt.Sprintf("streamstest: no list %q", contentID))
}

// Product returns the product of the name. It panics if there is none.
func (t *Tree) Product(name string) *Product {
	for _, l := range t.Lists {
		for _, p := range l.Products {
			if p.Name == name {
				return p
			}
		}
	}
	panic(fmt.Sprintf("streamstest: no product %q", name))
}

// Size returns the bytes of all files that items name, each path once.
func (t *Tree) Size() int64 {
	var sum int64
	for _, f := range t.Files() {
		sum += f.Length()
	}
	return sum
}

// Clone returns an independent copy with the same key; a file that several
// items shared is shared in the copy too.
func (t *Tree) Clone() *Tree {
	files := make(map[*File]*File)
	file := func(f *File) *File {
		if f != nil && files[f] == nil {
			files[f] = f.clone()
		}
		return files[f]
	}
	c := *t
	c.Tags, c.Lists, c.Extra = maps.Clone(t.Tags), nil, make(map[string]*File)
	for _, l := range t.Lists {
		list := *l
		list.Tags, list.Entry, list.Products = maps.Clone(l.Tags), maps.Clone(l.Entry), nil
		for _, p := range l.Products {
			product := &Product{Name: p.Name, Tags: maps.Clone(p.Tags)}
			for _, v := range p.Versions {
				version := &Version{Name: v.Name, Tags: maps.Clone(v.Tags)}
				for _, i := range v.Items {
					item := *i
					item.Tags, item.Sums, item.File = maps.Clone(i.Tags), slices.Clone(i.Sums), file(i.File)
					version.Items = append(version.Items, &item)
				}
				product.Versions = append(product.Versions, version)
			}
			list.Products = append(list.Products, product)
		}
		c.Lists = append(c.Lists, &list)
	}
	for path, f := range t.Extra {
		c.Extra[path] = file(f)
	}
	return &c
}
