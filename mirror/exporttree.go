package mirror

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"oxbow/cache"
)

// currentTree is the link to the tree that is to be served.
const currentTree = "current"

// treeGrace is how long what left the tree stays fetchable, and the older trees stay: a client that read the old index asks for
// hours for what it names.
const treeGrace = 24 * time.Hour

// TreeOptions are the wishes of one [ExportTree]. The zero value is good.
type TreeOptions struct {
	// DryRun has nothing be written.
	DryRun bool

	// Copy has files be copied, also where hard links are possible.
	Copy bool

	// Now is the clock. If nil, [time.Now] is used.
	Now func() time.Time
}

// An ExportedTree says what an export of a tree did, or would do.
type ExportedTree struct {
	Stream   string   `json:"stream"`
	Snapshot string   `json:"snapshot"`
	Tree     string   `json:"tree"`     // its name in the directory
	Switched bool     `json:"switched"` // whether the link to the current tree was another
	Files    Amount   `json:"files"`    // of the snapshot, by path
	Before   Amount   `json:"before"`   // that left the tree, and stay fetchable in it
	There    Amount   `json:"there"`    // of all these, those that were there already
	Linked   Amount   `json:"linked"`
	Copied   Amount   `json:"copied"`
	Removed  []string `json:"removed"` // older trees
}

// ErrForeign: a directory holds what no export put there. Name another one.
var ErrForeign = errors.New("the directory is not one of an exported tree")

// ExportTree writes a snapshot as a plain tree into a directory, for another web server to serve: DIR/ID/... with the documents that its
// clients read and every file under its path, and then, in one step, DIR/current as a link to it. Files are hard links to the
// store's blobs or, where that cannot be, copies that were proven as they were made. All of it is durable before the switch.
//
// Beside the snapshot's the tree has the files of the trees before it, as long as these left the service less than a day ago or were
// the last: a client that read their index goes on. Older trees are removed after the switch. What was interrupted is
// completed by the next call; where the tree is whole and current, nothing is written.
//
// Errors are ErrForeign for a directory with other things in it, cache.ErrMiss where the snapshot is swept meanwhile, and others.
func ExportTree(ctx context.Context, f *cache.Files, s cache.Snapshot, root *os.Root, o TreeOptions) (*ExportedTree, error) {
	x := &treeExport{files: f, root: root, o: o, id: s.ID, made: map[string]bool{}, res: &ExportedTree{Stream: s.Stream, Snapshot: s.ID.String(), Tree: treeName(s.ID), Removed: []string{}}}
	if o.Now == nil {
		x.o.Now = time.Now
	}
	if err := x.run(ctx, s); err != nil {
		return nil, fmt.Errorf("cannot export snapshot %.12s of stream %s as a tree: %w", s.ID, s.Stream, err)
	}
	return x.res, nil
}

func treeName(id cache.Digest) string { return id.String()[:12] }

// A treeExport is one under way.
type treeExport struct {
	files  *cache.Files
	root   *os.Root
	o      TreeOptions
	res    *ExportedTree
	id     cache.Digest
	record *treeRecord
	left   bool            // the record says of a tree since now that it has left
	copies bool            // links are not possible
	made   map[string]bool // directories that are there
	state  *os.File        // the directory of treeState
}

// A treeFile is one file of a tree.
type treeFile struct {
	cache.Entry
	from string // the older tree that has it; "": the store has
}

func (x *treeExport) run(ctx context.Context, s cache.Snapshot) error {
	man, err := x.files.Manifest(s.Stream, s.ID)
	if err != nil {
		return err
	}
	own, err := treeEntries(man)
	if err != nil {
		return err
	}
	unlock, err := x.begin(s.Stream)
	if err != nil {
		return err
	}
	defer unlock()
	if !x.o.DryRun {
		if x.state, err = x.root.Open(treeState); err != nil {
			return err
		}
		defer x.state.Close()
	}
	now, err := x.record.current(x.root)
	if err != nil {
		return err
	}
	x.left = x.record.leave(now, x.res.Tree, x.o.Now())
	all, err := x.withBefore(own, now)
	if err != nil {
		return err
	}
	if err := x.write(ctx, man, all); err != nil {
		return err
	}
	x.res.Switched = now != x.res.Tree
	return x.finish()
}

// treeEntries returns what clients of a snapshot are served.
func treeEntries(man *cache.Manifest) (all []treeFile, err error) {
	kind, known := shownKind(man), 0
	for _, e := range man.Entries {
		switch {
		case e.Kind == cache.KindKnown:
			known++
		case e.Kind != kind && e.Kind != cache.KindItem:
			continue
		case !fs.ValidPath(e.Path) || e.Path == ".":
			return nil, fmt.Errorf("%w: path %q leads out of the tree", ErrVerification, e.Path)
		default:
			all = append(all, treeFile{Entry: e})
		}
	}
	if known > 0 {
		return nil, fmt.Errorf("its metadata names %s that are not here, and that no other server could pull through: a stream with `advertise: selected` has all that it names", countFiles(known))
	}
	return all, nil
}

func countFiles(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// withBefore adds what older trees have under other paths, those excepted that left long ago.
func (x *treeExport) withBefore(own []treeFile, now string) (all []treeFile, err error) {
	taken := paths{}
	for _, e := range own {
		x.res.Files.add(e.Size)
		taken.add(e.Path)
	}
	all = own
	if t := x.record.tree(x.res.Tree); t != nil && t.Done && now == x.res.Tree {
		return all, nil // it has them, or they are gone for good
	}
	for _, t := range slices.Backward(x.record.Trees) {
		if t.name() == x.res.Tree || !t.Done || !x.stays(t) {
			continue
		}
		man, err := readTreeManifest(x.root, t.ID)
		if err != nil {
			return nil, err
		}
		entries, err := treeEntries(man)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if taken.free(e.Path) {
				taken.add(e.Path)
				e.from = t.name()
				all = append(all, e)
				x.res.Before.add(e.Size)
			}
		}
	}
	return all, nil
}

// paths are those of files, and of the folders above them.
type paths map[string]bool

func (p paths) add(name string) {
	p[name] = true
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		p[dir+"/"] = true
	}
}

// free reports whether a file may have a path beside the others.
func (p paths) free(name string) bool {
	if p[name] || p[name+"/"] {
		return false
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if p[dir] {
			return false
		}
	}
	return true
}

// stays reports whether a tree is to be kept beside the new one.
func (x *treeExport) stays(t *recordedTree) bool {
	return t == x.record.last(x.res.Tree) || x.o.Now().Sub(t.Left) < treeGrace
}

// write makes the tree whole and durable. One that is so already is looked at, and what is missing is made again.
func (x *treeExport) write(ctx context.Context, man *cache.Manifest, all []treeFile) error {
	t := x.record.tree(x.res.Tree)
	if t == nil {
		if _, err := x.root.Lstat(x.res.Tree); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is there, and no export made it", ErrForeign, x.res.Tree)
		}
		t = &recordedTree{ID: x.id}
		x.record.Trees = append(x.record.Trees, t)
		if !x.o.DryRun {
			if err := errors.Join(writeDurable(x.root, treeManifestName(t.ID), man.Encode()), x.record.write(x.root)); err != nil {
				return err
			}
		}
	}
	disk, err := x.root.Open(".") // before the first write, so that it hears of all that fails
	if err != nil {
		return err
	}
	defer disk.Close()
	slices.SortFunc(all, func(a, b treeFile) int { return cmp.Compare(a.Path, b.Path) })
	for _, e := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := x.file(ctx, e, t.Done); err != nil {
			return err
		}
	}
	changed := x.res.Linked.Files+x.res.Copied.Files > 0
	if x.o.DryRun || t.Done && !changed {
		return nil
	}
	if err := unix.Syncfs(int(disk.Fd())); err != nil {
		return fmt.Errorf("cannot make the tree durable: %w", err)
	}
	t.Done = true
	return x.record.write(x.root)
}

// file has a file be in the tree.
func (x *treeExport) file(ctx context.Context, e treeFile, done bool) error {
	name := path.Join(x.res.Tree, e.Path)
	there, err := x.there(ctx, name, e, done)
	if err != nil {
		return err
	}
	if there {
		x.res.There.add(e.Size)
		return nil
	}
	if x.o.DryRun {
		if x.o.Copy {
			x.res.Copied.add(e.Size)
		} else {
			x.res.Linked.add(e.Size)
		}
		return nil
	}
	if err := x.dir(path.Dir(name)); err != nil {
		return err
	}
	if err := x.root.Remove(treeTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = x.put(ctx, e)
	if e.from != "" && errors.Is(err, cache.ErrMiss) {
		return nil // it left, and somebody removed it from the older tree
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return x.root.Rename(treeTemp, name)
}

// treeTemp is the file that is not whole yet. It is in no tree: there an item may have any name.
const treeTemp = treeState + "/new"

// put makes treeTemp the file e: a link to what an older tree has, or to the store's, or a copy of that.
func (x *treeExport) put(ctx context.Context, e treeFile) error {
	if old := x.older(e); old != "" {
		if err := x.root.Link(old, treeTemp); err == nil {
			x.res.Linked.add(e.Size)
			return nil
		}
	}
	if !x.o.Copy && !x.copies {
		err := x.files.Link(e.Digest, x.state, path.Base(treeTemp))
		if err == nil {
			x.res.Linked.add(e.Size)
			return nil
		}
		if errors.Is(err, cache.ErrMiss) {
			return err
		}
		x.copies = true // another file system, or files of another user
	}
	if err := x.copy(ctx, e); err != nil {
		return err
	}
	x.res.Copied.add(e.Size)
	return nil
}

// older returns the file of an older tree that has the content, as it was proven when it came there; "": none has.
func (x *treeExport) older(e treeFile) string {
	if e.from != "" {
		return path.Join(e.from, e.Path)
	}
	if !x.copies && !x.o.Copy {
		return "" // the store's is as near
	}
	for _, t := range slices.Backward(x.record.Trees) {
		if !t.Done || t.name() == x.res.Tree {
			continue
		}
		old := path.Join(t.name(), e.Path)
		info, err := x.root.Lstat(old)
		if err == nil && info.Mode().IsRegular() && info.Size() == e.Size && t.has(x.root, e.Entry) {
			return old
		}
	}
	return ""
}

// copy copies a blob, and proves it.
func (x *treeExport) copy(ctx context.Context, e treeFile) error {
	blob, err := x.files.Blob(e.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	file, err := x.root.OpenFile(treeTemp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(file, h), &ctxReader{ctx, blob}); err != nil {
		return err
	}
	if got := cache.Digest(h.Sum(nil)); got != e.Digest {
		return fmt.Errorf("%w: the store's blob %v is damaged: `oxbow store check --repair`", cache.ErrCorrupt, e.Digest)
	}
	if err := file.Chmod(0o444); err != nil {
		return err
	}
	return file.Close()
}

// A ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// there reports whether the tree has a file. In one that is not done, a crash may have left a copy without its bytes: there
// every byte is proven, but for links to the store's.
func (x *treeExport) there(ctx context.Context, name string, e treeFile, done bool) (bool, error) {
	info, err := x.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || err == nil && (!info.Mode().IsRegular() || info.Size() != e.Size) {
		return false, nil
	}
	if err != nil || done {
		return err == nil, err
	}
	if blob, err := x.files.Blob(e.Digest); err == nil {
		defer blob.Close()
		if of, err := blob.Stat(); err == nil && os.SameFile(of, info) {
			return true, nil
		}
	}
	file, err := x.root.Open(name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &ctxReader{ctx, file}); err != nil {
		return false, err
	}
	return cache.Digest(h.Sum(nil)) == e.Digest, nil
}

// dir has a directory of the tree be there, which every user may read once it is made.
func (x *treeExport) dir(name string) error {
	if x.made[name] {
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := x.dir(parent); err != nil {
			return err
		}
	}
	if err := x.root.Mkdir(name, 0o755); err == nil {
		if err := x.root.Chmod(name, 0o755); err != nil { // whatever the umask
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	} else if info, err := x.root.Lstat(name); err != nil || !info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is no folder, and no export put that there; remove it", name))
	}
	x.made[name] = true
	return nil
}

// finish switches to the tree, and removes those that are not kept.
func (x *treeExport) finish() error {
	var removed []*recordedTree
	for _, t := range x.record.Trees {
		if t.name() != x.res.Tree && !(t.Done && x.stays(t)) {
			removed = append(removed, t)
			x.res.Removed = append(x.res.Removed, t.name())
		}
	}
	if x.o.DryRun || !x.res.Switched && !x.left && len(removed) == 0 {
		return nil
	}
	if x.res.Switched {
		if err := switchTree(x.root, x.res.Tree); err != nil {
			return fmt.Errorf("cannot switch to the new tree: %w", err)
		}
	}
	if err := x.record.write(x.root); err != nil { // who left, and when
		return err
	}
	for _, t := range removed {
		if err := x.root.RemoveAll(t.name()); err != nil {
			return fmt.Errorf("cannot remove the older tree %s: %w", t.name(), err)
		}
		if err := x.root.Remove(treeManifestName(t.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	x.record.Trees = slices.DeleteFunc(x.record.Trees, func(t *recordedTree) bool { return slices.Contains(removed, t) })
	return x.record.write(x.root)
}

// switchTree makes a tree the current one, in one step.
func switchTree(root *os.Root, tree string) error {
	temp := path.Join(treeState, "next")
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(tree, temp); err != nil {
		return err
	}
	if err := root.Rename(temp, currentTree); err != nil {
		return err
	}
	return syncDir(root, ".")
}
