package site

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"oxbow/mirror"
)

// units are what a size may be counted in, the greatest first. A letter alone
// is none of them: it means 1000 to some and 1024 to others.
var units = []struct {
	name  string
	bytes int64
}{
	{"PiB", 1 << 50}, {"PB", 1e15},
	{"TiB", 1 << 40}, {"TB", 1e12},
	{"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3},
	{"B", 1}, {"", 1},
}

var sizeSyntax = regexp.MustCompile(`^([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]*)$`)

// parseSize reads a number of bytes, as in 2GiB, 1.5 GB or 4096. A fraction of a
// byte is cut off; a fraction needs a unit greater than that.
func parseSize(s string) (int64, bool) {
	m := sizeSyntax.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	for _, u := range units {
		if u.name != m[2] {
			continue
		}
		n, ok := new(big.Rat).SetString(m[1])
		if !ok || u.bytes == 1 && !n.IsInt() {
			return 0, false
		}
		n.Mul(n, new(big.Rat).SetInt64(u.bytes))
		whole := new(big.Int).Quo(n.Num(), n.Denom())
		return whole.Int64(), whole.IsInt64()
	}
	return 0, false
}

// ParseSize reads a number of bytes as the configuration has it, such as 2GiB, 1.5 GB or 4096.
func ParseSize(s string) (int64, bool) { return parseSize(s) }

// sizeText returns a size as [parseSize] reads it, exactly.
func sizeText(n int64) string {
	for _, u := range units {
		if n >= u.bytes && n%u.bytes == 0 && strings.HasSuffix(u.name, "iB") {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// size returns a number of bytes.
func (r *reader) size(v value, example string) (int64, bool) {
	const want = "bytes, or a size in KiB, MiB, GiB, TiB (of 1024) or kB, MB, GB, TB (of 1000), less than 8192PiB"
	s, ok := r.text(v, want, example)
	if !ok {
		return 0, false
	}
	n, ok := parseSize(s)
	if !ok {
		r.wrong(v, want, example)
	}
	return n, ok
}

// number returns a whole number that is not negative.
func (r *reader) number(v value, example string) int {
	const want = "a whole number, 0 or more"
	s, ok := r.text(v, want, example)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		r.wrong(v, want, example)
	}
	return int(n)
}

// maxDuration is ten years, which nobody waits, and far from what time.Duration
// cannot hold.
const maxDuration = 520 * 7 * 24 * time.Hour

var durationSyntax = regexp.MustCompile(`^(?:([0-9]{1,4})w)?(?:([0-9]{1,4})d)?([0-9hms.µu]*)$`)

// parseDuration reads a duration as Go writes it, with weeks (w) and days (d),
// of 24 hours each, in front.
func parseDuration(s string) (time.Duration, bool) {
	m := durationSyntax.FindStringSubmatch(s)
	if m == nil || s == "" {
		return 0, false
	}
	const day = 24 * time.Hour
	weeks, _ := strconv.Atoi(m[1])
	days, _ := strconv.Atoi(m[2])
	d := time.Duration(weeks*7+days) * day
	if m[3] == "" {
		return d, d <= maxDuration
	}
	rest, err := time.ParseDuration(m[3])
	if err != nil || m[3] == "0" || d > maxDuration || rest > maxDuration-d {
		return 0, false
	}
	return d + rest, true
}

// duration returns a duration of at least some length.
func (r *reader) duration(v value, least time.Duration, example string) (time.Duration, bool) {
	want := fmt.Sprintf("a duration from %s to 520w", mirror.DurationText(least))
	s, ok := r.text(v, want, example)
	if !ok {
		return 0, false
	}
	d, ok := parseDuration(s)
	if !ok || d < least {
		r.wrong(v, want, example)
		return 0, false
	}
	return d, true
}

var clockSyntax = regexp.MustCompile(`^(?:[01][0-9]|2[0-3]):[0-5][0-9]$`)

// clock returns a time of day. YAML 1.1 takes 03:15 for a number in base 60;
// the parser does not, so it needs no quotes.
func (r *reader) clock(v value) string {
	const want = "a time of day HH:MM from 00:00 to 23:59"
	s, ok := r.text(v, want, `"03:15"`)
	if ok && !clockSyntax.MatchString(s) {
		r.wrong(v, want, `"03:15"`)
	}
	return s
}
