package cache

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	digestA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

const manifestText = `oxbow snapshot 1
stream stable
parent ` + digestB + `
created 2026-01-31T15:04:05Z
reason sync
evidence ` + digestA + ` 7 streams/v1/old.sjson
item ` + digestA + ` 0 a file/with spaces
item ` + digestB + ` 12 noble/amd64/20260131/squashfs
known ` + digestB + ` 9223372036854775807 noble/arm64/20260131/squashfs
site ` + digestA + ` 7 streams/v1/index.sjson
upstream ` + digestB + ` 8 streams/v1/index.sjson
`

func mustDigest(t testing.TB, s string) Digest {
	t.Helper()
	d, err := ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestManifestText(t *testing.T) {
	a, b := mustDigest(t, digestA), mustDigest(t, digestB)
	m := &Manifest{
		Stream:  "stable",
		Parent:  b,
		Created: time.Date(2026, 1, 31, 16, 4, 5, 999, time.FixedZone("", 3600)),
		Reason:  "sync",
		Entries: []Entry{
			{KindUpstream, b, 8, "streams/v1/index.sjson"},
			{KindItem, b, 12, "noble/amd64/20260131/squashfs"},
			{KindSite, a, 7, "streams/v1/index.sjson"},
			{KindKnown, b, 1<<63 - 1, "noble/arm64/20260131/squashfs"},
			{KindEvidence, a, 7, "streams/v1/old.sjson"},
			{KindItem, a, 0, "a file/with spaces"},
		},
	}
	unsorted := slices.Clone(m.Entries)
	if got := string(m.Encode()); got != manifestText {
		t.Errorf("got text\n%s\nwant\n%s", got, manifestText)
	}
	if !slices.Equal(m.Entries, unsorted) {
		t.Error("Encode changed the order of the entries")
	}
	got, err := ParseManifest([]byte(manifestText))
	if err != nil {
		t.Fatal(err)
	}
	m.Sort()
	if got.Stream != m.Stream || got.Parent != m.Parent || got.Reason != m.Reason || !slices.Equal(got.Entries, m.Entries) ||
		!got.Created.Equal(m.Created.Truncate(time.Second)) {
		t.Errorf("parsed %+v, want %+v", got, m)
	}
}

// TestManifestLarge promises that a text of several pieces is the same text.
func TestManifestLarge(t *testing.T) {
	m := &Manifest{Stream: "s", Created: time.Unix(0, 0), Reason: ""}
	for i := range 2000 {
		m.Entries = append(m.Entries, memoryEntry(i))
	}
	text := m.Encode()
	got, err := ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	m.Sort()
	if !slices.Equal(got.Entries, m.Entries) {
		t.Error("parsed entries differ")
	}
}

func TestParseManifestIsStrict(t *testing.T) {
	line := func(old, new string) string {
		if !strings.Contains(manifestText, old) {
			t.Fatalf("the text has no %q", old)
		}
		return strings.Replace(manifestText, old, new, 1)
	}
	for _, test := range []struct{ summary, text, err string }{
		{"nothing", "", "ends within the header"},
		{"another format", line("snapshot 1", "snapshot 2"), "its first line"},
		{"a header cut off", manifestText[:40], "ends within the header"},
		{"headers in another order", line("stream stable\nparent "+digestB, "parent "+digestB+"\nstream stable"), `want the line "stream"`},
		{"a stream that is a path", line("stream stable", "stream ../x"), "is not usable"},
		{"a short parent", line(digestB, digestB[1:]), "malformed digest"},
		{"a zero parent", line(digestB, strings.Repeat("0", 64)), "malformed digest"},
		{"a time zone", line("05Z", "05+00:00"), "one form"},
		{"fractions of a second", line("05Z", "05.5Z"), "one form"},
		{"a time that is none", line("2026-01-31", "2026-02-31"), "day out of range"},
		{"a control character in the reason", line("reason sync", "reason s\ty"), "one short line"},
		{"a long reason", line("reason sync", "reason "+strings.Repeat("x", 1001)), "one short line"},
		{"a carriage return", line("created 2026-01-31T15:04:05Z", "created 2026-01-31T15:04:05Z\r"), "extra text"},
		{"no end of line", strings.TrimSuffix(manifestText, "\n"), "does not end"},
		{"an empty line", manifestText + "\n", "is not an entry"},
		{"an unknown kind", line("known ", "guess "), "unknown kind"},
		{"upper-case digest", line("item "+digestA, "item "+strings.ToUpper(digestA)), "malformed digest"},
		{"no digest", line("item "+digestA, "item -"), "malformed digest"},
		{"two spaces", line("item "+digestA+" 0", "item "+digestA+"  0"), "malformed size"},
		{"a signed size", line(" 12 ", " +12 "), "malformed size"},
		{"a negative size", line(" 12 ", " -12 "), "size -12"},
		{"zeros before the size", line(" 12 ", " 012 "), "malformed size"},
		{"a size too large", line("9223372036854775807", "9223372036854775808"), "malformed size"},
		{"an absolute path", line("a file/", "/a file/"), "bad path"},
		{"a path upward", line("a file/with spaces", "../file"), "bad path"},
		{"the path .", line("a file/with spaces", "."), "bad path"},
		{"no path", line("a file/with spaces", ""), "bad path"},
		{"a path with an empty part", line("a file/", "a file//"), "bad path"},
		{"a path with a control character", line("a file/", "a\x7ffile/"), "bad path"},
		{"a path that is no UTF-8", line("a file/", "a\xfffile/"), "bad path"},
		{"a path too long", line("a file/", strings.Repeat("a", maxPath)), "bad path"},
		{"a path twice in a kind", line("noble/amd64/20260131/squashfs", "a file/with spaces"), "out of order"},
		{"paths out of order", line("a file/with spaces", "zebra"), "out of order"},
		{"kinds out of order", line("site", "item"), "out of order"},
	} {
		t.Run(test.summary, func(t *testing.T) {
			_, err := ParseManifest([]byte(test.text))
			if !errors.Is(err, errManifest) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("got error %v, want one with %q", err, test.err)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifestText))
	f.Add([]byte(strings.Replace(manifestText, digestB, "-", 1)))
	f.Add([]byte("oxbow snapshot 1\nstream s\nparent -\ncreated 2026-01-31T15:04:05Z\nreason \n"))
	f.Add([]byte("oxbow snapshot 1\nstream s\nparent -\ncreated 0000-01-31T15:04:05Z\nreason x\nitem " + digestA + " 1 p\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			return
		}
		if err := m.validate(); err != nil {
			t.Errorf("accepted what cannot be written: %v", err)
		}
		if got := m.Encode(); string(got) != string(text) {
			t.Errorf("parsed\n%q\nprinted\n%q", text, got)
		}
	})
}
