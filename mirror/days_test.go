package mirror_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A small tree: one Ubuntu product with two versions.
func oneProduct() *streamstest.Tree {
	return streamstest.MAAS(streamstest.Shape{NoBootloaders: true, CentOS: []string{}, Kernels: []string{"ga"}, Releases: []string{"noble"}})
}

const noble = "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04"

// Day by day, whatever upstream makes of it, the site has versions to deploy.
func TestSyncDays(t *testing.T) {
	type day struct {
		change func(*streamstest.Tree)
		want   []string // versions of noble
		left   []string // versions left out
	}
	addDay := func(tree *streamstest.Tree) { tree.AddDay() }
	newest := func(tree *streamstest.Tree) *streamstest.Version {
		versions := tree.Product(noble).Versions
		return versions[len(versions)-1]
	}
	withoutManifest := func(tree *streamstest.Tree) {
		v := newest(tree)
		v.Items = slices.DeleteFunc(v.Items, func(it *streamstest.Item) bool { return it.Name == "manifest" })
	}
	for _, test := range []struct {
		summary string
		max     int
		days    []day
	}{
		{"a successor that MAAS refuses", 0, []day{
			{nil, []string{"20250717", "20250718"}, nil},
			{func(tree *streamstest.Tree) { tree.AddDay(); tree.Trim(1); withoutManifest(tree) }, []string{"20250717", "20250718"}, []string{"20250719"}},
			{func(tree *streamstest.Tree) { tree.AddDay(); tree.Trim(1); withoutManifest(tree) }, []string{"20250717", "20250718"}, []string{"20250720"}},
		}},
		{"a broken successor, with one version kept", 1, []day{
			{nil, []string{"20250718"}, nil},
			{func(tree *streamstest.Tree) {
				tree.AddDay()
				tree.Trim(1)
				tree.Break("noble/amd64/20250719/squashfs", streamstest.Absent)
			}, []string{"20250718"}, []string{"20250719"}},
			{func(tree *streamstest.Tree) { tree.AddDay(); tree.Trim(1) }, []string{"20250720"}, nil},
		}},
		{"versions that upstream withdraws go", 0, []day{
			{nil, []string{"20250717", "20250718"}, nil},
			{func(tree *streamstest.Tree) { tree.AddDay(); tree.Trim(2) }, []string{"20250718", "20250719"}, nil},
		}},
		{"a version changed in place that cannot be had, for days", 0, []day{
			{nil, []string{"20250717", "20250718"}, nil},
			{func(tree *streamstest.Tree) {
				tree.Resize("noble/amd64/20250718/squashfs", 70000)
				tree.Break("noble/amd64/20250718/squashfs", streamstest.Absent)
			}, []string{"20250717", "20250718"}, []string{"20250718"}},
			{(*streamstest.Tree).Touch, []string{"20250717", "20250718"}, []string{"20250718"}},
			{func(tree *streamstest.Tree) {
				tree.Break("noble/amd64/20250718/squashfs", streamstest.Whole)
				tree.Touch()
			}, []string{"20250717", "20250718"}, nil},
		}},
		{"a product whose versions are all gone", 0, []day{
			{nil, []string{"20250717", "20250718"}, nil},
			{func(tree *streamstest.Tree) { tree.Product(noble).Versions = nil; tree.Touch() }, []string{"20250717", "20250718"}, nil},
		}},
		{"one bad day in the middle", 2, []day{
			{nil, []string{"20250717", "20250718"}, nil},
			{func(tree *streamstest.Tree) {
				tree.AddDay()
				tree.Break("noble/amd64/20250719/squashfs", streamstest.Flipped)
			}, []string{"20250717", "20250718"}, []string{"20250719"}},
			{addDay, []string{"20250718", "20250720"}, []string{"20250719"}},
			{addDay, []string{"20250720", "20250721"}, nil},
		}},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			tree := oneProduct()
			s := newSite(t, tree)
			s.redefine(func(st *mirror.Stream) { st.MaxVersions = test.max })
			for i, day := range test.days {
				if day.change != nil {
					tree = tree.Clone()
					day.change(tree)
					s.upstream.Publish(tree)
				}
				res, err := s.sync()
				if err != nil {
					t.Fatalf("day %d: %v", i, err)
				}
				var want, left []string
				for _, v := range day.want {
					want = append(want, noble+" "+v)
				}
				for _, o := range res.LeftOut {
					left = append(left, o.Version)
				}
				if diff := cmp.Diff(want, s.versions()); diff != "" {
					t.Errorf("day %d: published versions (-want +got):\n%s", i, diff)
				}
				if diff := cmp.Diff(day.left, left); diff != "" {
					t.Errorf("day %d: left out (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// A stream may have its index under another name.
func TestSyncNamedIndex(t *testing.T) {
	tree := oneProduct()
	published := tree.Render().Document("streams/v1/index.sjson")
	s := newSite(t, tree)
	s.upstream.SetFault(func(r *http.Request) streamstest.Fault {
		if strings.HasSuffix(r.URL.Path, "/other.sjson") {
			return streamstest.Fault{Body: published}
		}
		return streamstest.Fault{}
	})
	s.redefine(func(st *mirror.Stream) { st.Index = "streams/v1/other.sjson" })
	s.mustSync()
	s.redefine(func(st *mirror.Stream) { st.MaxVersions = 1 })
	if res := s.mustSync(); !res.Changed {
		t.Error("the second sync did not publish the new selection")
	}
}

// A file that was lost is fetched again by the next sync, although nothing is
// new upstream: so says the remedy that a check prints.
func TestSyncLostBlob(t *testing.T) {
	s := newSite(t, oneProduct())
	s.mustSync()
	found, err := s.store.Find(stable, cache.Published, "noble/amd64/20250718/squashfs")
	if err != nil {
		t.Fatal(err)
	}
	sum := found.Entry.Digest.String()
	if err := os.Remove(filepath.Join(s.store.Files().Dir(), "blobs/sha256", sum[:2], sum)); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := s.mustSync(); res.Fetched.Files != 1 {
		t.Errorf("fetched %d files, one was lost", res.Fetched.Files)
	}
}

// An index that the lists contradict is not taken as settled: the lists may be
// put right under it.
func TestSyncUnsettled(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{NoBootloaders: true, CentOS: []string{}, Kernels: []string{"ga"}})
	before := tree.Clone()
	before.Lists[0].Products = slices.DeleteFunc(before.Lists[0].Products, func(p *streamstest.Product) bool { return p.Name == noble })
	list := before.Render().Document("streams/v1/com.ubuntu.maas:stable:v3:download.sjson")
	s := newSite(t, tree)
	s.upstream.SetFault(streamstest.At("v3:download.sjson", streamstest.Fault{Body: list}))
	res, err := s.sync()
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], noble) {
		t.Errorf("warnings %q", res.Warnings)
	}
	s.upstream.SetFault(nil)
	s.mustSync()
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("published versions (-upstream +site):\n%s", diff)
	}
}

// However many files are missing, those that are there are fetched.
func TestSyncManyMissing(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{Releases: []string{"focal", "jammy", "noble"}, Arches: []string{"amd64", "arm64"}, Versions: 3})
	for path := range tree.Files() {
		if !strings.HasPrefix(path, "bootloaders/") {
			tree.Break(path, streamstest.Absent)
		}
	}
	s := newSite(t, tree)
	if _, err := s.sync(); err != nil {
		t.Fatal(err)
	}
	for _, v := range s.versions() {
		if !strings.Contains(v, ":1:") {
			t.Errorf("%s is published and its files are missing", v)
		}
	}
	if n := len(s.versions()); n != 15 {
		t.Errorf("%d versions of boot loaders published, upstream has 15", n)
	}
}

// After an outage a sync that finds nothing new says that all is well again.
func TestSyncAfterOutage(t *testing.T) {
	s := newSite(t, oneProduct())
	s.mustSync()
	s.upstream.SetFault(func(*http.Request) streamstest.Fault { return streamstest.Fault{Status: 500} })
	if _, err := s.sync(); !errors.Is(err, upstream.ErrUpstream) {
		t.Fatalf("sync in an outage: %v", err)
	}
	s.upstream.SetFault(nil)
	s.mustSync()
	st, err := mirror.ReadStatus(s.store.Files(), stable)
	if err != nil || st.Last.Outcome != mirror.OutcomeDone {
		t.Errorf("last sync: %+v, %v", st.Last, err)
	}
}

// A second upstream is asked for lists, too, when the first has none; when the
// first is down and the second behind, that is an outage and no attack.
func TestSyncSecondUpstreamsLists(t *testing.T) {
	tree := oneProduct()
	second := newSite(t, tree)
	s := newSite(t, tree)
	if err := s.store.RemoveState(stable); err != nil {
		t.Fatal(err)
	}
	s.redefine(func(st *mirror.Stream) { st.Upstream = []string{s.url, second.url} })
	s.upstream.SetFault(streamstest.At("v3:download.sjson", streamstest.Fault{Status: 500}))
	s.mustSync()

	newer := tree.Clone()
	newer.AddDay()
	s.upstream.SetFault(nil)
	s.upstream.Publish(newer)
	s.mustSync()
	s.upstream.SetFault(func(*http.Request) streamstest.Fault { return streamstest.Fault{Status: 500} })
	if _, err := s.sync(); !errors.Is(err, upstream.ErrUpstream) || errors.Is(err, mirror.ErrVerification) {
		t.Errorf("first down, second behind: %v", err)
	}
	second.upstream.SetFault(func(*http.Request) streamstest.Fault { return streamstest.Fault{Status: 500} })
}

// A password in an upstream's URL is in no error and no result.
func TestSyncKeepsPasswords(t *testing.T) {
	tree := oneProduct()
	s := newSite(t, tree)
	if err := s.store.RemoveState(stable); err != nil {
		t.Fatal(err)
	}
	s.redefine(func(st *mirror.Stream) {
		st.Upstream = []string{strings.Replace(s.url, "//", "//user:SECRET@", 1)}
	})
	plan, err := s.m.Plan(t.Context(), stable, mirror.SyncOptions{})
	if err != nil || strings.Contains(plan.Upstream, "SECRET") {
		t.Errorf("plan: %q, %v", plan.Upstream, err)
	}
	for _, fault := range []streamstest.Fault{{Status: 500}, {Unsigned: true}, {FlipAt: 300}, {Body: []byte("{}")}} {
		s.upstream.SetFault(func(*http.Request) streamstest.Fault { return fault })
		if _, err := s.sync(); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("fault %+v: %v", fault, err)
		}
	}
	if _, err := mirror.NewStream("http://user:SECRET@host:99x99/"); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("malformed URL: %v", err)
	}
}

// A lost signing key is not replaced without being told to: no client would
// accept what another one signs.
func TestSyncLostKey(t *testing.T) {
	tree := oneProduct()
	s := newSite(t, tree)
	s.mustSync()
	if err := os.Remove(filepath.Join(s.store.Files().Dir(), "keys/site.asc")); err != nil {
		t.Fatal(err)
	}
	s.m = newMirror(t, s.store)
	tree = tree.Clone()
	tree.AddDay()
	s.upstream.Publish(tree)
	if _, err := s.sync(); !errors.Is(err, mirror.ErrKeyLost) {
		t.Errorf("sync without the key: %v", err)
	}
	if _, err := s.m.GenerateKey("ed25519", false); err != nil {
		t.Fatal(err)
	}
	s.mustSync()
}

// A damaged manifest of the current snapshot does not end syncing: the next one
// makes it anew.
func TestSyncDamagedManifest(t *testing.T) {
	s := newSite(t, oneProduct())
	s.mustSync()
	name := filepath.Join(s.store.Files().Dir(), "snapshots", stable, current(t, s.store, stable).String())
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(data), "item ", "iten ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if res := s.mustSync(); !res.Changed || res.Fetched.Files != 0 {
		t.Errorf("sync over a damaged manifest: %+v", res)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil { // for the check at the end
		t.Fatal(err)
	}
}

// One content cannot have two sizes: a version that says so is left out.
func TestSyncTwoSizes(t *testing.T) {
	for _, before := range []bool{false, true} {
		tree := streamstest.Plain(streamstest.PlainShape{})
		tree.Lists[0].Products = tree.Lists[0].Products[:1]
		p := tree.Lists[0].Products[0]
		good := p.Versions[0].Items[0]
		s := newSite(t, tree)
		if before {
			s.mustSyncPlain()
		}
		tree = tree.Clone()
		p = tree.Lists[0].Products[0]
		p.Versions = append(p.Versions, &streamstest.Version{Name: "99990101", Items: []*streamstest.Item{{
			Name: "liar",
			Tags: streamstest.Tags{"ftype": "liar", "path": "liar", "size": good.File.Length() + 1, "sha256": good.File.Sum("sha256")},
		}}})
		tree.Touch()
		tree.Lists[0].Updated = tree.Updated
		s.upstream.Publish(tree)
		res, err := s.sync()
		if err != nil {
			t.Fatal(err)
		}
		if len(res.LeftOut) != 1 || res.LeftOut[0].Version != "99990101" {
			t.Errorf("known before: %v: left out %v", before, res.LeftOut)
		}
	}
}

// With signatures asked for again, what nobody signed goes.
func TestSyncTrustTightened(t *testing.T) {
	tree := oneProduct()
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.AllowUnsigned = true })
	s.upstream.SetFault(streamstest.At("v3:download.sjson", streamstest.Fault{Unsigned: true}))
	s.mustSync()
	s.redefine(func(st *mirror.Stream) { st.AllowUnsigned = false })
	if _, err := s.sync(); !errors.Is(err, streams.ErrUnsigned) {
		t.Errorf("sync of unsigned lists: %v", err)
	}
}

// No stream's path may be part of another's, and what is wrong with one
// definition is no other's trouble.
func TestDefine(t *testing.T) {
	s := newSite(t, oneProduct())
	inner := s.stream
	inner.Name, inner.Path, inner.Also = "inner", s.stream.Path+"streams/", nil
	if err := s.m.Define(inner); err == nil || !strings.Contains(err.Error(), "--path") {
		t.Errorf("a path below another stream's: %v", err)
	}
	if err := s.store.WriteState("garbage", []byte("{")); err != nil {
		t.Fatal(err)
	}
	all, err := mirror.Streams(s.store.Files())
	if len(all) != 1 || err == nil || !strings.Contains(err.Error(), "garbage") {
		t.Errorf("streams: %v, %v", all, err)
	}
	s.mustSync()
	healed := s.stream
	healed.Name, healed.Path, healed.Also = "garbage", "/garbage/", nil
	if err := s.m.Define(healed); err != nil {
		t.Errorf("defining the unreadable stream anew: %v", err)
	}
}
