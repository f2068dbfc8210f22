package mirror

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// ExportOptions says what a bundle brings.
type ExportOptions struct {
	// Snapshots are what it brings: kept ones, one a stream.
	Snapshots []cache.Snapshot

	// Since is a snapshot of a stream that the other side has: what it names is left out.
	Since map[string]cache.Digest

	// Have is what the other side said it has, if it did.
	Have *Have

	// NoFiles has it bring no file, as if the other side had them all: it is then the custody of its snapshots, and nothing else.
	NoFiles bool

	// Split bounds the bytes of a volume. If zero, there is one.
	Split int64

	// MadeBy is the program, such as "oxbow 1.2.0".
	MadeBy string
}

// An Export is a bundle to be written. The same options give the same bundle, as long as the site's key is the same.
type Export struct {
	Contents *bundle.Contents
	Signed   []byte // contents.asc
	Shared   Amount // files that several snapshots or paths share, and that the bundle has once
	Absent   Amount // files that have to be there already

	files *cache.Files
	small map[string][]byte // members that are made here, by path
}

// PlanExport plans a bundle. It needs no lock, and writes nothing; blobs are not read, but for documents. The error is cache.ErrMiss
// where the site has no key to sign with.
func PlanExport(ctx context.Context, f *cache.Files, o ExportOptions) (*Export, error) {
	e := &exporting{o: o, res: &Export{files: f, small: map[string][]byte{}}}
	if err := e.plan(ctx); err != nil {
		return nil, fmt.Errorf("cannot make a bundle: %w", err)
	}
	return e.res, nil
}

// An exporting is an Export being planned.
type exporting struct {
	o     ExportOptions
	res   *Export
	key   *streams.SigningKey
	needs []bundle.Need
	files map[cache.Digest]int64 // what the bundle brings
}

func (e *exporting) plan(ctx context.Context) (err error) {
	if e.key, err = SiteKey(e.res.files); err != nil {
		return err
	}
	e.files = map[cache.Digest]int64{}
	c := &bundle.Contents{MadeBy: e.o.MadeBy, Site: e.key.Fingerprint(), Created: e.key.Created()} // no signature is older than its key
	for _, s := range e.o.Snapshots {
		if since := e.since(s); since.After(c.Created) {
			c.Created = since
		}
	}
	c.Created = c.Created.UTC().Truncate(time.Second)
	e.res.Contents = c
	e.add(bundle.SitePath(), e.key.Public())
	byStream := func(a, b cache.Snapshot) int { return cmp.Compare(a.Stream, b.Stream) }
	for _, s := range slices.SortedFunc(slices.Values(e.o.Snapshots), byStream) {
		if err := e.snapshot(ctx, s); err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
	}
	c.Needs = e.needs
	slices.SortFunc(c.Needs, func(a, b bundle.Need) int { return a.Digest.Compare(b.Digest) })
	c.Needs = slices.Compact(c.Needs)
	for _, n := range c.Needs {
		e.res.Absent.add(n.Size)
	}
	if err := e.pack(); err != nil {
		return err
	}
	if _, err := bundle.Parse(c.Encode()); err != nil { // nobody could read it
		return err
	}
	e.res.Signed, err = e.key.Clearsign(c.Encode(), c.Created)
	return err
}

// since returns since when the site has had a snapshot: when it was made here, or came.
func (e *exporting) since(s cache.Snapshot) time.Time {
	if st, err := readState(e.res.files, s.Stream); err == nil {
		if came := st.Imported.arrival(s); came != nil && came.of(s) {
			return came.Time
		}
	}
	return s.Created
}

// add adds a member that is in every volume.
func (e *exporting) add(path string, data []byte) {
	if _, there := e.res.small[path]; there {
		return
	}
	e.res.small[path] = data
	e.res.Contents.Members = append(e.res.Contents.Members, bundle.Member{Path: path, Digest: cache.Sum(data), Size: int64(len(data))})
}

// A Description is what a bundle says of a stream.
type Description struct {
	Name     string          `json:"name"`
	Path     string          `json:"path"`
	Also     []string        `json:"also,omitempty"`
	Kind     Kind            `json:"kind,omitempty"`
	Profile  streams.Profile `json:"maas,omitempty"`
	Upstream []string        `json:"upstream"` // without passwords
	Unsigned bool            `json:"allow_unsigned,omitempty"`
}

// snapshot adds what a snapshot needs.
func (e *exporting) snapshot(ctx context.Context, s cache.Snapshot) error {
	st, err := readState(e.res.files, s.Stream)
	if err != nil {
		return err
	}
	man, err := e.res.files.Manifest(s.Stream, s.ID)
	if err != nil {
		return err
	}
	if err := e.aside(st, s); err != nil {
		return err
	}
	e.add(bundle.SnapshotPath(s.Stream, s.ID), bundle.Compress(man.Encode()))
	since, there, err := e.there(s)
	if err != nil {
		return err
	}
	e.res.Contents.Snapshots = append(e.res.Contents.Snapshots, bundle.Snapshot{Stream: s.Stream, ID: s.ID, Since: since})
	known := 0
	for _, entry := range man.Entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch entry.Kind {
		case cache.KindKnown:
			known++
		case cache.KindItem:
			e.item(entry, there)
		default:
			data, err := readEntry(e.res.files, entry)
			if err != nil {
				return err
			}
			e.add(bundle.DocumentPath(entry.Digest), bundle.Compress(data))
		}
	}
	if known > 0 {
		return fmt.Errorf("its metadata names %d files that are not here, and that nobody could pull through where the bundle goes: a stream with `advertise: selected` has all that it names", known)
	}
	return nil
}

// aside adds what tells of a stream beside its snapshots.
func (e *exporting) aside(st *state, s cache.Snapshot) error {
	d := Description{st.Stream.Name, st.Stream.Path, st.Stream.Also, st.Stream.Kind, st.Stream.Profile, nil, st.Stream.AllowUnsigned}
	for _, base := range st.Stream.Upstream {
		d.Upstream = append(d.Upstream, withoutUser(base))
	}
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	e.add(bundle.StreamPath(s.Stream), append(text, '\n'))
	if keys, err := st.Stream.Keys(); err != nil {
		return err
	} else if len(keys) > 0 {
		e.add(bundle.UpstreamKeysPath(s.Stream), keys)
	}
	signers, err := ownKeyring(e.res.files)
	if err != nil {
		return err
	}
	switch {
	case !st.comes(e.res.files):
	case st.Accepted.Key != "": // it was synced here, too
		signers = st.Imported.signers(signers)
	default:
		signers = st.Imported.Signers
	}
	e.add(bundle.SiteKeysPath(s.Stream), signers)
	var before []byte
	n := 1
	if came := st.Imported.arrival(s); came != nil {
		for _, doc := range came.Handovers {
			before = []byte(doc)
			e.add(bundle.HandoverPath(s.Stream, n), before)
			n++
		}
	}
	h := handover{Stream: s.Stream, Snapshot: s.ID, Site: e.key.Fingerprint(), Time: e.since(s).UTC().Truncate(time.Second), MadeBy: e.o.MadeBy}
	if before != nil {
		h.Before = cache.Sum(before)
	}
	signed, err := e.key.Clearsign(h.encode(), e.res.Contents.Created)
	if err != nil {
		return err
	}
	e.add(bundle.HandoverPath(s.Stream, n), signed)
	return nil
}

// withoutUser returns a URL without the name and password that it may have.
func withoutUser(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

// there returns what the other side has: a snapshot of the stream, and blobs.
func (e *exporting) there(s cache.Snapshot) (since cache.Digest, blobs map[cache.Digest]bool, err error) {
	if e.o.Have != nil {
		return e.o.Have.Snapshots[s.Stream], e.o.Have.Blobs, nil
	}
	since = e.o.Since[s.Stream]
	if since.IsZero() {
		return since, nil, nil
	}
	if since == s.ID {
		return since, nil, errors.New("what the other side has, as --since says, is what the bundle would bring")
	}
	man, err := e.res.files.Manifest(s.Stream, since)
	if err != nil {
		return since, nil, fmt.Errorf("cannot tell what the other side has: %w", err)
	}
	blobs = map[cache.Digest]bool{}
	for _, entry := range man.Entries {
		if entry.Kind == cache.KindItem {
			blobs[entry.Digest] = true
		}
	}
	return since, blobs, nil
}

func (e *exporting) item(entry cache.Entry, there map[cache.Digest]bool) {
	if e.o.NoFiles || there[entry.Digest] {
		e.needs = append(e.needs, bundle.Need{Digest: entry.Digest, Size: entry.Size})
		return
	}
	if _, twice := e.files[entry.Digest]; twice {
		e.res.Shared.add(entry.Size)
	}
	e.files[entry.Digest] = entry.Size
}

// Volume returns volume n.
func (e *Export) Volume(n int) *bundle.Volume { return bundle.NewVolume(e.Contents, e.Signed, n) }

// Write writes volume n from its ith member on. The caller leases what the bundle brings.
func (e *Export) Write(ctx context.Context, w io.Writer, n, i int) error {
	return e.Volume(n).Write(ctx, w, i, func(m bundle.Member) (io.ReadCloser, error) {
		if data, ok := e.small[m.Path]; ok {
			return io.NopCloser(bytes.NewReader(data)), nil
		}
		return e.files.Blob(m.Digest)
	})
}

// Digests returns the blobs that the bundle brings as files.
func (e *Export) Digests() (all []cache.Digest) {
	for _, m := range e.Contents.Members {
		if m.Kind() == bundle.KindFile {
			all = append(all, m.Digest)
		}
	}
	return all
}
