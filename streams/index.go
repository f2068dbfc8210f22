package streams

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The formats that this package reads.
const (
	indexFormat    = "index:1.0"
	productsFormat = "products:1.0"
)

// SignedIndex and UnsignedIndex are where a tree has its index: clearsigned, and as JSON alone.
const (
	SignedIndex   Path = indexName + signedEnding
	UnsignedIndex Path = indexName + textEnding
)

// An Index is an index:1.0 document: it names the lists of a tree.
//
// [Index.Render] prints Fields and those of the entries; the other members are
// what parsing found there.
type Index struct {
	Format, Updated string
	Entries         []*Entry // in file order
	Fields          Fields
	tail            []byte // white space after the document
}

// An Entry is what an index says of one list. Path is empty only if the
// entry's format is not products:1.0.
type Entry struct {
	ContentID, Format, DataType, Updated string
	Path                                 Path // relative to the base of the tree
	Products                             []string
	Fields                               Fields
}

// ParseIndex reads an index:1.0 document of at most [MaxDocument] bytes. It
// refuses duplicate keys, members of the wrong type and unsafe paths, naming
// the entry. doc must not change afterwards: the result refers to it.
func ParseIndex(doc []byte) (*Index, error) {
	x, err := parseIndex(doc)
	if err != nil {
		return nil, fmt.Errorf("cannot parse index: %w", err)
	}
	return x, nil
}

func parseIndex(doc []byte) (*Index, error) {
	s, err := newScanner(doc)
	if err != nil {
		return nil, err
	}
	x := &Index{}
	x.Fields, err = s.object("index", func(name string) error {
		e, err := parseEntry(s, name)
		x.Entries = append(x.Entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	x.tail = s.tail()
	if x.Format, err = x.Fields.format(indexFormat); err != nil {
		return nil, err
	}
	if !x.Fields.has("index") {
		return nil, errors.New("index is missing")
	}
	x.Updated, err = x.Fields.str("updated")
	return x, err
}

func parseEntry(s *scanner, name string) (*Entry, error) {
	e := &Entry{ContentID: name}
	err := e.parse(s)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", name, err)
	}
	return e, nil
}

func (e *Entry) parse(s *scanner) (err error) {
	if e.Fields, err = s.object("", nil); err != nil {
		return err
	}
	if e.Format, err = e.Fields.str("format"); err != nil {
		return err
	}
	if e.DataType, err = e.Fields.str("datatype"); err != nil {
		return err
	}
	if e.Updated, err = e.Fields.str("updated"); err != nil {
		return err
	}
	if raw := e.Fields.Raw("products"); raw != nil {
		if err := json.Unmarshal(raw, &e.Products); err != nil {
			return errors.New("products is not a list of strings")
		}
	}
	path, err := e.Fields.str("path")
	if err != nil || path == "" && !e.Fields.has("path") && e.Format != productsFormat {
		return err
	}
	e.Path, err = ParsePath(path)
	return err
}

// MAAS reports whether the index is of a MAAS stream: a content id contains
// "com.ubuntu.maas".
func (x *Index) MAAS() bool {
	for _, e := range x.Entries {
		if strings.Contains(e.ContentID, "com.ubuntu.maas") {
			return true
		}
	}
	return false
}

// format returns the value of "format", which must be want.
func (f Fields) format(want string) (string, error) {
	got, err := f.str("format")
	switch {
	case err != nil:
		return "", err
	case !f.has("format"):
		return "", fmt.Errorf("format is missing, want %q", want)
	case got != want:
		return "", fmt.Errorf("format is %q, want %q", got, want)
	}
	return got, nil
}

// str returns a string; absent and null are "", any other type is an error.
func (f Fields) str(key string) (string, error) {
	raw := f.Raw(key)
	if len(raw) == 0 || raw[0] == 'n' {
		return "", nil
	}
	if raw[0] != '"' {
		return "", fmt.Errorf("%s is %s, want a string", key, kind(raw[0]))
	}
	return unquote(raw), nil
}
