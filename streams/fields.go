package streams

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Fields are the members of a JSON object in file order, those that this
// package knows and those that it does not. The member that holds the next
// level (index, products, versions or items) stands in its place with a nil
// Value; its content is in the typed values.
//
// The slice is never changed in place: [Fields.Set] makes a new one. So values
// that share Fields do not see each other's changes.
type Fields []Field

// A Field is a member of a JSON object. Value is the text as it was read and
// aliases the document.
type Field struct {
	Key   string
	Value json.RawMessage
}

// Raw returns the value of key as it was read, nil if there is none.
func (f Fields) Raw(key string) json.RawMessage {
	if i := f.index(key); i >= 0 {
		return f[i].Value
	}
	return nil
}

// Text returns the value of key if it is a scalar: a string decoded, a number
// or boolean as written. It is "" for anything else.
func (f Fields) Text(key string) string {
	raw := f.Raw(key)
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || raw[0] == 'n' {
		return ""
	}
	if raw[0] == '"' {
		return unquote(raw)
	}
	return string(raw)
}

// Set replaces the value of key where it stands, or inserts it before the
// first greater key, so that sorted members stay sorted.
func (f *Fields) Set(key string, v json.RawMessage) {
	if i := f.index(key); i >= 0 {
		*f = slices.Clone(*f)
		(*f)[i].Value = v
		return
	}
	at := slices.IndexFunc(*f, func(e Field) bool { return e.Key > key })
	if at < 0 {
		at = len(*f)
	}
	*f = slices.Insert(slices.Clip(*f), at, Field{Key: key, Value: v})
}

// SetText sets key to the string s.
func (f *Fields) SetText(key, s string) { f.Set(key, appendQuoted(nil, s)) }

func (f Fields) index(key string) int {
	for i := range f {
		if f[i].Key == key {
			return i
		}
	}
	return -1
}

// has reports whether key is a member, be it null or the next level.
func (f Fields) has(key string) bool { return f.index(key) >= 0 }

// without returns f less the given keys.
func (f Fields) without(keys ...string) Fields {
	if !slices.ContainsFunc(keys, f.has) {
		return f
	}
	kept := make(Fields, 0, len(f))
	for _, e := range f {
		if !slices.Contains(keys, e.Key) {
			kept = append(kept, e)
		}
	}
	return kept
}

// scalar returns a value as python's str shows it after json.loads: what
// simplestreams' filters and MAAS compare. Only strings, numbers and booleans
// have such a text.
func scalar(raw json.RawMessage) (text string, ok bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		return unquote(raw), true
	case 't':
		return "True", true
	case 'f':
		return "False", true
	case '{', '[', 'n':
		return "", false
	}
	if s := string(raw); !strings.ContainsAny(s, ".eE") {
		return s, true
	}
	return pythonFloat(string(raw)), true
}

// pythonFloat writes a number as python's repr does: the shortest text that
// reads back the same, with an exponent below 1e-4 and from 1e16 on.
func pythonFloat(s string) string {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	exp := strconv.FormatFloat(v, 'e', -1, 64)
	if e, err := strconv.Atoi(exp[strings.IndexByte(exp, 'e')+1:]); err != nil || e < -4 || e >= 16 {
		return exp
	}
	plain := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(plain, ".") {
		plain += ".0"
	}
	return plain
}
