package cache

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Kind says what an entry of a snapshot is.
type Kind string

const (
	KindEvidence Kind = "evidence" // an older upstream document that vouches for a kept version, or what upstream says of where it has its own from
	KindItem     Kind = "item"     // a file that is here
	KindKnown    Kind = "known"    // a file that the metadata names and that may be fetched; it needs no blob
	KindSite     Kind = "site"     // a document written for this site
	KindUpstream Kind = "upstream" // a document of this snapshot as upstream wrote it
)

// kinds lists every kind in the order of the lines of a manifest.
var kinds = [...]Kind{KindEvidence, KindItem, KindKnown, KindSite, KindUpstream}

func (k Kind) valid() bool { return slices.Contains(kinds[:], k) }

// An Entry names one file of a snapshot.
type Entry struct {
	Kind   Kind
	Digest Digest
	Size   int64 // in bytes
	Path   string
}

func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Path, b.Path))
}

// A Manifest is all there is to a snapshot: its entries, and where it comes
// from. As text it is
//
//	oxbow snapshot 1
//	stream NAME
//	parent DIGEST            (- if there is none)
//	created 2026-01-31T15:04:05Z
//	reason TEXT
//	KIND DIGEST SIZE PATH    (one line an entry, sorted by kind, then path)
//
// and the SHA-256 of that text is the snapshot's id. A path appears at most
// once a kind: upstream's documents and the site's share their names.
type Manifest struct {
	Stream  string
	Parent  Digest    // the snapshot that this one follows; zero if none
	Created time.Time // in whole seconds
	Reason  string    // one line: why the snapshot was made
	Entries []Entry   // in any order; [Manifest.Encode] sorts
}

const (
	manifestFormat = "oxbow snapshot 1"

	// MaxManifest bounds the text of a manifest in bytes: a million entries
	// of the longest usual paths.
	MaxManifest = 256 << 20

	// maxPath bounds a path in bytes, as the operating system does.
	maxPath = 4096

	// maxReason bounds the reason in bytes, and maxHeader all header lines.
	maxReason = 1000
	maxHeader = 2000
)

// errManifest is in the chain of every error about a manifest's text.
var errManifest = errors.New("malformed manifest")

// Sort puts the entries in the order of the text.
func (m *Manifest) Sort() { slices.SortFunc(m.Entries, compareEntries) }

// sorted returns m, or a copy of it with its entries in the order of the text.
func (m *Manifest) sorted() *Manifest {
	if slices.IsSortedFunc(m.Entries, compareEntries) {
		return m
	}
	c := *m
	c.Entries = slices.Clone(m.Entries)
	c.Sort()
	return &c
}

// Encode returns the text of m. It is a manifest that [ParseManifest]
// accepts only if m has valid names, as [Store.Publish] makes sure.
func (m *Manifest) Encode() []byte {
	var text bytes.Buffer
	m.sorted().write(&text)
	return text.Bytes()
}

// write writes the text of m, whose entries are sorted, piece by piece: that
// of a large store has tens of megabytes.
func (m *Manifest) write(w io.Writer) (n int64, err error) {
	const piece = 64 << 10
	text := append(make([]byte, 0, piece+maxPath), m.header()...)
	for i, e := range m.Entries {
		text = appendEntry(text, e)
		if len(text) < piece && i < len(m.Entries)-1 {
			continue
		}
		if _, err := w.Write(text); err != nil {
			return n, err
		}
		n += int64(len(text))
		text = text[:0]
	}
	k, err := w.Write(text) // the header, if there are no entries
	return n + int64(k), err
}

func (m *Manifest) header() string {
	parent := "-"
	if !m.Parent.IsZero() {
		parent = m.Parent.String()
	}
	return fmt.Sprintf("%s\nstream %s\nparent %s\ncreated %s\nreason %s\n",
		manifestFormat, m.Stream, parent, m.Created.UTC().Format(time.RFC3339), m.Reason)
}

func appendEntry(text []byte, e Entry) []byte {
	text = append(text, e.Kind...)
	text = append(text, ' ')
	text = hex.AppendEncode(text, e.Digest[:])
	text = append(text, ' ')
	text = strconv.AppendInt(text, e.Size, 10)
	text = append(text, ' ')
	text = append(text, e.Path...)
	return append(text, '\n')
}

// ParseManifest accepts only what [Manifest.Encode] prints of valid names.
func ParseManifest(text []byte) (*Manifest, error) {
	if len(text) > MaxManifest {
		return nil, fmt.Errorf("%w: longer than %d bytes", errManifest, MaxManifest)
	}
	m, body, err := parseManifestHeader(text)
	if err != nil {
		return nil, err
	}
	m.Entries = make([]Entry, 0, bytes.Count(body, []byte("\n")))
	for len(body) > 0 {
		line, rest, ok := bytes.Cut(body, []byte("\n"))
		if !ok {
			return nil, fmt.Errorf("%w: its last line does not end", errManifest)
		}
		e, err := parseEntry(line)
		if err != nil {
			return nil, err
		}
		body = rest
		if n := len(m.Entries); n > 0 && compareEntries(m.Entries[n-1], e) >= 0 {
			return nil, fmt.Errorf("%w: %s %q is out of order", errManifest, e.Kind, e.Path)
		}
		m.Entries = append(m.Entries, e)
	}
	return m, nil
}

// parseManifestHeader returns the manifest without its entries, and their
// lines.
func parseManifestHeader(text []byte) (m *Manifest, body []byte, err error) {
	m = new(Manifest)
	body = text
	for _, key := range []string{"", "stream", "parent", "created", "reason"} {
		line, rest, ok := bytes.Cut(body, []byte("\n"))
		if !ok {
			return nil, nil, fmt.Errorf("%w: it ends within the header", errManifest)
		}
		if err := m.setHeader(key, string(line)); err != nil {
			return nil, nil, err
		}
		body = rest
	}
	if err := m.validHeader(); err != nil {
		return nil, nil, err
	}
	if !bytes.HasPrefix(text, []byte(m.header())) {
		return nil, nil, fmt.Errorf("%w: the header is not in its one form", errManifest)
	}
	return m, body, nil
}

func (m *Manifest) setHeader(key, line string) (err error) {
	if key == "" {
		if line != manifestFormat {
			return fmt.Errorf("%w: its first line is %q, not %q", errManifest, abbreviate(line), manifestFormat)
		}
		return nil
	}
	value, ok := strings.CutPrefix(line, key+" ")
	if !ok {
		return fmt.Errorf("%w: want the line %q, got %q", errManifest, key, abbreviate(line))
	}
	switch key {
	case "stream":
		m.Stream = value
	case "reason":
		m.Reason = value
	case "parent":
		if value != "-" {
			m.Parent, err = ParseDigest(value)
		}
	case "created":
		m.Created, err = time.Parse(time.RFC3339, value)
	}
	if err != nil {
		return fmt.Errorf("%w: %v", errManifest, err)
	}
	return nil
}

func parseEntry(line []byte) (Entry, error) {
	part := bytes.SplitN(line, []byte(" "), 4)
	if len(part) != 4 {
		return Entry{}, fmt.Errorf("%w: %q is not an entry", errManifest, abbreviate(string(line)))
	}
	digest, err := ParseDigest(string(part[1]))
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %v", errManifest, err)
	}
	size, err := strconv.ParseInt(string(part[2]), 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != string(part[2]) {
		return Entry{}, fmt.Errorf("%w: malformed size %q of %q", errManifest, abbreviate(string(part[2])), abbreviate(string(part[3])))
	}
	i := slices.IndexFunc(kinds[:], func(k Kind) bool { return string(k) == string(part[0]) })
	if i < 0 {
		return Entry{}, fmt.Errorf("%w: unknown kind %q", errManifest, abbreviate(string(part[0])))
	}
	e := Entry{Kind: kinds[i], Digest: digest, Size: size, Path: string(part[3])}
	return e, e.validate()
}

// validate says why m, whose entries are sorted, cannot be written as text.
func (m *Manifest) validate() error {
	if err := m.validHeader(); err != nil {
		return err
	}
	for i, e := range m.Entries {
		if err := e.validate(); err != nil {
			return err
		}
		if i > 0 && compareEntries(m.Entries[i-1], e) == 0 {
			return fmt.Errorf("%w: two entries %s %q", errManifest, e.Kind, e.Path)
		}
	}
	return nil
}

func (m *Manifest) validHeader() error {
	if err := checkName(m.Stream); err != nil {
		return fmt.Errorf("%w: %v", errManifest, err)
	}
	if y := m.Created.UTC().Year(); y < 1 || y > 9999 {
		return fmt.Errorf("%w: the year %d", errManifest, y)
	}
	if len(m.Reason) > maxReason || hasControl(m.Reason) {
		return fmt.Errorf("%w: the reason %q is not one short line", errManifest, abbreviate(m.Reason))
	}
	return nil
}

func (e Entry) validate() error {
	switch {
	case !e.Kind.valid():
		return fmt.Errorf("%w: unknown kind %q", errManifest, abbreviate(string(e.Kind)))
	case e.Digest.IsZero():
		return fmt.Errorf("%w: %s %q has no digest", errManifest, e.Kind, abbreviate(e.Path))
	case e.Size < 0:
		return fmt.Errorf("%w: %s %q has the size %d", errManifest, e.Kind, abbreviate(e.Path), e.Size)
	case len(e.Path) > maxPath || e.Path == "." || !fs.ValidPath(e.Path) || hasControl(e.Path):
		return fmt.Errorf("%w: bad path %q", errManifest, abbreviate(e.Path))
	}
	return nil
}

// hasControl also finds what is no UTF-8.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' })
}

func abbreviate(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
