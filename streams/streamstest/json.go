package streamstest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
)

// pythonJSON lays v out as upstream's tools do: json.dumps with indent=1,
// sort_keys, separators (",", ": ") and everything beyond ASCII escaped.
func pythonJSON(v any) []byte {
	var b strings.Builder
	writeJSON(&b, v, 1)
	return []byte(b.String())
}

func writeJSON(b *strings.Builder, v any, depth int) {
	switch v := v.(type) {
	case Tags:
		writeObject(b, v, depth)
	case []string:
		writeArray(b, v, depth)
	case string:
		writeString(b, v)
	case json.RawMessage:
		b.Write(v)
	case bool, int, int64:
		fmt.Fprint(b, v)
	default:
		panic(fmt.Sprintf("streamstest: a tag of type %T", v))
	}
}

func writeObject(b *strings.Builder, tags Tags, depth int) {
	keys := slices.Sorted(maps.Keys(tags))
	keys = slices.DeleteFunc(keys, func(key string) bool { return tags[key] == nil })
	open := "{"
	for _, key := range keys {
		b.WriteString(open + "\n" + strings.Repeat(" ", depth))
		writeString(b, key)
		b.WriteString(": ")
		writeJSON(b, tags[key], depth+1)
		open = ","
	}
	if len(keys) == 0 {
		b.WriteString("{}")
		return
	}
	b.WriteString("\n" + strings.Repeat(" ", depth-1) + "}")
}

func writeArray(b *strings.Builder, values []string, depth int) {
	open := "["
	for _, value := range values {
		b.WriteString(open + "\n" + strings.Repeat(" ", depth))
		writeString(b, value)
		open = ","
	}
	if len(values) == 0 {
		b.WriteString("[]")
		return
	}
	b.WriteString("\n" + strings.Repeat(" ", depth-1) + "]")
}

func writeString(b *strings.Builder, s string) {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case short[r] != "":
			b.WriteString(short[r])
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
}
