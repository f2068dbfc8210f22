package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// shownFaults says what keeps clients of a snapshot from what it shows them, a line each: a document that none of the keys signed
// which they have been given, or that cannot be read, an index that names what is no document of the snapshot, a list that names a
// file which is not in it as the list says, a path that stands for a document and a file. What is in files is not read, unless upstream
// gives no SHA-256.
//
// Whose signatures count is what t says. The error is about documents that cannot be had.
func shownFaults(ctx context.Context, f documents, man *cache.Manifest, t trust, now time.Time) ([]string, error) {
	return shownWithin(ctx, f, man, t, now, maxShownText)
}

// maxShownText bounds what the documents that clients read have in bytes, all together: they are held in memory, and compressed they
// may have a thousandth of that. The whole of images.maas.io has a few tens of megabytes.
const maxShownText = 256 << 20

// shownWithin is shownFaults for documents of up to room bytes.
func shownWithin(ctx context.Context, f documents, man *cache.Manifest, t trust, now time.Time, room int64) ([]string, error) {
	s := &showing{files: f, trust: t, now: now, kind: shownKind(man), docs: map[string]cache.Entry{}, items: map[string]cache.Entry{},
		read: map[string]*shownDocument{}, opened: map[cache.Digest]*shownDocument{}, signed: map[[2]cache.Digest]error{}, room: room}
	for _, e := range man.Entries {
		switch e.Kind {
		case s.kind:
			s.docs[e.Path] = e
		case cache.KindItem:
			s.items[e.Path] = e
		}
	}
	for _, e := range man.Entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, item := s.items[e.Path]; e.Kind == s.kind && item {
			s.fault("%s is a document and a file at once", e.Path)
		}
		if doc, apart := strings.CutSuffix(e.Path, ".gpg"); e.Kind != s.kind || apart && s.docs[doc].Path != "" {
			continue // a signature is read with its document
		}
		if err := s.document(e); err != nil {
			return nil, err
		}
		if s.room < 0 {
			s.fault("the documents that clients read have more than %d bytes", room)
			return s.faults, nil
		}
	}
	s.indexes(man)
	s.lists(man)
	if len(s.faults) > 0 {
		return s.faults, nil
	}
	return s.faults, s.lint(ctx, man)
}

// shownTrust returns whose signatures clients of a snapshot can check: those of the sites that sign it or, where it shows upstream's
// documents, of upstream.
func shownTrust(man *cache.Manifest, s Stream, signers []byte) (trust, error) {
	if shownKind(man) == cache.KindUpstream {
		return s.trust()
	}
	ring, err := streams.ReadKeyring(signers)
	return trust{keyring: ring}, err
}

// A showing is what shownFaults goes through.
type showing struct {
	files  documents
	trust  trust
	now    time.Time
	kind   cache.Kind // whose documents clients read
	docs   map[string]cache.Entry
	items  map[string]cache.Entry
	read   map[string]*shownDocument // by path; of the same content the same
	opened map[cache.Digest]*shownDocument
	signed map[[2]cache.Digest]error // what became of a signature, by the document and the signature apart
	room   int64                     // bytes that may still be read
	faults []string
}

// A shownDocument is an index or a list.
type shownDocument struct {
	bytes, text []byte
	index       *streams.Index
	list        *streams.Products
}

func (s *showing) fault(format string, args ...any) {
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

// document reads a document, and asks who signed it.
func (s *showing) document(e cache.Entry) error {
	d, err := s.open(e)
	if errors.Is(err, cache.ErrMiss) {
		return err
	}
	if err != nil {
		s.fault("clients cannot read %s: %v", e.Path, err)
		return nil
	}
	s.read[e.Path] = d
	var apart []byte
	key := [2]cache.Digest{e.Digest}
	if sig, ok := s.docs[e.Path+".gpg"]; ok {
		key[1] = sig.Digest
	}
	err, known := s.signed[key]
	if !known {
		if !key[1].IsZero() {
			if apart, err = readEntry(s.files, s.docs[e.Path+".gpg"]); err != nil {
				return err
			}
		}
		_, err = s.trust.signature(d.bytes, apart, s.now)
		s.signed[key] = err
	}
	switch {
	case errors.Is(err, streams.ErrUnsigned) && s.kind == cache.KindUpstream && key[1].IsZero():
		err = s.saysAsSigned(e.Path, d)
	case err == nil && s.kind == cache.KindSite && strings.HasSuffix(e.Path, ".json") && streams.IsClearsigned(d.bytes):
		err = errors.New("it has its signature in it, where clients read JSON alone")
	}
	if err != nil {
		s.fault("clients cannot believe %s: %v", e.Path, err)
	}
	return nil
}

// open reads and parses a document, which has to be one. What was read already of the same content is not read again.
func (s *showing) open(e cache.Entry) (*shownDocument, error) {
	if d := s.opened[e.Digest]; d != nil {
		return d, nil
	}
	d := &shownDocument{}
	var err error
	if d.bytes, err = readEntry(s.files, e); err != nil {
		return nil, err
	}
	s.room -= int64(len(d.bytes))
	if d.text, err = textOf(d.bytes); err != nil {
		return nil, err
	}
	if d.index, err = streams.ParseIndex(d.text); err != nil {
		if d.list, err = streams.ParseProducts(d.text); err != nil {
			return nil, err
		}
	}
	s.opened[e.Digest] = d
	return d, nil
}

// saysAsSigned refuses an unsigned document of upstream's that says something else than the signed form beside it: it is published
// only with that.
func (s *showing) saysAsSigned(path string, d *shownDocument) error {
	name, plain := strings.CutSuffix(path, ".json")
	signed, ok := s.docs[name+".sjson"]
	if !plain || !ok {
		return streams.ErrUnsigned
	}
	other, err := s.open(signed)
	if err != nil {
		return err
	}
	return sameText(other.text, d.bytes, d.index != nil)
}

// indexes looks for what the indexes name. Entries of another format than that of lists are not followed, and so upstream's stay
// without a document.
func (s *showing) indexes(man *cache.Manifest) {
	found := false
	for _, e := range man.Entries {
		d := s.read[e.Path]
		if e.Kind != s.kind || d == nil || d.index == nil {
			continue
		}
		found = true
		for _, entry := range d.index.Entries {
			if s.kind == cache.KindUpstream && entry.Format != "products:1.0" {
				continue
			}
			named := s.read[string(entry.Path)]
			switch {
			case named == nil || named.list == nil:
				s.fault("%s names %s, which is no list of the snapshot", e.Path, entry.Path)
			case named.list.ContentID != entry.ContentID:
				s.fault("%s names %s as the list %s, and it is %s", e.Path, entry.Path, entry.ContentID, named.list.ContentID)
			}
		}
	}
	for _, path := range []streams.Path{streams.SignedIndex, streams.UnsignedIndex} { // by which clients of either kind begin
		if d := s.read[string(path)]; s.kind == cache.KindSite && (d == nil || d.index == nil) {
			s.fault("there is no index %s", path)
		}
	}
	if s.kind == cache.KindUpstream && !found {
		s.fault("there is no index")
	}
}

// lists looks for what the lists name. Where upstream names two contents of a path, as it may, one of them is served.
func (s *showing) lists(man *cache.Manifest) {
	seen := map[cache.Digest]bool{}
	misfits, fits := map[string]string{}, map[string]bool{}
	for _, e := range man.Entries {
		d := s.read[e.Path]
		if e.Kind != s.kind || d == nil || d.list == nil {
			continue
		}
		if text := cache.Sum(bytes.TrimRight(d.text, "\n")); seen[text] {
			continue
		} else {
			seen[text] = true
		}
		for at, it := range d.list.Items() {
			path := string(it.Path)
			switch problem := s.misfit(it); {
			case path == "":
			case problem == "":
				fits[path] = true
			case misfits[path] == "":
				misfits[path] = fmt.Sprintf("%s names %s (%v), %s", e.Path, path, at, problem)
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(misfits)) {
		if s.kind == cache.KindSite || !fits[path] {
			s.faults = append(s.faults, misfits[path])
		}
	}
}

// misfit says what is wrong with the file of an item; "": nothing is.
func (s *showing) misfit(it *streams.Item) string {
	e, ok := s.items[string(it.Path)]
	switch {
	case !ok:
		return "which is not in the snapshot"
	case it.Size != e.Size:
		return fmt.Sprintf("which has %d bytes, and not %d", e.Size, it.Size)
	case it.SHA256 != nil && !bytes.Equal(it.SHA256, e.Digest[:]):
		return fmt.Sprintf("which has the sha256 %v, and not %x", e.Digest, it.SHA256)
	case it.SHA256 != nil:
		return ""
	}
	want := wanted(it)
	want.SHA256 = e.Digest
	if err := s.files.Prove(e.Digest, want); err != nil {
		return fmt.Sprintf("which has another content: %v", err)
	}
	return ""
}

// lint applies the rules of the format.
func (s *showing) lint(ctx context.Context, man *cache.Manifest) error {
	v, err := Lint(ctx, documentsIn(s.files, man), streams.Plain)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another index than the usual one
	}
	if err != nil {
		return err
	}
	for _, f := range v.Findings {
		if f.Fatal {
			s.fault("clients refuse %s: %v", f.Index, f.Finding)
		}
	}
	return nil
}

// withoutFiles are documents of a store whose files are still to come: these are taken for what metadata says.
type withoutFiles struct{ documents }
