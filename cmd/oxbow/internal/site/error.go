package site

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode"
)

// An Error is one thing that is wrong with a configuration file. Nothing in it
// shows the password of a URL.
type Error struct {
	File         string
	Line, Column int    // from 1, in characters; 0 where the whole file is concerned
	Key          string // as in streams[0].select; "" where it is no key's matter
	Problem      string
	Remedy       string // "" where the problem says it all

	excerpt string // the line, and below it a mark; "" where there is nothing to show
	cause   error  // of a file that cannot be read
}

// Error returns the problem and its remedy behind the place, and then, indented,
// the line that it is about.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + e.Problem)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	b.WriteString(e.excerpt)
	return b.String()
}

func (e *Error) Unwrap() error { return e.cause }

// Errors are several things that are wrong with a configuration file, in the
// order of its lines.
type Errors []*Error

// Error returns the texts below each other.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n")
}

func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, err := range e {
		all[i] = err
	}
	return all
}

// maxProblems bounds the errors that are reported of a file.
const maxProblems = 20

// errors returns what was found to be wrong, at least one thing.
func (r *reader) errors() error {
	all := r.problems
	slices.SortStableFunc(all, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	for _, e := range all[:min(len(all), maxProblems)] {
		e.excerpt = r.excerpt(place{e.Line, e.Column})
	}
	if len(all) == 1 {
		return all[0]
	}
	if more := len(all) - maxProblems; more > 0 {
		all = append(all[:maxProblems:maxProblems], &Error{File: r.file, Problem: fmt.Sprintf("more is wrong than these %d (%d not shown)", maxProblems, more)})
	}
	return Errors(all)
}

// A place is a line and a column, from 1; the column counts characters.
type place struct{ line, column int }

// problem records that something is wrong at a place.
func (r *reader) problem(at place, key, problem, remedy string) {
	r.problems = append(r.problems, &Error{
		File: r.file, Line: at.line, Column: at.column, Key: oneLine(key),
		Problem: oneLine(problem), Remedy: oneLine(remedy),
	})
}

// maxText bounds the characters of a problem or a remedy, of which a value may
// be part.
const maxText = 1000

// oneLine returns a text as a message may have it: without secrets, without the
// control characters that a value may have escaped, and not too long.
func oneLine(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return unicode.ReplacementChar
		}
		return c
	}, withoutSecrets(text))
	return cut(text, maxText)
}

// cut returns a text of at most n characters.
func cut(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:n-1]) + "…"
}

// maxExcerpt bounds the characters that are shown of a line.
const maxExcerpt = 100

// excerpt returns the line of a place and a mark below the column, indented,
// each on a line of its own. Of a long line it shows the part round the column.
func (r *reader) excerpt(at place) string {
	if at.line < 1 || at.line > len(r.lines) || r.hidden[at.line] {
		return ""
	}
	line := []rune(strings.ReplaceAll(r.lines[at.line-1], "\t", " "))
	column := min(max(at.column-1, 0), len(line))
	line, column = mask(line, column)
	if start := column - maxExcerpt/2; len(line) > maxExcerpt && start > 0 {
		line, column = slices.Concat([]rune{'…'}, line[start:]), column-start+1
	}
	if len(line) > maxExcerpt {
		line = append(line[:maxExcerpt:maxExcerpt], '…')
	}
	return fmt.Sprintf("\n  %d | %s\n  %*s | %*s", at.line, string(line), len(fmt.Sprint(at.line)), "", column+1, "^")
}

// reason returns why a file cannot be read, without its name.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
