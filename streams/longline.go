package streams

import "fmt"

// Clients' gpgv refuses a signed document with a line of more than maxLine
// bytes. A part of a list that would print such a line is left out, so that the
// rest can be published.

func listLines(at place) string    { return longLine("", at.list.Fields) }
func productLines(at place) string { return longLine(at.product.Name, at.product.Fields) }
func versionLines(at place) string { return longLine(at.version.Name, at.version.Fields) }
func itemLines(at place) string    { return longLine(at.item.Name, at.item.Fields) }

func longLine(name string, fields Fields) string {
	if (Field{Key: name}).tooLong() {
		return fmt.Sprintf("its name has %d bytes, clients' gpgv takes lines of %d", len(name), maxLine)
	}
	for _, f := range fields {
		if f.tooLong() {
			return fmt.Sprintf("%.40q makes a line that is too long, clients' gpgv takes %d bytes", f.Key, maxLine)
		}
	}
	return ""
}

// tooLong reports whether a line of the field may have more than maxLine bytes
// when it is printed: as it was read or, if it is text, quoted anew. A margin
// stands for indentation and punctuation.
func (f Field) tooLong() bool {
	const margin, escape = 2*maxDepth + 100, 6 // of a character, in bytes
	if escape*(len(f.Key)+len(f.Value))+margin <= maxLine {
		return false
	}
	n := longestPart(f.Value)
	if len(f.Value) > 0 && f.Value[0] == '"' {
		n = max(n, len(appendQuoted(nil, unquote(f.Value))))
	}
	return len(appendQuoted(nil, f.Key))+n+margin > maxLine
}

// longestPart returns the length of the longest run of a value that no line
// break is put into.
func longestPart(raw []byte) (longest int) {
	start, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',' || c == '{' || c == '[' || c == '}' || c == ']':
			longest = max(longest, i-start)
			start = i + 1
		}
	}
	return max(longest, len(raw)-start)
}

// withoutLong returns f less the members that would print too long a line, and
// a finding for each.
func (f Fields) withoutLong(contentID string) (Fields, []Finding) {
	var found []Finding
	for _, e := range f {
		if e.tooLong() {
			found = append(found, Finding{Profile: Plain, ContentID: contentID, Problem: longLine("", Fields{e})})
			f = f.without(e.Key)
		}
	}
	return f, found
}
