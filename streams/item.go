package streams

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// sums are the tags of checksums, the weakest first, with their lengths in
// bytes.
var sums = [...]struct {
	tag  string
	size int
	of   func(*Item) *[]byte
}{
	{"md5", 16, func(it *Item) *[]byte { return &it.MD5 }},
	{"sha256", 32, func(it *Item) *[]byte { return &it.SHA256 }},
	{"sha512", 64, func(it *Item) *[]byte { return &it.SHA512 }},
}

// resolve works out what every item says of its file.
func (l *Products) resolve(s *scanner) error {
	if err := l.aliases.check(l.Fields); err != nil {
		return err
	}
	for _, p := range l.Products {
		if err := l.aliases.check(p.Fields); err != nil {
			return locate(Pedigree{Product: p.Name}, err)
		}
		for _, v := range p.Versions {
			if err := l.aliases.check(v.Fields); err != nil {
				return locate(Pedigree{p.Name, v.Name, ""}, err)
			}
			for _, it := range v.Items {
				at := l.scope(p, v, it)
				if err := it.resolve(s, &at); err != nil {
					return locate(Pedigree{p.Name, v.Name, it.Name}, err)
				}
			}
		}
	}
	return nil
}

// resolve reads the facts of an item. As in python simplestreams, all but the
// path may be inherited.
func (it *Item) resolve(s *scanner, at *scope) error {
	if err := at.aliases.check(it.Fields); err != nil {
		return err
	}
	own := at.aliases.expand(it.Fields)
	if raw := own.Raw("ftype"); len(raw) > 0 && raw[0] == '"' {
		it.FType = s.intern(raw)
	} else {
		it.FType, _ = at.tag("ftype")
	}
	path, err := own.str("path")
	if err != nil || path == "" && len(own.Raw("path")) != 2 {
		return err // an item without a path is not about a file
	}
	if it.Path, err = ParsePath(path); err != nil {
		return err
	}
	if err := it.resolveSize(at); err != nil {
		return err
	}
	return it.resolveSums(at)
}

func (it *Item) resolveSize(at *scope) (err error) {
	text, ok := at.tag("size")
	if !ok {
		return errors.New("it has a path but no size")
	}
	it.Size, err = parseSize(text)
	return err
}

// maxSize bounds the size of a file in bytes: what every JSON reader takes for
// a whole number (RFC 8259, section 6).
const maxSize = 1<<53 - 1

// parseSize reads a number of bytes. Writers have put it as a string, too.
func parseSize(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n > maxSize {
		return 0, fmt.Errorf("size %q is not a whole number of bytes", text)
	}
	return int64(n), nil
}

func (it *Item) resolveSums(at *scope) error {
	given := false
	for _, sum := range sums {
		text, ok := at.tag(sum.tag)
		if !ok {
			continue
		}
		b, err := parseSum(text, sum.size)
		if err != nil {
			return fmt.Errorf("%s %w", sum.tag, err)
		}
		*sum.of(it) = b
		given = true
	}
	if !given {
		return errors.New("it has a path but none of md5, sha256, sha512")
	}
	return nil
}

// parseSum accepts lower-case hex only: clients compare the text.
func parseSum(text string, size int) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != size || hex.EncodeToString(b) != text {
		return nil, fmt.Errorf("%q is not %d lower-case hex digits", text, 2*size)
	}
	return b, nil
}
