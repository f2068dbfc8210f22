package proxy

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// userInURL is the user, and password, of a URL anywhere in a text.
var userInURL = regexp.MustCompile(`//[^/\s]*@`)

// shown returns a text of whatever origin as a line that can be shown to anyone: without
// passwords of URLs, control characters and invisible ones.
func shown(text string) string {
	text = userInURL.ReplaceAllLiteralString(strings.ToValidUTF8(text, "?"), "//")
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, text)
}

// shownPath returns a path as it may be logged. A client that encodes a URL once too often
// makes a query string, or the user of another URL, part of its path; no file that is
// served has such a name. Control characters are left for the log's handler to quote, but
// for DEL, which slog's text does not.
func shownPath(path string) string {
	path, _, _ = strings.Cut(path, "?")
	path = strings.ReplaceAll(path, "\x7f", "?")
	return userInURL.ReplaceAllLiteralString(path, "//")
}

// clip bounds a text, in characters.
func clip(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// age renders a time span as roughly as people speak of it.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}
