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
	"strings"
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

// errTooSmall: a file does not fit into a volume.
var errTooSmall = errors.New("a volume is too small")

// PlanExport plans a bundle. It needs no lock, and writes nothing; blobs are not read, but for documents. The error is cache.ErrMiss
// where the site has no key to sign with.
func PlanExport(ctx context.Context, f *cache.Files, o ExportOptions) (*Export, error) {
	e := &exporting{o: o, e: &Export{files: f, small: map[string][]byte{}}}
	if err := e.plan(ctx); err != nil {
		return nil, fmt.Errorf("cannot make a bundle: %w", err)
	}
	return e.e, nil
}

// An exporting is an Export being planned.
type exporting struct {
	o     ExportOptions
	e     *Export
	key   *streams.SigningKey
	needs []bundle.Need
	files map[cache.Digest]int64 // what the bundle brings
}

func (e *exporting) plan(ctx context.Context) (err error) {
	if e.key, err = SiteKey(e.e.files); err != nil {
		return err
	}
	e.files = map[cache.Digest]int64{}
	c := &bundle.Contents{MadeBy: e.o.MadeBy, Site: e.key.Fingerprint()}
	for _, k := range mustKeys(e.key.Public()) { // a signature is never older than its key
		c.Created = k.Created
	}
	for _, s := range e.o.Snapshots {
		if s.Created.After(c.Created) {
			c.Created = s.Created
		}
	}
	c.Created = c.Created.UTC().Truncate(time.Second)
	e.e.Contents = c
	e.add(bundle.SitePath(), e.key.Public())
	slices.SortFunc(e.o.Snapshots, func(a, b cache.Snapshot) int { return cmp.Compare(a.Stream, b.Stream) })
	for _, s := range e.o.Snapshots {
		if err := e.snapshot(ctx, s); err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
	}
	c.Needs = e.needs
	slices.SortFunc(c.Needs, func(a, b bundle.Need) int { return a.Digest.Compare(b.Digest) })
	c.Needs = slices.Compact(c.Needs)
	for _, n := range c.Needs {
		e.e.Absent.add(n.Size)
	}
	if err := e.pack(); err != nil {
		return err
	}
	e.e.Signed, err = e.key.Clearsign(c.Encode(), c.Created)
	return err
}

func mustKeys(public []byte) []streams.KeyInfo {
	ring, err := streams.ReadKeyring(public)
	if err != nil {
		panic(err) // of a key that signs
	}
	return ring.Keys()
}

// add adds a member that is in every volume.
func (e *exporting) add(path string, data []byte) {
	if _, there := e.e.small[path]; there {
		return
	}
	e.e.small[path] = data
	e.e.Contents.Members = append(e.e.Contents.Members, bundle.Member{Path: path, Digest: cache.Sum(data), Size: int64(len(data))})
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
	st, err := readState(e.e.files, s.Stream)
	if err != nil {
		return err
	}
	man, err := e.e.files.Manifest(s.Stream, s.ID)
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
	e.e.Contents.Snapshots = append(e.e.Contents.Snapshots, bundle.Snapshot{Stream: s.Stream, ID: s.ID, Since: since})
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
			data, err := readEntry(e.e.files, entry)
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
	signers, err := ownKeyring(e.e.files)
	if err != nil {
		return err
	}
	if st.Imported != nil {
		signers = st.Imported.Signers
	}
	e.add(bundle.SiteKeysPath(s.Stream), signers)
	var before []byte
	n := 1
	for ; st.Imported != nil && n <= len(st.Imported.Handovers) && st.Imported.Snapshot == s.ID.String(); n++ {
		before = []byte(st.Imported.Handovers[n-1])
		e.add(bundle.HandoverPath(s.Stream, n), before)
	}
	h := Handover{Stream: s.Stream, Snapshot: s.ID, Site: e.key.Fingerprint(), Time: e.e.Contents.Created, MadeBy: e.o.MadeBy}
	if before != nil {
		h.Before = cache.Sum(before)
	}
	signed, err := e.key.Clearsign(h.encode(), h.Time)
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
	man, err := e.e.files.Manifest(s.Stream, since)
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
	if there[entry.Digest] {
		e.needs = append(e.needs, bundle.Need{Digest: entry.Digest, Size: entry.Size})
		return
	}
	if _, twice := e.files[entry.Digest]; twice {
		e.e.Shared.add(entry.Size)
	}
	e.files[entry.Digest] = entry.Size
}

// contentsRoom is what a table of contents takes beside its lines of files: the lines of volumes, and the signature.
const contentsRoom = 64 << 10

// pack lays the files into volumes: each into the first in which it fits, the largest first.
func (e *exporting) pack() error {
	c := e.e.Contents
	for _, n := range c.Needs {
		delete(e.files, n.Digest) // another stream of the bundle would bring it
	}
	files := make([]bundle.Member, 0, len(e.files))
	for d, size := range e.files {
		files = append(files, bundle.Member{Path: bundle.FilePath(d), Digest: d, Size: size})
	}
	slices.SortFunc(files, func(a, b bundle.Member) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Path, b.Path)) })
	c.Volumes = 1
	if e.o.Split > 0 {
		if err := e.split(files); err != nil {
			return err
		}
	} else {
		for i := range files {
			files[i].Volume = 1
		}
	}
	for n := 1; n <= c.Volumes; n++ {
		c.Members = append(c.Members, bundle.VolumeMember(n))
		for _, f := range files {
			if f.Volume == n {
				c.Members = append(c.Members, f)
			}
		}
	}
	return nil
}

// split says in which volume each file is.
func (e *exporting) split(files []bundle.Member) error {
	c := e.e.Contents
	whole := *c
	whole.Members = slices.Concat(c.Members, files)
	fixed := contentsRoom + int64(len(whole.Encode()))
	for _, m := range c.Members {
		fixed += tarSize(m.Size)
	}
	var free []int64
	for i, f := range files {
		need := tarSize(f.Size)
		n := slices.IndexFunc(free, func(left int64) bool { return need <= left })
		if n < 0 {
			if need > e.o.Split-fixed {
				return fmt.Errorf("%w: --split is %d bytes, metadata takes %d of them, and a file has %d", errTooSmall, e.o.Split, fixed, f.Size)
			}
			n, free = len(free), append(free, e.o.Split-fixed)
		}
		free[n] -= need
		files[i].Volume = n + 1
	}
	if e.o.Split < fixed {
		return fmt.Errorf("%w: --split is %d bytes, and metadata alone takes %d", errTooSmall, e.o.Split, fixed)
	}
	if c.Volumes = max(1, len(free)); c.Volumes > bundle.MaxVolumes {
		return fmt.Errorf("%w: it would take %d of them, more than %d", errTooSmall, c.Volumes, bundle.MaxVolumes)
	}
	return nil
}

// tarSize bounds what a file of n bytes takes in a volume.
func tarSize(n int64) int64 { return n + 2048 }

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

// A Handover says that a site handed a snapshot over, to whoever has the bundle.
type Handover struct {
	Stream   string
	Snapshot cache.Digest
	Site     string // fingerprint of its key
	Time     time.Time
	MadeBy   string       // the program
	Before   cache.Digest // of the handover by which the site got it; zero: it made the snapshot
}

const handoverFormat = "oxbow handover 1"

func (h *Handover) encode() []byte {
	before := "nothing"
	if !h.Before.IsZero() {
		before = h.Before.String()
	}
	return fmt.Appendf(nil, "%s\nstream %s\nsnapshot %v\nsite %s\ntime %s\nmade by %s\nafter %s\n", handoverFormat, h.Stream, h.Snapshot, h.Site, h.Time.UTC().Format(time.RFC3339), h.MadeBy, before)
}

// parseHandover accepts only what encode returns.
func parseHandover(text []byte) (*Handover, error) {
	lines := strings.Split(string(text), "\n")
	values := map[string]string{}
	for i, prefix := range []string{handoverFormat, "stream ", "snapshot ", "site ", "time ", "made by ", "after ", ""} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], prefix) {
			return nil, errors.New("malformed handover")
		}
		values[prefix] = strings.TrimPrefix(lines[i], prefix)
	}
	h := &Handover{Stream: values["stream "], Site: values["site "], MadeBy: values["made by "]}
	var errs [3]error
	h.Snapshot, errs[0] = cache.ParseDigest(values["snapshot "])
	h.Time, errs[1] = time.Parse(time.RFC3339, values["time "])
	if values["after "] != "nothing" {
		h.Before, errs[2] = cache.ParseDigest(values["after "])
	}
	if err := errors.Join(errs[:]...); err != nil || !bytes.Equal(h.encode(), text) {
		return nil, errors.New("malformed handover")
	}
	return h, nil
}
