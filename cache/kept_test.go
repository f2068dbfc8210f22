package cache

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is kept is counted without a look at any snapshot: a damaged one counts, too.
func TestKept(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	s, err := Open(copyStore(t, two.dir), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	removeFile(t, s, manifestName("stable", two.first))
	if n, err := s.Files().Kept("stable"); n != 2 || err != nil {
		t.Errorf("%d snapshots are kept (%v), want 2", n, err)
	}
	if _, err := s.Files().Kept("other"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a stream without snapshots: %v", err)
	}
}

// The list of what is kept has one form, and anything else is damage.
func TestParseKept(t *testing.T) {
	t.Parallel()
	a, b := Sum([]byte("a")), Sum([]byte("b"))
	good := string(encodeKept([]Digest{a, b}))
	if ids, err := parseKept(good); err != nil || !slices.Equal(ids, []Digest{a, b}) {
		t.Errorf("got %v, %v", ids, err)
	}
	for _, text := range []string{"", "\n", "nonsense\n", good[:len(good)-1], good + "\n", good + a.String() + "\n", " " + good, strings.ToUpper(good)} {
		if ids, err := parseKept(text); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v, %v", text, ids, err)
		}
	}
}

// Where the list is lost, it is found out again from the snapshots, whatever was given up between them and whatever the clock did.
func TestInTurn(t *testing.T) {
	t.Parallel()
	id := func(name string) Digest {
		if name == "" {
			return Digest{}
		}
		return Sum([]byte(name))
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		summary string
		whole   string // "name<parent", newest first by their dates
		want    string
	}{
		{"none", "", ""},
		{"one", "a<", "a"},
		{"a chain", "c<b b<a a<", "c b a"},
		{"a clock that went back", "a< c<b b<a", "c b a"},
		{"a gap", "d<c b<a a<", "d b a"},
		{"two gaps", "f<e d<c b<a", "f d b"},
		{"one that never was current, before the current one", "c<b x<b b<a a<", "c b a"},
		{"the first of which never was current", "b<a x< a<", "b a"},
		{"the last may have been", "d<c c<b b<a", "d c b"},
		{"before a gap", "e<d x<b c<b b<a", "e x b"},
	} {
		var rest []Snapshot
		names := map[Digest]string{}
		for i, word := range strings.Fields(test.whole) {
			name, parent, _ := strings.Cut(word, "<")
			names[id(name)] = name
			rest = append(rest, Snapshot{ID: id(name), Parent: id(parent), Created: at.Add(-time.Duration(i) * time.Hour)})
		}
		var got []string
		for _, d := range inTurn(rest) {
			got = append(got, names[d])
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %q, want %q", test.summary, strings.Join(got, " "), test.want)
		}
	}
}
