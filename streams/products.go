package streams

import (
	"errors"
	"fmt"
	"iter"
	"slices"
)

// Products is a products:1.0 document, a list: what a stream offers of one
// kind.
//
// [Products.Render] prints Fields, at every level; the other members are what
// parsing found there. Lists share what they have in common, so a list, and
// all below it, is changed only through its methods: [Products.AddVersion]
// changes the list it is called on and no other, all others return a new list.
type Products struct {
	ContentID, Format, DataType, Updated string
	Products                             []*Product // in file order
	Fields                               Fields
	aliases                              aliases
	tail                                 []byte // white space after the document
	size                                 int    // of the document, a hint for Render
}

// A Product is one thing that is published again and again.
type Product struct {
	Name     string
	Versions []*Version // in file order; the newest is the one with the greatest name
	Fields   Fields
}

// A Version is one publication of a product.
type Version struct {
	Name   string
	Items  []*Item // in file order
	Fields Fields
}

// An Item is one file of a version, or, if Path is empty, only what is said
// of something that is no file in this tree.
//
// FType, Size and the sums are resolved through inheritance. With a Path, Size
// and at least one sum are given. A sum is nil if it is not given.
type Item struct {
	Name, FType         string
	Path                Path
	Size                int64 // in bytes
	MD5, SHA256, SHA512 []byte
	Fields              Fields
}

// ParseProducts reads a products:1.0 document of at most [MaxDocument] bytes.
// It refuses duplicate keys, members of the wrong type, unsafe paths and paths
// without size or any sum, naming the pedigree. doc must not change
// afterwards: the result refers to it.
func ParseProducts(doc []byte) (*Products, error) {
	l, err := parseProducts(doc)
	if err != nil {
		return nil, fmt.Errorf("cannot parse products: %w", err)
	}
	return l, nil
}

func parseProducts(doc []byte) (*Products, error) {
	s, err := newScanner(doc)
	if err != nil {
		return nil, err
	}
	l := &Products{size: len(doc)}
	l.Fields, err = s.object("products", func(name string) error {
		p, err := parseProduct(s, name)
		l.Products = append(l.Products, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.tail = s.tail()
	if err := l.parseHead(); err != nil {
		return nil, err
	}
	if l.aliases, err = parseAliases(l.Fields.Raw("_aliases")); err != nil {
		return nil, fmt.Errorf("_aliases: %w", err)
	}
	return l, l.resolve(s)
}

func (l *Products) parseHead() (err error) {
	if l.Format, err = l.Fields.format(productsFormat); err != nil {
		return err
	}
	if l.ContentID, err = l.Fields.str("content_id"); err != nil {
		return err
	}
	if l.ContentID == "" {
		return errors.New("content_id is missing")
	}
	if !l.Fields.has("products") {
		return errors.New("products is missing")
	}
	if l.DataType, err = l.Fields.str("datatype"); err != nil {
		return err
	}
	l.Updated, err = l.Fields.str("updated")
	return err
}

func parseProduct(s *scanner, name string) (*Product, error) {
	p := &Product{Name: name}
	fields, err := s.object("versions", func(name string) error {
		v, err := parseVersion(s, Pedigree{Product: p.Name, Version: name})
		p.Versions = append(p.Versions, v)
		return err
	})
	p.Fields = fields
	return p, locate(Pedigree{Product: name}, err)
}

func parseVersion(s *scanner, at Pedigree) (*Version, error) {
	v := &Version{Name: at.Version}
	fields, err := s.object("items", func(name string) error {
		it := &Item{Name: name}
		var err error
		it.Fields, err = s.object("", nil)
		v.Items = append(v.Items, it)
		return locate(Pedigree{at.Product, at.Version, name}, err)
	})
	v.Items = slices.Clip(v.Items)
	v.Fields = fields
	return v, locate(at, err)
}

// A placeError says where in a list something is wrong.
type placeError struct {
	at  Pedigree
	err error
}

func (e *placeError) Error() string { return fmt.Sprintf("%v: %v", e.at, e.err) }

// locate names the deepest place of an error.
func locate(at Pedigree, err error) error {
	if _, placed := errors.AsType[*placeError](err); err == nil || placed {
		return err
	}
	return &placeError{at, err}
}

// Items walks over the items of the list in file order.
func (l *Products) Items() iter.Seq2[Pedigree, *Item] {
	return func(yield func(Pedigree, *Item) bool) {
		for _, p := range l.Products {
			for _, v := range p.Versions {
				for _, it := range v.Items {
					if !yield(Pedigree{p.Name, v.Name, it.Name}, it) {
						return
					}
				}
			}
		}
	}
}

// Product returns the product of that name, nil if there is none.
func (l *Products) Product(name string) *Product {
	for _, p := range l.Products {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Version returns a version of a product, nil if there is none.
func (l *Products) Version(product, version string) *Version {
	p := l.Product(product)
	if p == nil {
		return nil
	}
	for _, v := range p.Versions {
		if v.Name == version {
			return v
		}
	}
	return nil
}
