package streams

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// A scanner walks a JSON text once, after it was found valid as a whole, and
// hands out values as parts of that text: no value is copied.
type scanner struct {
	doc  []byte
	pos  int
	keys map[string]string // short keys seen, so that equal ones share memory
	open []Field           // members of the objects being read, outermost first
}

func newScanner(doc []byte) (*scanner, error) {
	if len(doc) > MaxDocument {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", len(doc), MaxDocument)
	}
	if !utf8.Valid(doc) {
		return nil, errors.New("it is not UTF-8")
	}
	if !json.Valid(doc) {
		err := json.Unmarshal(doc, new(json.RawMessage))
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("it is not JSON: %v at byte %d", err, syntax.Offset)
		}
		return nil, fmt.Errorf("it is not JSON: %v", err)
	}
	if at := tooDeep(doc); at >= 0 {
		return nil, fmt.Errorf("it is nested more than %d deep at byte %d", maxDepth, at)
	}
	s := subScanner(doc)
	return &s, nil
}

// maxDepth bounds the nesting of a document: the format has seven levels, and
// what is printed is indented by each.
const maxDepth = 64

// tooDeep returns where a valid text is nested deeper than maxDepth, or -1.
func tooDeep(doc []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

// subScanner walks a text that is known to be valid.
func subScanner(raw []byte) scanner { return scanner{doc: raw, keys: map[string]string{}} }

// tail returns what follows the value that was read last: white space.
func (s *scanner) tail() []byte { return s.doc[s.pos:] }

func (s *scanner) space() {
	for s.pos < len(s.doc) && s.doc[s.pos] <= ' ' {
		s.pos++
	}
}

// members reads an object and calls each, with s before the member's value,
// which each must consume. Two members of one name are an error: readers differ
// in which one they believe.
func (s *scanner) members(each func(key string) error) error {
	s.space()
	if s.doc[s.pos] != '{' {
		return fmt.Errorf("want an object, found %s", kind(s.doc[s.pos]))
	}
	s.pos++
	var seen nameSet
	for s.space(); s.doc[s.pos] != '}'; s.space() {
		if s.doc[s.pos] == ',' {
			s.pos++
			s.space()
		}
		key := s.intern(s.skip())
		if !seen.add(key) {
			return fmt.Errorf("it has %q twice", key)
		}
		s.space()
		s.pos++ // the colon
		if err := each(key); err != nil {
			return err
		}
	}
	s.pos++
	return nil
}

// object reads an object into Fields. The member named container, if any,
// holds the next level: its members go to child instead.
func (s *scanner) object(container string, child func(name string) error) (Fields, error) {
	base := len(s.open)
	err := s.members(func(key string) error {
		if container == "" || key != container {
			s.open = append(s.open, Field{key, s.skip()})
			return nil
		}
		s.open = append(s.open, Field{Key: key})
		err := s.members(func(name string) error {
			if name == "" {
				return errors.New("a name is empty")
			}
			return child(name)
		})
		if _, placed := errors.AsType[*placeError](err); err != nil && !placed {
			return fmt.Errorf("%s: %w", container, err)
		}
		return err
	})
	f := slices.Clone(s.open[base:])
	s.open = s.open[:base]
	return f, err
}

// skip steps over a value and returns its text.
func (s *scanner) skip() json.RawMessage {
	s.space()
	start, depth := s.pos, 0
	for {
		switch c := s.doc[s.pos]; c {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
			s.pos++
		case '}', ']':
			depth--
			s.pos++
		case ',', ':', ' ', '\t', '\r', '\n':
			s.pos++
			continue
		default:
			for s.pos < len(s.doc) && !endsScalar(s.doc[s.pos]) {
				s.pos++
			}
		}
		if depth == 0 {
			return s.doc[start:s.pos:s.pos]
		}
	}
}

// endsScalar reports whether c follows a number, boolean or null.
func endsScalar(c byte) bool { return c == ',' || c == ']' || c == '}' || c <= ' ' }

func (s *scanner) skipString() {
	for s.pos++; s.doc[s.pos] != '"'; s.pos++ {
		if s.doc[s.pos] == '\\' {
			s.pos++
		}
	}
	s.pos++
}

// intern decodes a string, and returns the same memory for equal short ones.
func (s *scanner) intern(raw json.RawMessage) string {
	if len(raw) > 34 || bytes.IndexByte(raw, '\\') >= 0 {
		return unquote(raw)
	}
	body := raw[1 : len(raw)-1]
	key, ok := s.keys[string(body)]
	if !ok {
		key = string(body)
		s.keys[key] = key
	}
	return key
}

// A nameSet finds duplicates. Most objects are small: those need no map.
type nameSet struct {
	n    int
	few  [16]string
	many map[string]struct{}
}

// add reports whether name is new.
func (s *nameSet) add(name string) bool {
	if slices.Contains(s.few[:min(s.n, len(s.few))], name) {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	if _, old := s.many[name]; old {
		return false
	}
	if s.many == nil {
		s.many = map[string]struct{}{}
	}
	s.many[name] = struct{}{}
	return true
}

// kind names the type of the value that begins with c.
func kind(c byte) string {
	switch c {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// unquote decodes a valid JSON string.
func unquote(raw json.RawMessage) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		panic("internal error: invalid string in a valid document: " + err.Error())
	}
	return s
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes a string as python's json.dumps does: pure ASCII.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r <= '~':
			b = append(b, byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = appendEscape(appendEscape(b, high), low)
		default:
			b = appendEscape(b, r)
		}
	}
	return append(b, '"')
}

func appendEscape(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
