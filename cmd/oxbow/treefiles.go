package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

// documents are the metadata of a tree, open: of both families, as far as they may be handed to the owner of a store at once. What
// they say is believed by nobody yet; it tells which files of the tree are metadata.
type documents struct {
	paths []string
	files []*os.File
}

// open opens the indexes of the tree, and the lists that these name.
func (d *documents) open(root *os.Root, dir string) error {
	list, err := fs.ReadDir(root.FS(), "streams/v1")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no streams/v1: it is not the directory of a tree, or not the one above streams", dir)
	}
	if err != nil {
		return fmt.Errorf("cannot read the metadata of a tree: %w", err)
	}
	var lists []string
	for _, e := range list {
		name := path.Join("streams/v1", e.Name())
		if ext := path.Ext(name); !strings.HasPrefix(e.Name(), "index") || ext != ".sjson" && ext != ".json" {
			continue
		}
		named, err := d.index(root, name)
		if err != nil {
			return fmt.Errorf("cannot read the metadata of a tree: %w", err)
		}
		lists = append(lists, named...)
	}
	if len(d.files) == 0 {
		return fmt.Errorf("%s has no index in streams/v1: there is nothing that says what its files are", dir)
	}
	// Those that are read in any case come first.
	slices.SortStableFunc(lists, func(a, b string) int { return strings.Compare(path.Ext(b), path.Ext(a)) })
	for _, name := range slices.Clone(lists) {
		lists = append(lists, name+".gpg")
	}
	for _, name := range append(lists, "streams/v1/index.json.gpg") {
		if err := d.add(root, name); err != nil {
			return fmt.Errorf("cannot read the metadata of a tree: %w", err)
		}
	}
	return nil
}

// index adds an index, and returns the lists that it names.
func (d *documents) index(root *os.Root, name string) (lists []string, err error) {
	if err := d.add(root, name); err != nil || !slices.Contains(d.paths, name) {
		return nil, err
	}
	f := d.files[len(d.files)-1]
	text, err := io.ReadAll(io.NewSectionReader(f, 0, streams.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if streams.IsClearsigned(text) {
		if text, err = streams.ClearText(text); err != nil {
			return nil, nil // which the owner of the store says better
		}
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		return nil, nil
	}
	for _, e := range x.Entries {
		lists = append(lists, string(e.Path))
	}
	return lists, nil
}

// add adds a document, if it is there.
func (d *documents) add(root *os.Root, name string) error {
	if slices.Contains(d.paths, name) || len(d.files) == filesAtOnce {
		return nil
	}
	f, err := openRegular(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d.paths, d.files = append(d.paths, name), append(d.files, f)
	return nil
}

func (d *documents) close() { closeAll(d.files) }

// openRegular opens a file below root, through links only as far as they stay there. It does not wait for the other end of a pipe.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// An inventory is what files a tree has, metadata aside.
type inventory struct {
	bySize map[int64][]string
	sums   map[cache.Digest]string // of the files that were read to the end
	read   map[string]bool
	broken map[string]bool // files that are not what their names say
}

func (v *inventory) sizes() []int64 { return slices.Sorted(maps.Keys(v.bySize)) }

// takeStock looks at every file of the tree. Links count as the file that they lead to, if that is in the tree.
func (t *treeImport) takeStock() (inventory, error) {
	v := inventory{map[int64][]string{}, map[cache.Digest]string{}, map[string]bool{}, map[string]bool{}}
	err := fs.WalkDir(t.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case t.c.Context.Err() != nil:
			return context.Cause(t.c.Context)
		case err != nil:
			t.passOver(name, err)
			return nil
		case e.IsDir() && (name == "streams" || name == ".data"): // sstream-mirror's notes
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		info, err := t.root.Stat(name)
		if err != nil {
			t.passOver(name, err)
		} else if info.Mode().IsRegular() {
			v.bySize[info.Size()] = append(v.bySize[info.Size()], name)
		}
		return nil
	})
	return v, err
}

// find opens the file that has, or should have, a content: the one under its own name or, if that has another size or was found to be
// something else, one of its digest. It returns nil where there is none.
func (t *treeImport) find(l mirror.Lack) (name string, f *os.File, err error) {
	for _, p := range l.Paths {
		name := string(p)
		info, err := t.root.Stat(name)
		switch {
		case err != nil || !info.Mode().IsRegular() || t.files.broken[name]:
		case info.Size() != l.Want.Size:
			t.wrongSize(name, info.Size(), l.Want.Size)
		default:
			f, err := openRegular(t.root, name)
			if err == nil {
				return name, f, nil
			}
			t.files.broken[name] = true
			t.passOver(name, err)
		}
	}
	if l.Want.SHA256.IsZero() {
		return "", nil, nil
	}
	if err := t.hash(l.Want.Size); err != nil {
		return "", nil, err
	}
	name, ok := t.files.sums[l.Want.SHA256]
	if !ok || t.files.broken[name] {
		return "", nil, nil
	}
	f, err = openRegular(t.root, name)
	if err != nil {
		t.files.broken[name] = true
		t.passOver(name, err)
		return "", nil, nil
	}
	return name, f, nil
}

// comparePaths names the files that have another size than the metadata says: because of that no version counts on them.
func (t *treeImport) comparePaths(absent map[streams.Path]int64) {
	for _, p := range slices.Sorted(maps.Keys(absent)) {
		info, err := t.root.Stat(string(p))
		if err == nil && info.Mode().IsRegular() && info.Size() != absent[p] {
			t.wrongSize(string(p), info.Size(), absent[p])
		}
	}
}

func (t *treeImport) wrongSize(name string, got, want int64) {
	if !t.files.broken[name] {
		t.files.broken[name] = true
		t.passOver(name, fmt.Errorf("it has %d bytes, and should have %d", got, want))
	}
}

// hash reads the files of a size that were not read yet.
func (t *treeImport) hash(size int64) error {
	for _, name := range t.files.bySize[size] {
		if t.files.read[name] {
			continue
		}
		t.files.read[name] = true
		f, err := openRegular(t.root, name)
		if err != nil {
			t.passOver(name, err)
			continue
		}
		d, err := contentOf(t.c.Context, f)
		f.Close()
		if t.c.Context.Err() != nil {
			return context.Cause(t.c.Context)
		}
		if err != nil {
			t.passOver(name, err)
			continue
		}
		t.files.sums[d.Digest] = name
	}
	return nil
}

// take hands over what is found of what is lacking.
func (t *treeImport) take(lacks []mirror.Lack, total mirror.Amount) error {
	batch := &treeBatch{t: t, total: total}
	defer batch.drop()
	for _, l := range lacks {
		if t.taken[l.Key] { // and it is not there for all that
			t.bad[l.Key] = true
			continue
		}
		name, f, err := t.find(l)
		if err != nil {
			return err
		}
		if f == nil {
			t.bad[l.Key] = true
			continue
		}
		if err := batch.add(l, name, f); err != nil {
			return err
		}
	}
	return batch.flush()
}

// A treeBatch is what is handed over at once.
type treeBatch struct {
	t     *treeImport
	total mirror.Amount
	lacks []mirror.Lack
	names []string
	files []*os.File
}

func (b *treeBatch) add(l mirror.Lack, name string, f *os.File) error {
	b.lacks, b.names, b.files = append(b.lacks, l), append(b.names, name), append(b.files, f)
	if len(b.files) < filesAtOnce {
		return nil
	}
	return b.flush()
}

func (b *treeBatch) drop() {
	closeAll(b.files)
	b.lacks, b.names, b.files = nil, nil, nil
}

// flush hands the files over, and notes what was refused.
func (b *treeBatch) flush() error {
	if len(b.files) == 0 {
		return nil
	}
	defer b.drop()
	w := b.t.work
	w.Step, w.Take, w.files, w.Done, w.Total = stepTake, b.lacks, b.files, b.t.view.Taken, b.total
	var results []takenView
	if err := performFor(b.t.c, &w, b.t.open, &results); err != nil {
		return err
	}
	if len(results) != len(b.lacks) {
		return fmt.Errorf("the owner of the store tells of %d files, and was given %d", len(results), len(b.lacks))
	}
	for i, r := range results {
		if r.Error != "" {
			b.t.files.broken[b.names[i]] = true
			b.t.passOver(b.names[i], errors.New(r.Error))
			continue
		}
		b.t.taken[b.lacks[i].Key] = true
		b.t.view.Taken.Files++
		b.t.view.Taken.Bytes += b.lacks[i].Want.Size
	}
	return nil
}
