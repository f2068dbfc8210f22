package site

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bareUser is what stands before the host of a URL whose scheme was forgotten.
var bareUser = regexp.MustCompile(`[^\s"'{},\[\]]*:[^\s"']*@`)

// secrets returns the parts of a text, as ranges of bytes in their order, that
// may be the user and password of a URL. It is better to hide too much: of
// what follows "://" all before the last @ goes, whatever stands between, and
// where there is no @, a host with something behind its colon that is no port,
// because the rest of the password may stand in the next line.
func secrets(text string) [][2]int {
	var all [][2]int
	at := strings.Index(text, "://")
	if at < 0 {
		at = len(text)
	}
	for _, m := range bareUser.FindAllStringIndex(text[:at], -1) {
		all = append(all, [2]int{m[0], m[1] - 1})
	}
	for at < len(text) {
		start := at + len("://")
		end := len(text)
		if next := strings.Index(text[start:], "://"); next >= 0 {
			end = start + next
		}
		if last := strings.LastIndexByte(text[start:end], '@'); last >= 0 {
			all = append(all, [2]int{start, start + last})
		} else if n := halfUser(text[start:end]); n > 0 {
			all = append(all, [2]int{start, start + n})
		}
		at = end
	}
	return all
}

// halfUser returns the length of what should be the host of a URL and has a
// colon with no port behind it, or 0.
func halfUser(rest string) int {
	if end := strings.IndexFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`/?#"',{}[]`, r) }); end >= 0 {
		rest = rest[:end]
	}
	_, port, _ := strings.Cut(rest, ":")
	if strings.Trim(port, "0123456789") == "" {
		return 0
	}
	return len(rest)
}

// withoutSecrets returns a text with "…" in the place of each user and password.
func withoutSecrets(text string) string { return without(text, secrets(text)) }

// without returns a text with "…" in the place of each of these parts.
func without(text string, parts [][2]int) string {
	var b strings.Builder
	from := 0
	for _, p := range parts {
		b.WriteString(text[from:p[0]] + "…")
		from = p[1]
	}
	return b.String() + text[from:]
}

// mask is withoutSecrets for a line of which a column is to be marked. It
// returns the column where that is then.
func mask(line []rune, column int) ([]rune, int) {
	text, marked := string(line), len(string(line[:column]))
	all := secrets(text)
	shift := 0
	for _, s := range all {
		switch {
		case s[1] <= marked:
			shift += utf8.RuneCountInString(text[s[0]:s[1]]) - 1
		case s[0] < marked:
			shift += utf8.RuneCountInString(text[s[0]:marked])
		}
	}
	return []rune(without(text, all)), column - shift
}
