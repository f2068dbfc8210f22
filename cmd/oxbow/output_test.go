package main

import (
	"bytes"
	"errors"
	"testing"
)

// Names from metadata cannot steer a terminal or make up a line.
func TestControlCharactersAreEscaped(t *testing.T) {
	const evil = "p\x1b[2J\r\noxbow: all is well\t\u009bm\x7f\xff é"
	const shown = `p\x1b[2J\x0d\x0aoxbow: all is well\x09\x9bm\x7f\xff é`
	var out bytes.Buffer
	tab := newTable(&out, "NAME")
	tab.row(evil)
	if err := tab.flush(); err != nil || out.String() != "NAME\n"+shown+"\n" {
		t.Errorf("a table shows %q, %v", out.String(), err)
	}
	out.Reset()
	if err := printLine(&out, "left out: %s", evil); err != nil || out.String() != "left out: "+shown+"\n" {
		t.Errorf("a line shows %q, %v", out.String(), err)
	}
	out.Reset()
	report(&out, errors.Join(errors.New("a\x1bb"), errors.New("c")))
	if out.String() != "oxbow: a\\x1bb\noxbow: c\n" {
		t.Errorf("an error shows %q", out.String())
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	for in, want := range map[string]string{
		"http://us3r:s3cret@host/a@b?c@d": "http://host/a@b?c@d",
		"https://us3r@host":               "https://host",
		"http://host?x=s@y":               "http://host?x=s@y",
		"http://us3r:s3/cret@host/a":      "http://host/a",
		"release~(a|b)":                   "release~(a|b)",
	} {
		if got := withoutUser(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := commandLine([]string{"oxbow", "mirror", "sync", "http://us3r:s3cret@host/a", "arch=amd64"}); got != "oxbow mirror sync http://host/a arch=amd64" {
		t.Errorf("others are shown %q", got)
	}
}
