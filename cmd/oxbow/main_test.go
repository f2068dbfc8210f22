package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"
)

// An operator who may not read the store is told what to do.
func TestPermissionHint(t *testing.T) {
	var out bytes.Buffer
	report(&out, fmt.Errorf("cannot open store /s: %w", &fs.PathError{Op: "open", Path: "/s", Err: fs.ErrPermission}))
	want := "oxbow: cannot open store /s: open /s: permission denied\noxbow: hint: run it as the user who owns the store, or name another store with --store\n"
	if out.String() != want {
		t.Errorf("%s, want %s", &out, want)
	}
}

// A reason is one line of a bounded number of characters.
func TestShort(t *testing.T) {
	for reason, want := range map[string]string{
		"":                        "",
		"one\ntwo":                "one; two",
		strings.Repeat("ä", 60):   strings.Repeat("ä", 60),
		strings.Repeat("ä", 1000): strings.Repeat("ä", 59) + "…",
	} {
		if got := short(reason); got != want || utf8.RuneCountInString(got) > maxReason {
			t.Errorf("%.20q: %q, want %q", reason, got, want)
		}
	}
}
