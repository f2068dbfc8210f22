package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A site is a store that mirrors one stream of an upstream with faults.
type site struct {
	t        *testing.T
	upstream *streamstest.Upstream
	url      string
	store    *cache.Store
	m        *mirror.Mirror
	stream   mirror.Stream
}

const stable = "stable"

// newSite makes a site that mirrors all of tree. Its store is checked deeply
// when the test ends.
func newSite(t *testing.T, tree *streamstest.Tree) *site {
	t.Helper()
	return newSiteIn(t, filepath.Join(t.TempDir(), "store"), tree, -1)
}

// newSiteIn makes the site's store in dir, with a reserve.
func newSiteIn(t *testing.T, dir string, tree *streamstest.Tree, reserve int64) *site {
	t.Helper()
	up := streamstest.NewUpstream(tree)
	server := httptest.NewServer(up)
	t.Cleanup(func() { up.Release(); server.Close() })
	s := &site{t: t, upstream: up, url: server.URL, store: newStore(t, dir, reserve)}
	t.Cleanup(func() { endStore(t, s.store) })
	s.m = newMirror(t, s.store)
	s.define(server.URL, tree.Keyring())
	return s
}

// keyOf returns the site's key, which is made if there is none.
func keyOf(t *testing.T, m *mirror.Mirror) *streams.SigningKey {
	t.Helper()
	key, err := m.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newMirror(t *testing.T, store *cache.Store) *mirror.Mirror {
	client := upstream.NewClient(&upstream.Options{
		Attempts: 3, Backoff: upstream.Backoff{Base: time.Millisecond}, HeaderTimeout: 300 * time.Millisecond, StallTimeout: 300 * time.Millisecond,
	})
	t.Cleanup(client.Close)
	return mirror.New(mirror.Options{Store: store, Client: client, Settle: time.Nanosecond})
}

func (s *site) define(url string, keyring []byte) {
	s.t.Helper()
	var err error
	if s.stream, err = mirror.NewStream(url + "/ephemeral-v3/stable"); err != nil {
		s.t.Fatal(err)
	}
	s.stream.Upstream = []string{url}
	s.stream.Keyring = keyring
	s.redefine(func(*mirror.Stream) {})
}

// redefine changes the stream's definition.
func (s *site) redefine(change func(*mirror.Stream)) {
	s.t.Helper()
	change(&s.stream)
	if err := s.m.Define(s.stream); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) sync() (*mirror.Result, error) {
	return s.m.Sync(s.t.Context(), stable, mirror.SyncOptions{})
}

// mustSync syncs and fails the test unless all that is wanted is there.
func (s *site) mustSync() *mirror.Result {
	s.t.Helper()
	res, err := s.sync()
	if err != nil {
		s.t.Fatal(err)
	}
	if len(res.LeftOut) > 0 || len(res.Warnings) > 0 {
		s.t.Fatalf("left out %v, warnings %v", res.LeftOut, res.Warnings)
	}
	s.whole()
	return res
}

// versions returns "product version" for all that is published, sorted. Every
// promise of the published metadata is checked on the way.
func (s *site) versions() []string { return s.whole() }

// whole checks the published snapshot as a client sees it: both families of
// metadata say the same and are signed with the site's key, every item is there
// with the promised bytes, MAAS of every version would take it, and upstream's
// signature over each hash is kept.
func (s *site) whole() (versions []string) {
	s.t.Helper()
	key := keyOf(s.t, s.m)
	keyring, err := streams.ReadKeyring(key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	x, lists := s.family(".json", func(doc []byte) ([]byte, error) { return doc, nil })
	_, signed := s.family(".sjson", func(doc []byte) ([]byte, error) {
		opened, err := keyring.Verify(doc, time.Now())
		if err != nil {
			return nil, err
		}
		return opened.Text, nil
	})
	for _, f := range streams.Lint(x, lists, streams.All) {
		s.t.Errorf("MAAS would not take it: %v", f)
	}
	for i, l := range lists {
		if !bytes.Equal(bytes.TrimSpace(l.Render()), bytes.TrimSpace(signed[i].Render())) {
			s.t.Errorf("list %s: the signed form says something else", l.ContentID)
		}
		for at, it := range l.Items() {
			if size, sum := provePath(s.t, s.store, stable, string(it.Path)); size != it.Size || !bytes.Equal(sum, it.SHA256) {
				s.t.Errorf("%v: %d bytes with SHA-256 %x, promised %d with %x", at, size, sum, it.Size, it.SHA256)
			}
			versions = append(versions, at.Product+" "+at.Version)
		}
	}
	slices.Sort(versions)
	versions = slices.Compact(versions)
	var vouched []string
	for _, v := range s.vouched().Versions {
		vouched = append(vouched, v.Product+" "+v.Version)
	}
	if slices.Sort(vouched); !slices.Equal(vouched, versions) {
		s.t.Errorf("the versions %q are published, and their custody is that of %q", versions, vouched)
	}
	return versions
}

func (s *site) family(ending string, open func([]byte) ([]byte, error)) (*streams.Index, []*streams.Products) {
	s.t.Helper()
	read := func(path string) []byte {
		text, err := open(readPath(s.t, s.store, stable, path))
		if err != nil {
			s.t.Fatalf("%s: %v", path, err)
		}
		return text
	}
	x, err := streams.ParseIndex(read("streams/v1/index" + ending))
	if err != nil {
		s.t.Fatal(err)
	}
	var lists []*streams.Products
	for _, e := range x.Entries {
		l, err := streams.ParseProducts(read(string(e.Path)))
		if err != nil {
			s.t.Fatal(err)
		}
		lists = append(lists, l)
	}
	return x, lists
}

// treeVersions returns what versions of a tree would be.
func treeVersions(tree *streamstest.Tree) (versions []string) {
	for e := range tree.Entries() {
		versions = append(versions, e.Product.Name+" "+e.Version.Name)
	}
	slices.Sort(versions)
	return slices.Compact(versions)
}

// files lists the store's files with their sizes and times, less the index,
// which is no truth of its own.
func (s *site) files() (list []string) {
	dir := s.store.Files().Dir()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "index" {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		list = append(list, fmt.Sprint(strings.TrimPrefix(name, dir), " ", info.Size(), " ", info.ModTime().UnixNano()))
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// tmpfs mounts a file system of that many bytes, or skips the test.
func tmpfs(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs", dir).CombinedOutput()
	if err != nil {
		t.Skipf("cannot mount a tmpfs: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "umount", dir).CombinedOutput(); err != nil {
			t.Errorf("cannot unmount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// available is the space left in dir's file system.
func available(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// mustSyncPlain is mustSync for a tree without MAAS' rules.
func (s *site) mustSyncPlain() {
	s.t.Helper()
	res, err := s.sync()
	if err != nil || len(res.LeftOut) > 0 {
		s.t.Fatalf("sync: %+v, %v", res, err)
	}
}
