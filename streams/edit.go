package streams

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
)

// AddVersion lays a version of product p, from an older list, into this list.
// If the list has that product, the version joins it and inherits its tags; if
// not, a product with p's tags is made. A version that is there already stays.
// Sorted names stay sorted. p and v are not changed.
func (l *Products) AddVersion(p *Product, v *Version) {
	if l.Version(p.Name, v.Name) != nil {
		return
	}
	l.Products = slices.Clone(l.Products)
	at := slices.IndexFunc(l.Products, func(q *Product) bool { return q.Name == p.Name })
	if at < 0 {
		at = firstGreater(l.Products, func(q *Product) bool { return q.Name > p.Name })
		l.Products = slices.Insert(l.Products, at, &Product{Name: p.Name, Fields: p.Fields})
	}
	joined := *l.Products[at]
	i := firstGreater(joined.Versions, func(w *Version) bool { return w.Name > v.Name })
	joined.Versions = slices.Insert(slices.Clone(joined.Versions), i, l.settle(&joined, v))
	l.Products[at] = &joined
}

// firstGreater returns the place of the first element that is greater, else
// the end.
func firstGreater[T any](s []T, greater func(T) bool) int {
	if i := slices.IndexFunc(s, greater); i >= 0 {
		return i
	}
	return len(s)
}

// settle returns v as a version of product p of this list: what its items say
// of their files is written out where they would inherit something else.
func (l *Products) settle(p *Product, v *Version) *Version {
	return v.edit(func(it *Item) *Item {
		if it.Path == "" {
			return it
		}
		var differ []Field
		for _, f := range it.facts() {
			want, _ := scalar(f.Value)
			if got, ok := l.Tag(f.Key, p, v, it); !ok || got != want {
				differ = append(differ, f)
			}
		}
		return it.with(differ...)
	})
}

// WithSHA256 returns the list with the SHA-256 of files that upstream gave by
// another sum only. sum returns it, nil if it is not known.
func (l *Products) WithSHA256(sum func(*Item) []byte) *Products {
	return l.edit(func(p *Product) *Product {
		return p.edit(func(v *Version) *Version {
			return v.edit(func(it *Item) *Item {
				if it.Path == "" || it.SHA256 != nil {
					return it
				}
				known := sum(it)
				if known == nil {
					return it
				}
				given := *it
				given.SHA256 = known
				given.Fields.SetText("sha256", hex.EncodeToString(known))
				return &given
			})
		})
	})
}

// facts are what an item with a path says of its file, as members.
func (it *Item) facts() []Field {
	facts := []Field{{"size", json.RawMessage(strconv.FormatInt(it.Size, 10))}}
	if it.FType != "" {
		facts = append(facts, Field{"ftype", appendQuoted(nil, it.FType)})
	}
	for _, sum := range sums {
		if b := *sum.of(it); b != nil {
			facts = append(facts, Field{sum.tag, appendQuoted(nil, hex.EncodeToString(b))})
		}
	}
	return facts
}

// with returns the item with the given members, the item itself if none are
// given.
func (it *Item) with(fields ...Field) *Item {
	if len(fields) == 0 {
		return it
	}
	changed := *it
	for _, f := range fields {
		changed.Fields.Set(f.Key, f.Value)
	}
	return &changed
}

// The edit methods return a copy with each child replaced by what f returns
// for it, without those for which f returns nil. Products and versions in which
// nothing changes are not copied.

func (l *Products) edit(f func(*Product) *Product) *Products {
	edited := *l
	if products, changed := edit(l.Products, f); changed {
		edited.Products = products
	}
	return &edited
}

func (p *Product) edit(f func(*Version) *Version) *Product {
	versions, changed := edit(p.Versions, f)
	if !changed {
		return p
	}
	return &Product{p.Name, versions, p.Fields}
}

func (v *Version) edit(f func(*Item) *Item) *Version {
	items, changed := edit(v.Items, f)
	if !changed {
		return v
	}
	return &Version{v.Name, items, v.Fields}
}

func edit[T any](old []*T, f func(*T) *T) (edited []*T, changed bool) {
	for i, o := range old {
		n := f(o)
		if n != o && !changed {
			edited, changed = append(make([]*T, 0, len(old)), old[:i]...), true
		}
		if changed && n != nil {
			edited = append(edited, n)
		}
	}
	return edited, changed
}
