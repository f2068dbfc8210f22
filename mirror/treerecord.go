package mirror

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// treeState is the folder of an exported tree's directory that says what exports have put there:
//
//	lock       flock held by the export that is under way
//	trees      a treeRecord
//	ID         the manifest of a tree
//	new        a file of a tree that is not whole yet
const treeState = ".oxbow"

const treeFormat = "oxbow trees 1"

// A treeRecord says which trees of a directory are ours. It is durable before a tree is begun and after one is removed.
type treeRecord struct {
	Format string          `json:"format"`
	Stream string          `json:"stream"`
	Trees  []*recordedTree `json:"trees"` // in the order in which they were begun
}

type recordedTree struct {
	ID   cache.Digest `json:"-"`
	Text string       `json:"id"`
	Done bool         `json:"done"`          // all of it is durable
	Left time.Time    `json:"left,omitzero"` // when it was no longer the current one; zero: it is, or never was

	entries map[string]cache.Digest // nil until they are asked for
}

func (t *recordedTree) name() string { return treeName(t.ID) }

// begin takes the directory, which must be one of that stream's trees, or empty.
func (x *treeExport) begin(stream string) (unlock func(), err error) {
	data, err := readBounded(x.root, path.Join(treeState, "trees"))
	if errors.Is(err, fs.ErrNotExist) {
		if err := vacant(x.root); err != nil {
			return nil, err
		}
		x.record = &treeRecord{Format: treeFormat, Stream: stream}
	} else if err != nil {
		return nil, err
	}
	if x.o.DryRun {
		return func() {}, x.readRecord(data, stream)
	}
	if err := x.root.Mkdir(treeState, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := openPlain(x.root, path.Join(treeState, "lock"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another export writes there; run this one when that has ended (%w)", err)
	}
	if data != nil { // as the export before has left it
		data, err = readBounded(x.root, path.Join(treeState, "trees"))
	} else {
		err = x.record.write(x.root)
	}
	if err == nil {
		err = x.readRecord(data, stream)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return func() { lock.Close() }, nil
}

func (x *treeExport) readRecord(data []byte, stream string) error {
	if data == nil {
		return nil
	}
	x.record = &treeRecord{}
	if err := json.Unmarshal(data, x.record); err != nil {
		return fmt.Errorf("%w: cannot read %s/trees: %w", ErrForeign, treeState, err)
	}
	switch {
	case x.record.Format != treeFormat:
		return fmt.Errorf("%w: its format is %q, and this oxbow knows %q", ErrForeign, x.record.Format, treeFormat)
	case x.record.Stream != stream:
		return fmt.Errorf("%w of stream %s, but of stream %s: give every stream a directory of its own", ErrForeign, stream, x.record.Stream)
	}
	for _, t := range x.record.Trees {
		if t == nil {
			return fmt.Errorf("%w: cannot read %s/trees: it names a tree that is none", ErrForeign, treeState)
		}
		var err error
		if t.ID, err = cache.ParseDigest(t.Text); err != nil {
			return fmt.Errorf("%w: cannot read %s/trees: %w", ErrForeign, treeState, err)
		}
	}
	return nil
}

// vacant refuses a directory with anything in it but what a new file system, or an export that was interrupted at once, has.
func vacant(root *os.Root) error {
	list, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() != "lost+found" && e.Name() != treeState {
			return fmt.Errorf("%w: it has %s, and no export put that there; give an empty or a new one", ErrForeign, e.Name())
		}
	}
	return nil
}

func (r *treeRecord) write(root *os.Root) error {
	for _, t := range r.Trees {
		t.Text = t.ID.String()
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return writeDurable(root, path.Join(treeState, "trees"), append(data, '\n'))
}

// tree returns what is recorded of a tree, or nil.
func (r *treeRecord) tree(name string) *recordedTree {
	for _, t := range r.Trees {
		if t.name() == name {
			return t
		}
	}
	return nil
}

// current returns the name of the tree that is served; "": none is yet.
func (r *treeRecord) current(root *os.Root) (string, error) {
	to, err := root.Readlink(currentTree)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("%w: %s is no link: %w", ErrForeign, currentTree, err)
	case r.tree(to) == nil:
		return "", fmt.Errorf("%w: %s leads to %s, which no export made; remove the link to have it made anew", ErrForeign, currentTree, to)
	}
	return to, nil
}

// leave notes that trees leave the service where next takes the place of now, and reports whether any does.
func (r *treeRecord) leave(now, next string, at time.Time) (any bool) {
	for _, t := range r.Trees {
		switch {
		case t.name() == next:
			t.Left = time.Time{}
		case t.Done && (t.name() == now || t.Left.IsZero()):
			t.Left, any = at.UTC().Truncate(time.Second), true
		}
	}
	return any
}

// last returns the tree that left last, of those that are not the one of that name; nil: there is none.
func (r *treeRecord) last(except string) (last *recordedTree) {
	for _, t := range r.Trees {
		if t.Done && t.name() != except && (last == nil || !t.Left.Before(last.Left)) {
			last = t
		}
	}
	return last
}

// has reports whether the tree was made with that file.
func (t *recordedTree) has(root *os.Root, e cache.Entry) bool {
	if t.entries == nil {
		t.entries = map[string]cache.Digest{}
		if man, err := readTreeManifest(root, t.ID); err == nil {
			for _, e := range man.Entries {
				if e.Kind == shownKind(man) || e.Kind == cache.KindItem {
					t.entries[e.Path] = e.Digest
				}
			}
		}
	}
	return t.entries[e.Path] == e.Digest
}

func treeManifestName(id cache.Digest) string { return path.Join(treeState, id.String()) }

// readTreeManifest reads the manifest of a tree, proven by its id.
func readTreeManifest(root *os.Root, id cache.Digest) (*cache.Manifest, error) {
	data, err := readBounded(root, treeManifestName(id))
	if err == nil && cache.Sum(data) != id {
		err = cache.ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest of tree %s: %w", treeName(id), err)
	}
	return cache.ParseManifest(data)
}

// openPlain opens a file of ours, which has to be one: at a pipe that somebody else put there it does not wait.
func openPlain(root *os.Root, name string, flag int) (*os.File, error) {
	f, err := root.OpenFile(name, flag|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is no file, and no export put that there; remove it", ErrForeign, name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readBounded reads a small file.
func readBounded(root *os.Root, name string) ([]byte, error) {
	f, err := openPlain(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, streams.MaxDocument+1))
	if err == nil && len(data) > streams.MaxDocument {
		err = fmt.Errorf("%s is too long", name)
	}
	return slices.Clip(data), err
}

// writeDurable writes a small file, in place of the one that is there, if one is.
func writeDurable(root *os.Root, name string, data []byte) error {
	temp := name + ".new"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // never a file that somebody else put there
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := root.Rename(temp, name); err != nil {
		return err
	}
	return syncDir(root, path.Dir(name))
}

func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
