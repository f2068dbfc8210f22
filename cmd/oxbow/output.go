package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// printJSON prints v, indented, as programs and people both read it.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printLine prints one line. What it is made of may come from metadata.
func printLine(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintln(w, printable(fmt.Sprintf(format, args...)))
	return err
}

// printable returns s with control characters, and bytes that are no UTF-8, as
// escapes like \x1b: in a name from upstream they could rewrite the terminal or
// make up lines of a log.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch _, n := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// A table prints aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(header) > 0 {
		fmt.Fprintln(t.w, strings.Join(header, "\t"))
	}
	return t
}

// row adds a line. Its error, like that of any line, is what flush returns.
func (t table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, printable(fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w)
}

func (t table) flush() error { return t.w.Flush() }

// iec renders a number of bytes with three significant digits or more, in
// powers of 1024.
func iec(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < len("KMGTPE")-1 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[unit])
}

// counted renders a number with its noun.
func counted[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// maxReason bounds a reason in a line of text, in characters; --json has it whole.
const maxReason = 60

// short renders a reason as a part of a line.
func short(reason string) string {
	r := []rune(strings.ReplaceAll(reason, "\n", "; "))
	if len(r) <= maxReason {
		return string(r)
	}
	return string(r[:maxReason-1]) + "…"
}

// stamp renders a time; "-" stands for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}
