package site

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The parser takes time that grows with the square of these: a tenth of a second at
// these bounds, which leave room for hundreds of streams.
const (
	maxTokens = 20_000
	maxNested = 16
)

// document makes out a text as one YAML document. It returns nil if there is
// nothing in it, or if it cannot be made out.
func (r *reader) document(text []byte) ast.Node {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if !r.isText(text) {
		return nil
	}
	r.lines = strings.Split(string(text), "\n")
	tokens := lexer.Tokenize(string(text))
	r.hideLines(tokens)
	if !r.plainYAML(tokens) {
		return nil
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // mapping names both places
	if err != nil {
		r.syntax(err)
		return nil
	}
	for _, d := range f.Docs {
		if d.Body != nil {
			return d.Body
		}
	}
	return nil
}

// isText refuses what no editor wrote as text.
func (r *reader) isText(text []byte) bool {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		r.problem(place{}, "", "the file is UTF-16", "save it as UTF-8")
		return false
	}
	at := place{1, 1}
	for i, c := range string(text) {
		if _, n := utf8.DecodeRune(text[i:]); c == utf8.RuneError && n == 1 {
			r.problem(at, "", fmt.Sprintf("the byte 0x%02x is no UTF-8", text[i]), "a configuration is a text in UTF-8")
			return false
		}
		switch {
		case c == '\n':
			at = place{at.line + 1, 1}
			continue
		case c != '\t' && unicode.IsControl(c):
			r.problem(at, "", fmt.Sprintf("the control character 0x%02x is no part of a text", c), "remove it")
			return false
		}
		at.column++
	}
	return true
}

// hideLines keeps the lines out of messages in which a URL with a password does
// not stand as it is meant, but escaped or folded: they cannot be masked.
func (r *reader) hideLines(tokens token.Tokens) {
	r.hidden = map[int]bool{}
	for i, t := range tokens {
		if t.Position == nil || len(secrets(t.Value)) == 0 {
			continue
		}
		first, last := t.Position.Line, len(r.lines)
		if first < 1 || first > last || strings.Contains(r.lines[first-1], t.Value) {
			continue
		}
		if i+1 < len(tokens) && tokens[i+1].Position != nil {
			last = min(last, tokens[i+1].Position.Line)
		}
		for line := first; line <= last; line++ {
			r.hidden[line] = true
		}
	}
}

// plainYAML refuses the parts of YAML that a configuration has no use for, and
// what would keep the parser busy.
func (r *reader) plainYAML(tokens token.Tokens) bool {
	if len(tokens) > maxTokens {
		r.problem(place{}, "", fmt.Sprintf("the file has more than %d words and marks of YAML", maxTokens), "")
		return false
	}
	s := structure{}
	for _, t := range tokens {
		if problem, remedy := s.take(t); problem != "" {
			r.problem(placeOf(t), "", problem, remedy)
			return false
		}
	}
	return true
}

// A structure is what is known of a document, token by token.
type structure struct {
	begun, ended bool // the document
	open         int  // flow lists and mappings
	line, dashes int  // entries of block lists that begin in this line
}

// take returns what is wrong with the next token, if anything, and the remedy.
func (s *structure) take(t *token.Token) (problem, remedy string) {
	if s.line != placeOf(t).line {
		s.line, s.dashes = placeOf(t).line, 0
	}
	switch t.Type {
	case token.CommentType:
		return "", ""
	case token.AnchorType, token.AliasType, token.MergeKeyType:
		return fmt.Sprintf("anchors, aliases and merge keys (`%s`) are not taken", t.Value), "write the value out; a text that begins with & or * is quoted"
	case token.TagType:
		return "tags (`!`) are not taken", "remove it; a text that begins with ! is quoted"
	case token.DirectiveType:
		return "directives (`%`) are not taken", "remove the line"
	case token.MappingKeyType:
		return "`?` cannot begin a key here", "write `key: value`"
	case token.DocumentHeaderType:
		if s.begun {
			return "a second document begins", "a configuration is one document: remove the `---`"
		}
		s.begun = true
		return "", ""
	case token.DocumentEndType:
		s.ended = true
		return "", ""
	case token.SequenceStartType, token.MappingStartType:
		s.open++
	case token.SequenceEndType, token.MappingEndType:
		s.open--
	case token.SequenceEntryType:
		s.dashes++
	}
	if s.ended {
		return "a second document begins", "a configuration is one document: remove the `...`"
	}
	s.begun = true
	if s.open > maxNested || s.dashes > maxNested {
		return fmt.Sprintf("values are nested deeper than %d", maxNested), "no key takes such a value"
	}
	return "", ""
}

// syntaxTexts say in an operator's words what the parser finds, by a part of its
// message.
var syntaxTexts = []struct{ part, problem, remedy string }{
	{`'\t'`, "a tab cannot indent YAML", "use spaces"},
	{"character '\t'", "a tab cannot indent YAML", "use spaces"},
	{"mapping value is not allowed", "a key cannot stand here", "the keys of a level begin in one column, and a value with `: ` in it is quoted"},
	{"value is not allowed in this context", "nothing can stand here", "the keys of a level begin in one column"},
	{"sequence end token", "`[` is not closed", "add the `]`"},
	{"must be specified", "a comma or a closing bracket is missing", ""},
	{"flow mapping end token", "`{` is not closed", "add the `}`"},
	{"end character of", "a quote is not closed", "add the other one"},
	{"reserved character", "a value cannot begin so", "quote it"},
	{"non-map value", "a key has no value", "want `key: value`, with a space behind the colon"},
	{"block sequence entries are not allowed", "a list cannot begin here", "begin each `- ` on a line of its own, or write `[a, b]`"},
}

// syntax records what the parser could not make out.
func (r *reader) syntax(err error) {
	e, ok := errors.AsType[yaml.Error](err)
	if !ok {
		r.problem(place{}, "", "this is not YAML: "+err.Error(), "")
		return
	}
	at, text := placeOf(e.GetToken()), e.GetMessage() // without the source, which may hold secrets
	for _, s := range syntaxTexts {
		if strings.Contains(text, s.part) {
			r.problem(at, "", s.problem, s.remedy)
			return
		}
	}
	r.problem(at, "", "this is not YAML: "+text, "")
}

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{t.Position.Line, t.Position.Column}
}
