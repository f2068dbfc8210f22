package streams

import "fmt"

// A level is one object on the way from a list down to an item. Under nameKey,
// filters and MAAS see its name.
type level struct {
	fields        Fields
	nameKey, name string
}

// A scope is a place in a list with all that it inherits, outermost first.
type scope struct {
	aliases aliases
	levels  [4]level
	n       int
}

func (l *Products) scope(p *Product, v *Version, it *Item) scope {
	s := scope{aliases: l.aliases, n: 1}
	s.levels[0].fields = l.Fields
	if p != nil {
		s.levels[1], s.n = level{p.Fields, "product_name", p.Name}, 2
	}
	if v != nil {
		s.levels[2], s.n = level{v.Fields, "version_name", v.Name}, 3
	}
	if it != nil {
		s.levels[3], s.n = level{it.Fields, "item_name", it.Name}, 4
	}
	return s
}

// Tag returns the value of a tag at a place in the list, as text and as python
// simplestreams flattens it: a scalar of the item, else of the version, the
// product, the list. Aliases are followed, and product_name, version_name and
// item_name are the names. The later arguments may be nil, from the right.
func (l *Products) Tag(key string, p *Product, v *Version, it *Item) (text string, ok bool) {
	s := l.scope(p, v, it)
	return s.tag(key)
}

func (s *scope) tag(key string) (text string, ok bool) {
	for i := s.n - 1; i >= 0; i-- {
		if s.levels[i].nameKey == key {
			return s.levels[i].name, true
		}
		if text, ok := scalar(s.aliases.expand(s.levels[i].fields).Raw(key)); ok {
			return text, true
		}
	}
	return "", false
}

// aliases are what a list says under _aliases: for a tag and a value of it, the
// members that stand in for more. The clients built on python simplestreams
// expand them.
type aliases map[string]map[string]Fields

// parseAliases reads the table. What it lists may have aliases itself: these are
// expanded in file order.
func parseAliases(raw []byte) (aliases, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return nil, nil
	}
	a := aliases{}
	var inOrder []func() error
	s := subScanner(raw)
	err := s.members(func(tag string) error {
		rows := map[string]Fields{}
		err := s.members(func(value string) (err error) {
			rows[value], err = s.object("", nil)
			inOrder = append(inOrder, func() error {
				err := a.check(rows[value])
				rows[value] = a.expand(rows[value])
				return err
			})
			return err
		})
		if len(rows) > 0 {
			a[tag] = rows
		}
		return err
	})
	for _, expand := range inOrder {
		if err == nil {
			err = expand()
		}
	}
	return a, err
}

// expand returns f with what its aliases stand for; these win over f's own
// members.
func (a aliases) expand(f Fields) Fields {
	if len(a) == 0 {
		return f
	}
	out := f
	for _, e := range f {
		if value := out.Raw(e.Key); a[e.Key] != nil && len(value) > 2 && value[0] == '"' {
			for _, r := range a[e.Key][unquote(value)] {
				out.Set(r.Key, r.Value)
			}
		}
	}
	return out
}

// check refuses what makes python simplestreams fail: a tag that has aliases,
// with a value that is none of them.
func (a aliases) check(f Fields) error {
	for tag, rows := range a {
		value := f.Raw(tag)
		if len(value) <= 2 || value[0] != '"' {
			continue
		}
		if _, ok := rows[unquote(value)]; !ok {
			return fmt.Errorf("%s is %s, which _aliases does not list", tag, value)
		}
	}
	return nil
}
