package streams

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"unicode"
)

// A Path names a file below the base of a tree: relative, slash-separated, and
// unable to leave the tree. Only [ParsePath] makes one from foreign text.
type Path string

// ParsePath accepts the paths that [fs.ValidPath] does, less "." itself,
// backslashes and control characters, which mean different things to different
// systems, the element "...", which python simplestreams refuses, and U+FFFD,
// which stands for what was no UTF-8. It has at most maxPath bytes.
func ParsePath(s string) (Path, error) {
	if reason := badPath(s); reason != "" {
		return "", fmt.Errorf("unsafe path %.200q: %s", s, reason)
	}
	return Path(s), nil
}

// maxPath bounds a path in bytes, as the operating system does.
const maxPath = 4096

func badPath(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > maxPath:
		return fmt.Sprintf("it has more than %d bytes", maxPath)
	case strings.HasPrefix(s, "/"):
		return "it is absolute"
	case strings.Contains(s, `\`):
		return "it has a backslash"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "it has a control character"
	case strings.ContainsRune(s, '\uFFFD'):
		return "it has the character U+FFFD, or is not UTF-8"
	case s == "." || !fs.ValidPath(s):
		return `it has an empty, "." or ".." element`
	case strings.Contains("/"+s+"/", "/.../"):
		return `it has the element "..."`
	}
	return ""
}

// Escaped returns the path as it stands in a URL, below a base that ends with a
// slash: its characters literally where a URL allows them, as simplestreams' own
// clients send them.
func (p Path) Escaped() string {
	// url.URL keeps ':' as it is, except in the first element of a relative
	// path; the leading slash avoids that.
	return (&url.URL{Path: "/" + string(p)}).EscapedPath()[1:]
}

// A Pedigree says where in a list something stands. Parts are empty from the
// right: a version has no Item.
type Pedigree struct{ Product, Version, Item string }

// String joins the parts that are set with slashes.
func (p Pedigree) String() string {
	s := p.Product
	if p.Version != "" {
		s += "/" + p.Version
	}
	if p.Item != "" {
		s += "/" + p.Item
	}
	return s
}
