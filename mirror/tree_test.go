package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A plainTree is a tree that somebody mirrored, with the files that it has.
type plainTree struct {
	mirror.Tree
	files map[string]*streamstest.File
}

// newPlainTree returns a tree of upstream's signed documents with the files that has chooses.
func newPlainTree(tree *streamstest.Tree, has func(path string) bool) *plainTree {
	p := &plainTree{files: map[string]*streamstest.File{}}
	sizes := map[int64]bool{}
	for path, f := range tree.Files() {
		if has(path) {
			p.files[path] = f
			sizes[f.Length()] = true
		}
	}
	site := tree.Render()
	p.Tree = mirror.Tree{Dir: "/srv/100% images", MayHave: func(_ string, size int64) bool { return sizes[size] },
		Documents: func(_ context.Context, path streams.Path) ([]byte, error) {
			if data := site.Document(string(path)); data != nil && strings.HasSuffix(string(path), ".sjson") {
				return data, nil
			}
			return nil, fs.ErrNotExist
		}}
	return p
}

// take takes in what a plan lacks.
func (p *plainTree) take(t *testing.T, s *site, plan *mirror.Plan) (taken int) {
	t.Helper()
	if err := s.m.ExpectTree(plan); err != nil {
		t.Fatal(err)
	}
	for _, l := range plan.Lacks() {
		f := p.files[string(l.Paths[0])]
		if f == nil {
			continue
		}
		if _, err := s.store.Take(t.Context(), l.Want, bytes.NewReader(f.Bytes())); err != nil {
			t.Fatal(err)
		}
		taken++
	}
	if err := s.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Taken = true
	return taken
}

func all(string) bool { return true }

// A stream that was never synced is published from a tree; nothing is asked of its upstream, the definition stays as it was, and the
// next sync has nothing to fetch.
func TestTree(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	p := newPlainTree(tree, all)
	plan, err := s.m.Plan(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil {
		t.Fatal(err)
	}
	if n := p.take(t, s, plan); n != len(tree.Files()) {
		t.Errorf("took %d files of %d", n, len(tree.Files()))
	}
	if removed := s.sweep(); removed != 0 {
		t.Errorf("a sweep removes %d of what is expected", removed)
	}
	res, err := s.m.Sync(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil || len(res.LeftOut) > 0 || !res.Changed {
		t.Fatalf("import: %+v, %v", res, err)
	}
	if err := s.m.UnexpectTree(stable); err != nil {
		t.Error(err)
	}
	if asked := s.upstream.Requests(); len(asked) > 0 {
		t.Errorf("upstream was asked: %v", asked)
	}
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("published versions (-tree +site):\n%s", diff)
	}
	state, err := s.store.Files().ReadState(stable)
	if err != nil || bytes.Contains(state, []byte("file:")) || bytes.Contains(state, []byte("100%")) {
		t.Errorf("the state tells of the tree: %s, %v", state, err)
	}
	if res := s.mustSync(); res.Fetched.Files != 0 || res.Changed {
		t.Errorf("the sync that follows: %+v", res)
	}
}

// sweep sweeps without giving up any snapshot.
func (s *site) sweep() int {
	s.t.Helper()
	plan, err := s.store.PlanSweep(s.t.Context(), cache.SweepOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := plan.Execute(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return res.Removed
}

// What a tree lacks leaves the version out that needs it, but the other files of that version are of use to the next sync. A version
// of which it has nothing is told apart.
func TestTreeIncomplete(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{NoBootloaders: true, CentOS: []string{}, Releases: []string{"noble", "jammy"}, Kernels: []string{"ga"}})
	s := newSite(t, tree)
	const lost = "noble/amd64/20250718/ga-24.04/generic/boot-kernel"
	p := newPlainTree(tree, func(path string) bool {
		return path != lost && !strings.HasPrefix(path, "jammy/amd64/20250718/")
	})
	plan, err := s.m.Plan(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil {
		t.Fatal(err)
	}
	if _, absent := plan.Absent()[lost]; !absent {
		t.Errorf("absent: %v", plan.Absent())
	}
	if n := p.take(t, s, plan); n != len(p.files) {
		t.Errorf("took %d files of %d", n, len(p.files))
	}
	res, err := s.m.Sync(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil || len(res.LeftOut) != 2 {
		t.Fatalf("import: %+v, %v", res, err)
	}
	for _, o := range res.LeftOut {
		if o.Version != "20250718" || (o.Reason == mirror.NothingOfIt) != strings.Contains(o.Product, ":22.04:") {
			t.Errorf("left out: %v", o)
		}
	}
	s.sweep()
	if res := s.mustSync(); res.Fetched.Files != len(tree.Files())-len(p.files) {
		t.Errorf("the sync that follows fetches %d files, the tree lacks %d", res.Fetched.Files, len(tree.Files())-len(p.files))
	}
}

// Where all of upstream's is advertised and nothing is selected, a tree brings what clients would pull through, as far as the cache
// keeps it; what they are shown is what upstream signed.
func TestTreeAhead(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll })
	p := newPlainTree(tree, all)
	s.store.SetCacheLimit(tree.Size() / 2)
	plan, err := s.m.Plan(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(plan.Lacks()); n == 0 || n >= len(p.files) {
		t.Errorf("with room for half of them, %d of %d files are wanted", n, len(p.files))
	}
	s.store.SetCacheLimit(0)
	if plan, err = s.m.Plan(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree}); err != nil {
		t.Fatal(err)
	}
	p.take(t, s, plan)
	res, err := s.m.Sync(t.Context(), stable, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil || res.Known != len(p.files) {
		t.Fatalf("import: %+v, %v", res, err)
	}
	if err := s.m.UnexpectTree(stable); err != nil {
		t.Error(err)
	}
	s.sweep()
	for path, f := range p.files {
		if !s.store.Has(cache.Sum(f.Bytes())) {
			t.Errorf("%s is not here", path)
		}
	}
	if n := s.store.PullStats().Blobs; n == 0 {
		t.Error("nothing of it counts as pulled")
	}
	if asked := s.upstream.Requests(); len(asked) > 0 {
		t.Errorf("upstream was asked: %v", asked)
	}
}

// A tree is believed as its upstream is: not by another key, not when it is older, and not in place of a list that it lacks. Nothing
// that failed is told of the upstream, nor defines a stream.
func TestTreeRefused(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.mustSync()
	older := newPlainTree(tree, all)
	older.Taken = true
	next := tree.Clone()
	next.AddDay()
	s.upstream.Publish(next)
	s.mustSync()
	before, err := s.store.Files().ReadState(stable)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.m.Sync(t.Context(), stable, mirror.SyncOptions{Tree: &older.Tree}); !errors.Is(err, mirror.ErrBehind) {
		t.Errorf("an older tree: %v", err)
	}
	other := streamstest.MAAS(streamstest.Shape{})
	other.Key = streamstest.NewTree().Key
	foreign := newPlainTree(other, all)
	if _, err := s.m.Sync(t.Context(), stable, mirror.SyncOptions{Tree: &foreign.Tree}); !errors.Is(err, mirror.ErrVerification) {
		t.Errorf("a tree of another key: %v", err)
	}
	partial := newPlainTree(next, all)
	read := partial.Documents
	partial.Documents = func(ctx context.Context, p streams.Path) ([]byte, error) {
		if p != "streams/v1/index.sjson" {
			return nil, fs.ErrNotExist
		}
		return read(ctx, p)
	}
	def := mirror.Stream{Name: "second", Path: "/second/", Keyring: next.Keyring(), Offline: true}
	patient := mirror.New(mirror.Options{Store: s.store, Client: newClient(t)}) // with upstreams; nobody writes to a tree
	if _, err := patient.SyncNew(t.Context(), def, mirror.SyncOptions{Tree: &partial.Tree}); !errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("a tree without lists: %v", err)
	}
	if _, err := s.m.Stream("second"); !errors.Is(err, mirror.ErrNoStream) {
		t.Errorf("a stream of which nothing came: %v", err)
	}
	after, err := s.store.Files().ReadState(stable)
	if diff := cmp.Diff(string(before), string(after)); diff != "" || err != nil {
		t.Errorf("the state of the stream (-before +after):\n%s%v", diff, err)
	}
}

// A stream that came from a tree has no upstream; it may be given one, whose metadata must not be older then.
func TestTreeThenUpstream(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	next := tree.Clone()
	next.AddDay()
	p := newPlainTree(next, all)
	def := mirror.Stream{Name: "images", Path: "/images/", Keyring: tree.Keyring(), Offline: true}
	plan, err := s.m.PlanNew(t.Context(), def, mirror.SyncOptions{Tree: &p.Tree})
	if err != nil {
		t.Fatal(err)
	}
	p.take(t, s, plan)
	if _, err := s.m.SyncNew(t.Context(), def, mirror.SyncOptions{Tree: &p.Tree}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.m.Sync(t.Context(), "images", mirror.SyncOptions{}); !errors.Is(err, mirror.ErrOffline) {
		t.Errorf("a sync without an upstream: %v", err)
	}
	def.Upstream, def.Offline = []string{s.url}, false
	if _, err := s.m.SyncNew(t.Context(), def, mirror.SyncOptions{}); !errors.Is(err, mirror.ErrBehind) {
		t.Errorf("an upstream that is older than the tree: %v", err)
	}
	s.upstream.Publish(next)
	res, err := s.m.SyncNew(t.Context(), def, mirror.SyncOptions{})
	if err != nil || res.Fetched.Files != 0 {
		t.Errorf("with an upstream: %+v, %v", res, err)
	}
}
