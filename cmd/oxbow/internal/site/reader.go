package site

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"oxbow/cmd/oxbow/internal/typo"
)

// A reader turns the text of one file into a [Site] and gathers what is wrong on
// the way.
type reader struct {
	file     string // as messages name it
	folder   string // absolute; relative paths start from it
	lines    []string
	hidden   map[int]bool // lines, from 1, that no message may show
	problems []*Error
	warnings []string
}

// A value is what a key has, or an element of a list. The zero value is that of
// a key that is absent; reading it says nothing and gives nothing.
type value struct {
	path string // as in streams[0].upstream[1]
	key  string // as in upstream
	at   place  // of the key, or of the element
	node ast.Node
}

func (v value) absent() bool { return v.node == nil }

// fields are the values of a mapping by key.
type fields map[string]value

// section returns the value of a key below which all lines may be comments.
func (m fields) section(key string) (value, bool) {
	v := m[key]
	_, empty := v.node.(*ast.NullNode)
	return v, !v.absent() && !empty
}

// mapping returns the values of a mapping that may have these keys.
func (r *reader) mapping(v value, keys ...string) fields {
	if v.absent() {
		return nil
	}
	pairs, ok := pairsOf(v.node)
	if !ok {
		r.notMapping(v, keys)
		return nil
	}
	m := fields{}
	for _, pair := range pairs {
		t := pair.Key.GetToken()
		key, at := t.Value, placeOf(t)
		path := strings.TrimPrefix(v.path+"."+key, ".")
		switch before, twice := m[key]; {
		case !slices.Contains(keys, key):
			r.unknownKey(at, path, key, keys)
		case twice:
			r.problem(at, path, fmt.Sprintf("`%s` is there twice", key), fmt.Sprintf("the other is in line %d", before.at.line))
		default:
			m[key] = value{path, key, at, pair.Value}
		}
	}
	return m
}

func (r *reader) notMapping(v value, keys []string) {
	if v.path == "" {
		r.problem(placeOfNode(v.node), "", fmt.Sprintf("the file is %s", found(v.node)), "want keys: "+quoted(keys))
		return
	}
	at, problem := v.found()
	r.problem(at, v.path, problem, "want keys below it: "+quoted(keys))
}

func (r *reader) unknownKey(at place, path, key string, keys []string) {
	remedy := "known here are " + quoted(keys)
	if meant := typo.Nearest(key, keys); meant != "" {
		remedy = fmt.Sprintf("did you mean `%s`?", meant)
	}
	r.problem(at, path, fmt.Sprintf("unknown key `%s`", shortened(key)), remedy)
}

// wrong records that a value is not what it has to be. The example is how it
// could be written.
func (r *reader) wrong(v value, want, example string) {
	at, problem := v.found()
	remedy := fmt.Sprintf("want %s, as in `%s: %s`", want, v.key, example)
	if _, ok := pairsOf(v.node); ok { // the parser finds one in {a: [http://host:80]}
		remedy += "; a text with a colon in it is quoted"
	}
	r.problem(at, v.path, problem, remedy)
}

// found says what a value is, and where.
func (v value) found() (at place, problem string) {
	if v.node.GetToken().Type == token.ImplicitNullType {
		return v.at, fmt.Sprintf("`%s` has no value", v.key)
	}
	return placeOfNode(v.node), fmt.Sprintf("`%s` is %s", v.key, found(v.node))
}

// refuse records that a value, which is of the right form, cannot be taken.
func (r *reader) refuse(v value, problem, remedy string) {
	r.problem(placeOfNode(v.node), v.path, problem, remedy)
}

// warn records that a value has no effect.
func (r *reader) warn(v value, text string) {
	r.warnings = append(r.warnings, fmt.Sprintf("%s:%d:%d: %s: %s", r.file, v.at.line, v.at.column, v.path, text))
}

// text returns a scalar as it is written, less its quotes.
func (r *reader) text(v value, want, example string) (string, bool) {
	switch n := v.node.(type) {
	case nil:
		return "", false
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	case *ast.LiteralNode:
		return n.Value.GetToken().Value, true
	}
	r.wrong(v, want, example)
	return "", false
}

// oneOf returns a scalar that has to be one of these words.
func (r *reader) oneOf(v value, words ...string) string {
	last := len(words) - 1
	want := strings.Join(words[:last], ", ") + " or " + words[last]
	s, ok := r.text(v, want, words[0])
	if ok && !slices.Contains(words, s) {
		r.wrong(v, want, words[0])
		return ""
	}
	return s
}

// boolean takes true and false, and none of YAML 1.1's other words for them.
func (r *reader) boolean(v value) (is, ok bool) {
	if v.absent() {
		return false, false
	}
	if n, ok := v.node.(*ast.BoolNode); ok {
		if word := n.GetToken().Value; word == "true" || word == "false" {
			return word == "true", true
		}
	}
	r.wrong(v, "true or false", "true")
	return false, false
}

// list returns the elements of a list. A single value stands for a list of one.
func (r *reader) list(v value) []value {
	switch n := v.node.(type) {
	case nil:
		return nil
	case *ast.SequenceNode:
		var all []value
		for i, e := range n.Values {
			if e == nil {
				continue
			}
			all = append(all, value{fmt.Sprintf("%s[%d]", v.path, i), v.key, placeOfNode(e), e})
		}
		return all
	}
	return []value{v}
}

// texts returns the elements of a list of texts, or of a single one, and the
// values that they stand in.
func (r *reader) texts(v value, want, example string) (all []string, at []value) {
	for _, e := range r.list(v) {
		if s, ok := r.text(e, want, example); ok {
			all, at = append(all, s), append(at, e)
		}
	}
	return all, at
}

// fileName returns the name of a file or folder, absolute.
func (r *reader) fileName(v value, example string) string {
	s, ok := r.text(v, "the name of a file or folder", example)
	if !ok {
		return ""
	}
	if s == "" {
		r.wrong(v, "the name of a file or folder", example)
		return ""
	}
	if filepath.IsAbs(s) {
		return filepath.Clean(s)
	}
	return filepath.Join(r.folder, s)
}

func pairsOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// placeOfNode returns where a value begins. The parser's token for a block
// mapping is the colon behind its first key.
func placeOfNode(n ast.Node) place {
	if pairs, ok := pairsOf(n); ok && len(pairs) > 0 && n.GetToken().Type == token.MappingValueType {
		return placeOf(pairs[0].Key.GetToken())
	}
	return placeOf(n.GetToken())
}

// found describes a value that is not what it has to be.
func found(n ast.Node) string {
	t := n.GetToken()
	switch n := n.(type) {
	case *ast.SequenceNode:
		if len(n.Values) == 0 {
			return "an empty list"
		}
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.NullNode:
		return "null"
	case *ast.LiteralNode:
		return fmt.Sprintf("%q", shortened(n.Value.GetToken().Value))
	case *ast.StringNode:
		return fmt.Sprintf("%q", shortened(t.Value))
	}
	return shortened(t.Value)
}

// maxShown bounds the characters of a value that a message repeats.
const maxShown = 60

func shortened(s string) string { return cut(withoutSecrets(s), maxShown) }

func quoted(keys []string) string { return "`" + strings.Join(keys, "`, `") + "`" }
