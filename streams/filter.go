package streams

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// A Filter is one condition on a tag, in the syntax of sstream-mirror:
// arch=amd64, arch!=i386, release~(jammy|noble), release!~^precise$. A regular
// expression is searched for, not anchored. A tag that is absent is "".
type Filter struct {
	key, value string
	negated    bool
	pattern    *regexp.Regexp // nil if the value is compared whole
}

var filterSyntax = regexp.MustCompile(`^([\w-]+) *(!?)([=~]) *(.*)$`)

// ParseFilter reads a filter. Spaces round the operator and at both ends do not
// count. Regular expressions are of RE2: https://golang.org/s/re2syntax.
func ParseFilter(s string) (Filter, error) {
	m := filterSyntax.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return Filter{}, fmt.Errorf("cannot parse filter %q: want a tag, one of = != ~ !~, and a value, as in arch=amd64 or release~(jammy|noble)", s)
	}
	f := Filter{key: m[1], value: m[4], negated: m[2] == "!"}
	if m[3] == "=" && (strings.HasPrefix(f.value, "=") || strings.HasPrefix(f.value, "~")) { // no tag begins so
		return Filter{}, fmt.Errorf("cannot parse filter %q: did you mean %s%s%s?", s, m[1], m[2], f.value)
	}
	if m[3] == "~" {
		var err error
		if f.pattern, err = regexp.Compile(f.value); err != nil {
			return Filter{}, fmt.Errorf("cannot parse filter %q: %w", s, err)
		}
	}
	return f, nil
}

// String returns the filter as [ParseFilter] reads it.
func (f Filter) String() string {
	op := "="
	if f.pattern != nil {
		op = "~"
	}
	if f.negated {
		op = "!" + op
	}
	return f.key + op + f.value
}

func (f Filter) matches(tag string) bool {
	if f.pattern != nil {
		return f.pattern.MatchString(tag) != f.negated
	}
	return (tag == f.value) != f.negated
}

// A Selection is a list of filters that all must match.
type Selection []Filter

// ParseSelection reads filters separated by white space. Single or double
// quotes round a value, or round a whole filter, keep white space in it; there
// are no escapes. A selection without filters is an error.
func ParseSelection(s string) (Selection, error) {
	words, err := splitQuoted(s)
	if err != nil {
		return nil, fmt.Errorf("cannot parse selection %q: %w", s, err)
	}
	if len(words) == 0 {
		return nil, errors.New("cannot parse selection: it is empty; give none at all to select everything")
	}
	sel := make(Selection, len(words))
	for i, w := range words {
		if sel[i], err = ParseFilter(w); err != nil {
			return nil, err
		}
	}
	return sel, nil
}

// String returns the selection as [ParseSelection] reads it.
func (s Selection) String() string {
	words := make([]string, len(s))
	for i, f := range s {
		words[i] = quote(f.String())
	}
	return strings.Join(words, " ")
}

// Selections match what any of them matches; with none, everything matches.
type Selections []Selection

// Matches reports whether an item, which stands in version v of product p of
// list l, is selected.
func (s Selections) Matches(l *Products, p *Product, v *Version, it *Item) bool {
	at := l.scope(p, v, it)
	return len(s) == 0 || s.any(&at)
}

func (s Selections) any(at *scope) bool {
	for _, sel := range s {
		if sel.matches(at) {
			return true
		}
	}
	return false
}

func (s Selection) matches(at *scope) bool {
	for _, f := range s {
		if tag, _ := at.tag(f.key); !f.matches(tag) {
			return false
		}
	}
	return true
}

// splitQuoted splits at white space outside of quotes, which it takes away.
func splitQuoted(s string) (words []string, err error) {
	var word strings.Builder
	inWord, open := false, rune(0)
	for _, r := range s {
		switch {
		case open != 0 && r == open:
			open = 0
		case open == 0 && (r == '"' || r == '\''):
			open, inWord = r, true
		case open == 0 && unicode.IsSpace(r):
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if open != 0 {
		return nil, fmt.Errorf("a quote (%c) is not closed", open)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// quote puts quotes round the parts of s that splitQuoted would change.
func quote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '"' || r == '\'' }) {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `"'"'"`) + `"`
}
