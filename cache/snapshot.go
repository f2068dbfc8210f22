package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

var (
	// ErrNoSnapshot: the stream has published nothing yet, or not that. Publish first.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrMoved: the snapshot that should be followed is not the current one. Plan again on the current one.
	ErrMoved = errors.New("another snapshot was published meanwhile")
)

// A DamagedError says that a file of the store is not what it should be, or lost. It wraps the reason, which is [ErrCorrupt] or
// [ErrNoSnapshot]. [Store.Check] says what that hurts.
type DamagedError struct {
	File string // relative to the store
	Err  error
}

func (e *DamagedError) Error() string { return e.Err.Error() }

func (e *DamagedError) Unwrap() error { return e.Err }

// A Snapshot is what is known of a kept snapshot beside its entries.
type Snapshot struct {
	ID      Digest
	Stream  string
	Created time.Time
	Parent  Digest // zero if none
	Reason  string
	Current bool

	Entries int   // lines of the manifest
	Items   int   // of these, files that are here
	Known   int   // of these, files that may be fetched
	Bytes   int64 // of its distinct blobs, which other snapshots may share
}

// summary is m as a Snapshot, but for Current.
func (m *Manifest) summary(id Digest) Snapshot {
	s := Snapshot{ID: id, Stream: m.Stream, Created: m.Created.UTC().Truncate(time.Second), Parent: m.Parent, Reason: m.Reason, Entries: len(m.Entries)}
	seen := make(map[Digest]struct{}, len(m.Entries))
	for _, e := range m.Entries {
		switch e.Kind {
		case KindItem:
			s.Items++
		case KindKnown:
			s.Known++
			continue
		}
		if _, ok := seen[e.Digest]; !ok {
			seen[e.Digest] = struct{}{}
			s.Bytes += e.Size
		}
	}
	return s
}

// A View says which documents a client sees beside items and known files.
type View int

const (
	Published View = iota // the site's documents
	Upstream              // upstream's documents
)

func (v View) shows(k Kind) bool {
	switch k {
	case KindItem, KindKnown:
		return true
	case KindSite:
		return v == Published
	case KindUpstream:
		return v == Upstream
	}
	return false
}

// Found is the answer of [Store.Find].
type Found struct {
	Entry
	Snapshot Digest // the snapshot that names it
	Current  bool   // whether that is the current one
}

func manifestName(stream string, id Digest) string {
	return path.Join(snapshotsDir, stream, id.String())
}

func currentName(stream string) string { return path.Join(currentDir, stream) }

// published returns the names of the streams that have a current snapshot, in
// order.
func (f *Files) published() ([]string, error) {
	return f.names(currentDir, func(e fs.DirEntry) bool { return checkName(e.Name()) == nil && e.Type().IsRegular() })
}

// archived returns the names of the streams that have manifests, in order.
func (f *Files) archived() ([]string, error) {
	return f.names(snapshotsDir, func(e fs.DirEntry) bool { return checkName(e.Name()) == nil && e.IsDir() })
}

// manifests returns the ids of the manifests that a stream has, kept or not.
func (f *Files) manifests(stream string) ([]Digest, error) {
	return f.digests(path.Join(snapshotsDir, stream))
}

// pins returns the ids of the snapshots that are pinned.
func (f *Files) pins() ([]Digest, error) { return f.digests(pinsDir) }

// digests returns what the files in a directory are named after.
func (f *Files) digests(dir string) ([]Digest, error) {
	names, err := f.names(dir, isDigest)
	ids := make([]Digest, len(names))
	for i, name := range names {
		ids[i], _ = ParseDigest(name)
	}
	return ids, err
}

func isDigest(e fs.DirEntry) bool {
	_, err := ParseDigest(e.Name())
	return err == nil && e.Type().IsRegular()
}

// names returns the names of the accepted entries of a directory, in order. A
// directory that is not there has none.
func (f *Files) names(dir string, accept func(fs.DirEntry) bool) ([]string, error) {
	list, err := f.readDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if accept(e) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (f *Files) readDir(dir string) ([]fs.DirEntry, error) { return readDirIn(f.root, dir) }

// readDirIn returns what is in a directory below root, sorted; nothing where that is not there.
func readDirIn(root *os.Root, dir string) ([]fs.DirEntry, error) {
	d, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

// readFile reads a file of at most limit bytes.
func (f *Files) readFile(name string, limit int64) ([]byte, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrCorrupt, name, st.Size(), limit)
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return data, nil
}

// Manifest returns the manifest of a snapshot, proven by its id. The error is
// ErrNoSnapshot if there is none, ErrCorrupt and a [*DamagedError] if it is
// damaged.
func (f *Files) Manifest(stream string, id Digest) (*Manifest, error) {
	if err := checkName(stream); err != nil {
		return nil, err
	}
	name := manifestName(stream, id)
	text, err := f.readFile(name, MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %v of stream %s", ErrNoSnapshot, id, stream)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read snapshot %v of %s: %w", id, stream, err)
	}
	m, err := parseNamed(text, stream, id)
	if err != nil {
		return nil, &DamagedError{name, fmt.Errorf("cannot use snapshot %v of %s: %w", id, stream, err)}
	}
	return m, nil
}

func parseNamed(text []byte, stream string, id Digest) (*Manifest, error) {
	if got := Sum(text); got != id {
		return nil, fmt.Errorf("%w: its text has the sha256 %v", ErrCorrupt, got)
	}
	m, err := ParseManifest(text)
	if err == nil && m.Stream != stream {
		return nil, fmt.Errorf("%w: it belongs to stream %s", ErrCorrupt, m.Stream)
	}
	return m, err
}

// keptManifest is Manifest for a snapshot that is kept: there is something wrong if it is not there.
func (f *Files) keptManifest(stream string, id Digest) (*Manifest, error) {
	m, err := f.Manifest(stream, id)
	if errors.Is(err, ErrNoSnapshot) {
		err = &DamagedError{manifestName(stream, id), err}
	}
	return m, err
}

// Kept returns how many snapshots of a stream are kept. It reads none of them.
func (f *Files) Kept(stream string) (int, error) {
	ids, err := f.kept(stream)
	return len(ids), err
}

// Current returns the current snapshot of a stream, or ErrNoSnapshot.
func (f *Files) Current(stream string) (Snapshot, error) {
	id, err := f.currentID(stream)
	if err != nil {
		return Snapshot{}, err
	}
	m, err := f.keptManifest(stream, id)
	if err != nil {
		return Snapshot{}, err
	}
	s := m.summary(id)
	s.Current = true
	return s, nil
}

// Snapshots returns the kept snapshots of a stream, newest first: the current
// one and those before it.
func (f *Files) Snapshots(stream string) ([]Snapshot, error) {
	ids, err := f.kept(stream)
	if err != nil {
		return nil, err
	}
	list := make([]Snapshot, len(ids))
	for i, id := range ids {
		m, err := f.keptManifest(stream, id)
		if err != nil {
			return nil, err
		}
		list[i] = m.summary(id)
		list[i].Current = i == 0
	}
	return list, nil
}

// Resolve returns the one kept snapshot of a stream whose id begins with
// prefix. The error is ErrNoSnapshot if there is none, or more than one.
func (f *Files) Resolve(stream, prefix string) (Digest, error) {
	ids, err := f.kept(stream)
	if err != nil {
		return Digest{}, err
	}
	ids = slices.DeleteFunc(ids, func(id Digest) bool { return !strings.HasPrefix(id.String(), prefix) })
	switch {
	case prefix == "" || len(ids) == 0:
		return Digest{}, fmt.Errorf("%w: no id of stream %s begins with %q", ErrNoSnapshot, stream, prefix)
	case len(ids) > 1:
		return Digest{}, fmt.Errorf("%w: %q begins the ids of %d of stream %s, among them %.12s and %.12s: give more digits",
			ErrNoSnapshot, prefix, len(ids), stream, ids[0], ids[1])
	}
	return ids[0], nil
}
