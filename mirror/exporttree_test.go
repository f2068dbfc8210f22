package mirror_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// exportTree exports the current snapshot of a site to a directory.
func (s *site) exportTree(dir string, o mirror.TreeOptions) (*mirror.ExportedTree, error) {
	s.t.Helper()
	snap, err := s.store.Current(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	defer root.Close()
	return mirror.ExportTree(s.t.Context(), s.store.Files(), snap, root, o)
}

func (s *site) mustExportTree(dir string, o mirror.TreeOptions) *mirror.ExportedTree {
	s.t.Helper()
	res, err := s.exportTree(dir, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// treeFiles returns the digest of every file of the current tree.
func treeFiles(t *testing.T, dir string) map[string]cache.Digest {
	t.Helper()
	files := map[string]cache.Digest{}
	current := filepath.Join(dir, "current") + "/"
	err := filepath.WalkDir(current, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		files[strings.TrimPrefix(name, current)] = cache.Sum(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// shown returns what the current snapshot of a site shows its clients.
func (s *site) shown() map[string]cache.Digest {
	s.t.Helper()
	man, err := s.store.Manifest(stable, current(s.t, s.store, stable))
	if err != nil {
		s.t.Fatal(err)
	}
	files := map[string]cache.Digest{}
	for _, e := range man.Entries {
		if e.Kind == cache.KindSite || e.Kind == cache.KindItem {
			files[e.Path] = e.Digest
		}
	}
	return files
}

// missingOf returns what of an older view is not in files.
func missingOf(old, files map[string]cache.Digest) (all []string) {
	for path := range old {
		if _, there := files[path]; !there {
			all = append(all, path)
		}
	}
	slices.Sort(all)
	return all
}

// A tree has exactly what clients of the snapshot are served, by links or by copies; what left stays fetchable for a day; the tree
// before stays beside it, and goes with the next but one.
func TestExportTree(t *testing.T) {
	t.Parallel()
	for _, copied := range []bool{false, true} {
		tree := streamstest.MAAS(streamstest.Shape{CentOS: []string{}, Releases: []string{"noble"}})
		s := newSite(t, tree)
		s.mustSync()
		first := s.shown()
		dir := t.TempDir()
		now := time.Now()
		o := mirror.TreeOptions{Copy: copied, Now: func() time.Time { return now }}
		a := s.mustExportTree(dir, o)
		if diff := cmp.Diff(first, treeFiles(t, dir)); diff != "" {
			t.Fatalf("copied %v: the tree (-site +tree):\n%s", copied, diff)
		}
		if (a.Copied.Files > 0) != copied || (a.Linked.Files > 0) == copied || !a.Switched {
			t.Errorf("copied %v: %+v", copied, a)
		}
		day := func() {
			tree = tree.Clone()
			tree.AddDay()
			tree.Trim(2)
			s.upstream.Publish(tree)
			s.mustSync()
		}
		day()
		b := s.mustExportTree(dir, o)
		if missing := missingOf(first, treeFiles(t, dir)); len(missing) > 0 || b.Before.Files == 0 {
			t.Errorf("copied %v: clients that read the index of before miss %q", copied, missing)
		}
		if copied && b.Copied.Bytes >= b.Files.Bytes {
			t.Errorf("all was copied again: %+v", b)
		}
		served := treeFiles(t, dir)
		for path, d := range s.shown() {
			if served[path] != d {
				t.Errorf("copied %v: %s is another file", copied, path)
			}
		}
		now = now.Add(48 * time.Hour)
		day()
		c := s.mustExportTree(dir, o)
		if diff := cmp.Diff([]string{a.Tree}, c.Removed); diff != "" {
			t.Errorf("copied %v: removed trees:\n%s", copied, diff)
		}
		if missing := missingOf(first, treeFiles(t, dir)); len(missing) == 0 {
			t.Errorf("copied %v: what left two days ago is there still", copied)
		}
		if _, err := os.Stat(filepath.Join(dir, b.Tree, "streams/v1/index.sjson")); err != nil {
			t.Errorf("copied %v: the tree before is gone: %v", copied, err)
		}
		again := s.mustExportTree(dir, o)
		if again.Switched || again.Linked.Files+again.Copied.Files+len(again.Removed) > 0 {
			t.Errorf("copied %v: a second export of the same does something: %+v", copied, again)
		}
	}
}

// An export that ends at any point leaves the old tree current, and the next one completes it; so does one that finds files gone.
func TestExportTreeInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t, streamstest.MAAS(streamstest.Shape{CentOS: []string{}, Releases: []string{"noble"}}))
	s.mustSync()
	snap, err := s.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	want := s.shown()
	for _, copied := range []bool{false, true} {
		for n := 0; ; n += 13 {
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			ctx := &countdown{Context: t.Context(), left: n}
			_, err = mirror.ExportTree(ctx, s.store.Files(), snap, root, mirror.TreeOptions{Copy: copied})
			root.Close()
			if err == nil {
				break
			}
			if _, err := os.Lstat(filepath.Join(dir, "current")); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("an export that was interrupted is current: %v", err)
			}
			emptied(t, dir) // as a crash may leave a copy
			s.mustExportTree(dir, mirror.TreeOptions{Copy: copied})
			if diff := cmp.Diff(want, treeFiles(t, dir)); diff != "" {
				t.Fatalf("after %d steps, the tree (-site +tree):\n%s", n, diff)
			}
		}
	}
	dir := t.TempDir()
	s.mustExportTree(dir, mirror.TreeOptions{})
	if err := os.Remove(filepath.Join(dir, "current/streams/v1/index.json")); err != nil {
		t.Fatal(err)
	}
	if res := s.mustExportTree(dir, mirror.TreeOptions{}); res.Linked.Files != 1 || res.Switched {
		t.Errorf("a file that was gone: %+v", res)
	}
	if diff := cmp.Diff(want, treeFiles(t, dir)); diff != "" {
		t.Errorf("the tree (-site +tree):\n%s", diff)
	}
}

// A countdown ends after it was asked so many times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// emptied fills a copied file with zeros.
func emptied(t *testing.T, dir string) {
	t.Helper()
	matches, err := filepath.Glob(filepath.Join(dir, "*/noble/*/*/squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range matches {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, info.Size()), 0o444); err != nil {
			t.Fatal(err)
		}
	}
}

// A directory that holds anything else is not written to, nor one of another stream; and a stream whose metadata names what is not
// here is not exported.
func TestExportTreeRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.mustSync()
	refused := func(summary, reason string, foreign bool, make func(dir string)) {
		t.Helper()
		dir := t.TempDir()
		make(dir)
		before, _ := os.ReadDir(dir)
		_, err := s.exportTree(dir, mirror.TreeOptions{})
		if err == nil || errors.Is(err, mirror.ErrForeign) != foreign || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v", summary, err)
		}
		if after, _ := os.ReadDir(dir); len(before) != len(after) {
			t.Errorf("%s: the directory has %v, had %v", summary, after, before)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused("a file", "it has notes", true, func(dir string) { must(os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600)) })
	refused("a link", "current", true, func(dir string) { must(os.Symlink("/", filepath.Join(dir, "current"))) })
	refused("another link", "no export made", true, func(dir string) {
		s.mustExportTree(dir, mirror.TreeOptions{})
		must(os.Remove(filepath.Join(dir, "current")))
		must(os.Symlink("/", filepath.Join(dir, "current")))
	})
	refused("another stream", "of stream other", true, func(dir string) {
		must(os.Mkdir(filepath.Join(dir, ".oxbow"), 0o700))
		must(os.WriteFile(filepath.Join(dir, ".oxbow/lock"), nil, 0o600))
		must(os.WriteFile(filepath.Join(dir, ".oxbow/trees"), []byte(`{"format": "oxbow trees 1", "stream": "other"}`), 0o600))
	})
	refused("a tree that is none", "a tree that is none", true, func(dir string) {
		must(os.Mkdir(filepath.Join(dir, ".oxbow"), 0o700))
		must(os.WriteFile(filepath.Join(dir, ".oxbow/lock"), nil, 0o600))
		must(os.WriteFile(filepath.Join(dir, ".oxbow/trees"), []byte(`{"format": "oxbow trees 1", "stream": "stable", "trees": [null]}`), 0o600))
	})
	s.redefine(func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll })
	s.mustSyncPlain()
	refused("known files", "`advertise: selected`", false, func(string) {})
}

// A file that another name leads to, put where the export writes next, is not written through.
func TestExportTreePlanted(t *testing.T) {
	t.Parallel()
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.mustSync()
	dir, mine := t.TempDir(), filepath.Join(t.TempDir(), "mine")
	for _, err := range []error{os.WriteFile(mine, []byte("mine"), 0o600), os.Mkdir(filepath.Join(dir, ".oxbow"), 0o700), os.Link(mine, filepath.Join(dir, ".oxbow/trees.new"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.mustExportTree(dir, mirror.TreeOptions{})
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Errorf("it has %q, %v", data, err)
	}
}

// A blob that is damaged in the store is not copied.
func TestExportTreeDamaged(t *testing.T) {
	t.Parallel()
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.mustSync()
	d := s.shown()["noble/amd64/20250718/squashfs"]
	name := filepath.Join(s.store.Files().Dir(), "blobs/sha256", d.String()[:2], d.String())
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		t.Helper()
		if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, data, 0o644), os.Chmod(name, 0o444)); err != nil {
			t.Fatal(err)
		}
	}
	bad := slices.Clone(good)
	bad[7] ^= 1
	write(bad)
	defer write(good)
	if _, err := s.exportTree(t.TempDir(), mirror.TreeOptions{Copy: true}); !errors.Is(err, cache.ErrCorrupt) {
		t.Errorf("export: %v", err)
	}
}

// What somebody plants where an export keeps its own makes it wait for nothing: it is named, and the tree is made once it is gone.
func TestExportTreePipes(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{CentOS: []string{}, Releases: []string{"noble"}})
	s := newSite(t, tree)
	s.mustSync()
	id := current(t, s.store, stable).String()
	for _, name := range []string{".oxbow/trees", ".oxbow/lock", id[:12] + "/streams"} {
		dir := t.TempDir()
		planted := filepath.Join(dir, filepath.FromSlash(name))
		if !strings.HasPrefix(name, ".oxbow") { // of a tree that was begun
			inTheWay := filepath.Join(dir, id[:12], "noble")
			s.mustExportTree(dir, mirror.TreeOptions{})
			for _, gone := range []string{planted, inTheWay, filepath.Join(dir, "current")} {
				if err := os.RemoveAll(gone); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(planted), 0o755), syscall.Mkfifo(planted, 0o644)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := s.exportTree(dir, mirror.TreeOptions{})
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("a pipe at %s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("a pipe at %s is waited for", name)
		}
		if err := os.Remove(planted); err != nil {
			t.Fatal(err)
		}
		s.mustExportTree(dir, mirror.TreeOptions{})
		if diff := cmp.Diff(s.shown(), treeFiles(t, dir)); diff != "" {
			t.Errorf("then, without the pipe at %s (-site +tree):\n%s", name, diff)
		}
	}
}

// Items may have any name, also those that exports give to what is their own.
func TestExportTreeItemNames(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{CentOS: []string{}, Releases: []string{"noble"}})
	s := newSite(t, tree)
	s.mustSync()
	man, err := s.store.Manifest(stable, current(t, s.store, stable))
	if err != nil {
		t.Fatal(err)
	}
	next := &cache.Manifest{Stream: stable, Parent: current(t, s.store, stable), Created: man.Created.Add(time.Second), Reason: "names", Entries: slices.Clone(man.Entries)}
	for _, name := range []string{".oxbow", ".oxbow-new", "current", "noble/.oxbow-new", "noble/amd64/.oxbow/new", "noble/.oxbow/trees", "streams/.oxbow-new"} {
		data := []byte("the item " + name)
		d, err := s.store.Put(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		next.Entries = append(next.Entries, cache.Entry{Kind: cache.KindItem, Digest: d, Size: int64(len(data)), Path: name})
	}
	next.Sort()
	if err := s.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Publish(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	for _, copied := range []bool{false, true} {
		dir := t.TempDir()
		for range 2 {
			s.mustExportTree(dir, mirror.TreeOptions{Copy: copied})
			if diff := cmp.Diff(s.shown(), treeFiles(t, dir)); diff != "" {
				t.Errorf("copied %v: the tree (-site +tree):\n%s", copied, diff)
			}
		}
	}
}
