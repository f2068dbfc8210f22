package streams

import (
	"fmt"
	"strings"
	"time"
)

// rfc2822 is the layout that simplestreams writes dates in. MAAS 3.8:
// models.py updated_validator wants the zone as a number.
const rfc2822 = "Mon, 02 Jan 2006 15:04:05 -0700"

// isoLayouts are forms of ISO 8601, taken as UTC where they name no zone.
var isoLayouts = []string{
	"2006-01-02T15:04:05Z07:00",
	"2006-01-02T15:04:05Z0700",
	"2006-01-02T15:04:05",
	"2006-01-02",
}

// rfc2822Read also takes a day of one digit.
const rfc2822Read = "Mon, 2 Jan 2006 15:04:05 -0700"

// ParseTime reads the dates seen in streams: RFC 2822, with or without day of
// the week, its zone a number or a name of UTC, and ISO 8601.
func ParseTime(s string) (time.Time, error) {
	if t, ok := parseISO(s); ok {
		return t, nil
	}
	text := s
	for _, utc := range []string{" GMT", " UTC", " UT", " Z"} {
		if cut, ok := strings.CutSuffix(s, utc); ok {
			text = cut + " +0000"
		}
	}
	for _, layout := range []string{rfc2822Read, strings.TrimPrefix(rfc2822Read, "Mon, ")} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot read date %q", s)
}

func parseISO(s string) (time.Time, bool) {
	for _, layout := range isoLayouts {
		if t, err := time.Parse(layout, strings.Replace(s, " ", "T", 1)); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// isRFC2822 reports whether s has a day of the week and a numeric zone.
func isRFC2822(s string) bool {
	_, err := time.Parse(rfc2822Read, s)
	return err == nil
}

// FormatTime writes a date as simplestreams does, in UTC and whole seconds:
// "Thu, 24 Jul 2025 08:01:48 +0000".
func FormatTime(t time.Time) string { return t.UTC().Format(rfc2822) }
