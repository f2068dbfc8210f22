package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// Documents reads the metadata document of a tree at p. One that is not there is
// [fs.ErrNotExist].
type Documents func(ctx context.Context, p streams.Path) ([]byte, error)

// A Verdict is what [Lint] says of a tree.
type Verdict struct {
	Kind     Kind
	Profile  streams.Profile // whose rules were asked for
	Indexes  int
	Lists    int
	Findings []Finding // in the order of the documents
}

// A Finding is a rule that a tree breaks, and the index that leads there.
type Finding struct {
	streams.Finding
	Index streams.Path
}

// RefusedBy returns the profiles, of those asked for, whose clients refuse the whole
// tree.
func (v *Verdict) RefusedBy() (refusing []streams.Profile) {
	asked := []streams.Profile{v.Profile}
	if v.Profile == streams.All {
		asked = []streams.Profile{streams.Legacy, streams.V38}
	}
	for _, p := range asked {
		if slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Fatal && (f.Profile == p || f.Profile == streams.Plain) }) {
			refusing = append(refusing, p)
		}
	}
	return refusing
}

// Lint checks the metadata of a tree by the rules of profile, signed and unsigned
// family; of the files it proves none, and of the signatures only that they are there.
// With the profile "", the rules are those of all MAAS versions where the content ids
// say that MAAS is the client, and else the format's own. An error means that a
// document could not be had.
func Lint(ctx context.Context, read Documents, profile streams.Profile) (*Verdict, error) {
	v := &Verdict{Kind: KindPlain, Profile: profile}
	for _, index := range []streams.Path{streams.SignedIndex, streams.UnsignedIndex} {
		doc, err := read(ctx, index)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v.Indexes++
		if err := v.lintFamily(ctx, read, index, doc); err != nil {
			return nil, err
		}
	}
	if v.Indexes == 0 {
		return nil, fmt.Errorf("there is neither %s nor %s: %w", streams.SignedIndex, streams.UnsignedIndex, fs.ErrNotExist)
	}
	return v, nil
}

// lintFamily follows an index as clients do. The unsigned family seldom breaks another
// rule than the signed one; what both break is told once.
func (v *Verdict) lintFamily(ctx context.Context, read Documents, index streams.Path, doc []byte) error {
	signed := index == streams.SignedIndex
	x, err := parsed(doc, signed, streams.ParseIndex)
	if err != nil {
		v.add(index, unreadable("", index, err))
		return nil
	}
	var lists []*streams.Products
	told := map[string]bool{} // content ids of lists that cannot be read
	for _, e := range x.Entries {
		if e.Path == "" {
			continue // a rule of its own
		}
		doc, err := read(ctx, e.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a rule, too
		}
		if err != nil {
			return err
		}
		v.Lists++
		l, err := parsed(doc, signed, streams.ParseProducts)
		if err != nil {
			v.add(index, unreadable(e.ContentID, e.Path, err))
			told[e.ContentID] = true
			continue
		}
		lists = append(lists, l)
	}
	found := streams.Lint(x, lists, v.profile(x))
	v.add(index, slices.DeleteFunc(found, func(f streams.Finding) bool { return told[f.ContentID] })...)
	return nil
}

// profile decides what the tree is for, by its first index.
func (v *Verdict) profile(x *streams.Index) streams.Profile {
	if x.MAAS() {
		v.Kind = KindMAAS
	}
	if v.Profile == "" {
		v.Profile = streams.Plain
		if v.Kind == KindMAAS {
			v.Profile = streams.All
		}
	}
	return v.Profile
}

func (v *Verdict) add(index streams.Path, all ...streams.Finding) {
	for _, f := range all {
		told := func(other Finding) bool { return other.Finding == f }
		if !slices.ContainsFunc(v.Findings, told) {
			v.Findings = append(v.Findings, Finding{f, index})
		}
	}
}

// parsed parses a document, which in the signed family has to be clearsigned: clients
// of that family look for the signature's header before all else.
func parsed[T any](doc []byte, signed bool, parse func([]byte) (T, error)) (none T, err error) {
	if signed && !streams.IsClearsigned(doc) {
		return none, errors.New("it is not signed")
	}
	text, err := textOf(doc)
	if err != nil {
		return none, err
	}
	return parse(text)
}

// unreadable is the finding about a document that no client can read.
func unreadable(contentID string, p streams.Path, err error) streams.Finding {
	return streams.Finding{Profile: streams.Plain, ContentID: contentID, Problem: fmt.Sprintf("no client reads %s: %v", p, err), Fatal: true}
}

// PublishedDocuments reads what the current snapshot of a stream shows its clients.
func PublishedDocuments(f *cache.Files, stream string) (Documents, error) {
	snap, err := f.Current(stream)
	if err != nil {
		return nil, err
	}
	man, err := f.Manifest(stream, snap.ID)
	if err != nil {
		return nil, err
	}
	return documentsIn(f, man), nil
}

// documentsIn reads what a snapshot shows its clients.
func documentsIn(f documents, man *cache.Manifest) Documents {
	kind, shown := shownKind(man), map[string]cache.Entry{}
	for _, e := range man.Entries {
		if e.Kind == kind {
			shown[e.Path] = e
		}
	}
	return func(_ context.Context, p streams.Path) ([]byte, error) {
		e, ok := shown[string(p)]
		if !ok {
			return nil, fmt.Errorf("%s is in no document of the snapshot: %w", p, fs.ErrNotExist)
		}
		return readEntry(f, e)
	}
}

// ErrRefused is wrapped by the error about a snapshot that clients would refuse, and that
// is therefore not published. It is an [ErrVerification].
var ErrRefused = fmt.Errorf("%w: refused before publishing", ErrVerification)

// gate lets a snapshot pass that its clients take, by the rules of profile: one bad
// product makes MAAS refuse a whole source.
func (m *Mirror) gate(ctx context.Context, man *cache.Manifest, profile streams.Profile) error {
	refusing, fatal, err := m.refused(ctx, man, profile)
	if err != nil || len(refusing) == 0 {
		return err
	}
	return fmt.Errorf("%w: by the rules of %v, for %d reasons, the first: %s: %v; `oxbow lint` of its upstream says all, and `maas:` in the stream's configuration whose rules count",
		ErrRefused, refusing, len(fatal), fatal[0].Index, fatal[0].Finding)
}

// refused returns the profiles whose clients refuse all of a snapshot, and why. What is
// published by another index than the usual one is for clients that nobody knows.
func (m *Mirror) refused(ctx context.Context, man *cache.Manifest, profile streams.Profile) (by []streams.Profile, fatal []Finding, err error) {
	v, err := Lint(ctx, documentsIn(m.store.Files(), man), profile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, f := range v.Findings {
		if f.Fatal {
			fatal = append(fatal, f)
		}
	}
	return v.RefusedBy(), fatal, nil
}

// UpstreamDocuments reads the tree at a URL.
func UpstreamDocuments(c *upstream.Client, base string) Documents {
	return func(ctx context.Context, p streams.Path) ([]byte, error) {
		doc, err := c.Document(ctx, fileURL(base, p), upstream.Validators{}, streams.MaxDocument)
		if errors.Is(err, upstream.ErrNotFound) {
			err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		if err != nil {
			return nil, err
		}
		return doc.Bytes, nil
	}
}
