package mirror_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

func (s *site) kept(id cache.Digest) cache.Snapshot {
	s.t.Helper()
	kept, err := s.store.Files().Snapshots(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	return kept[slices.IndexFunc(kept, func(k cache.Snapshot) bool { return k.ID == id })]
}

func (s *site) diff(from, to cache.Digest) *mirror.Diff {
	s.t.Helper()
	d, err := mirror.DiffSnapshots(s.store.Files(), s.kept(from), s.kept(to))
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *site) diffUpstream(from cache.Digest) *mirror.Diff {
	s.t.Helper()
	d, err := s.m.DiffUpstream(s.t.Context(), s.kept(from), mirror.SyncOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// A day with a new version, and the oldest one trimmed, told forwards, backwards, and against itself.
func TestDiffSnapshots(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{NoBootloaders: true, CentOS: []string{}, Kernels: []string{"ga"}, Releases: []string{"noble"}})
	s := newAllSite(t, tree, "release=noble") // where what upstream drops is gone
	s.mustSyncPlain()
	first := current(t, s.store, stable)
	added := tree.AddDay()
	tree.Trim(2)
	s.upstream.Publish(tree)
	s.mustSyncPlain()
	second := current(t, s.store, stable)

	d := s.diff(first, second)
	const noble = "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04"
	want := mirror.Change[mirror.DiffVersion]{
		Added:   []mirror.DiffVersion{{Product: noble, Version: "20250719"}},
		Removed: []mirror.DiffVersion{{Product: noble, Version: "20250717"}},
	}
	if diff := cmp.Diff(want, d.Versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if len(d.Products.Added)+len(d.Products.Removed) != 0 {
		t.Errorf("products %+v", d.Products)
	}
	var paths []string
	var size int64
	for _, f := range d.Files.Added {
		paths, size = append(paths, f.Path), size+f.Size
	}
	slices.Sort(added)
	if diff := cmp.Diff(added, paths); diff != "" || d.Bytes.Added != size {
		t.Errorf("files added, %d bytes of %d (-want +got):\n%s", d.Bytes.Added, size, diff)
	}
	if len(d.Files.Removed) == 0 || !strings.Contains(d.Files.Removed[0].Path, "20250717") {
		t.Errorf("files removed: %v", d.Files.Removed)
	}
	back := s.diff(second, first)
	if !slices.Equal(back.Versions.Added, d.Versions.Removed) || !slices.Equal(back.Files.Removed, d.Files.Added) || back.Bytes.Removed != d.Bytes.Added {
		t.Errorf("backwards: %+v", back)
	}
	if same := s.diff(first, first); len(same.Versions.Added)+len(same.Files.Added)+len(same.Files.Removed) != 0 || same.Bytes != (mirror.DiffBytes{}) {
		t.Errorf("against itself: %+v", same)
	}
}

// What is told of upstream is what the next sync makes true, from the current snapshot and from one before it; nothing is published
// by that, and no file fetched.
func TestDiffUpstream(t *testing.T) {
	addDay := func(_ *site, tree *streamstest.Tree) { tree.AddDay() }
	for _, test := range []struct {
		summary string
		define  func(*mirror.Stream)
		change  func(*site, *streamstest.Tree)
		same    bool
	}{
		{"a day", nil, func(_ *site, tree *streamstest.Tree) { tree.AddDay(); tree.Trim(2) }, false},
		{"nothing", nil, func(*site, *streamstest.Tree) {}, true},
		{"nothing but dates", nil, func(_ *site, tree *streamstest.Tree) { tree.Touch() }, true},
		{"a product that is gone", nil, func(_ *site, tree *streamstest.Tree) { tree.Drop(noble) }, true},
		{"what is not selected", func(st *mirror.Stream) { st.Select = []string{"release=jammy"} }, func(_ *site, tree *streamstest.Tree) { tree.Drop(noble) }, true},
		{"the newest version only", func(st *mirror.Stream) { st.MaxVersions = 1 }, addDay, false},
		{"another selection", nil, func(s *site, _ *streamstest.Tree) {
			s.redefine(func(st *mirror.Stream) { st.Select = []string{"release=jammy"} })
		}, false},
		{"what is held back", nil, func(s *site, _ *streamstest.Tree) {
			if err := s.m.HoldBack(stable, "release=noble version_name=20250718"); err != nil {
				s.t.Fatal(err)
			}
		}, false},
		{"all is advertised", func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll }, addDay, false},
		{"all is advertised, and something here beforehand", func(st *mirror.Stream) {
			st.Advertise, st.Select = mirror.AdvertiseAll, []string{"release=noble"}
		}, addDay, false},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			if test.define != nil {
				s.redefine(test.define)
			}
			s.mustSyncPlain()
			first := current(t, s.store, stable)
			tree.AddDay()
			s.upstream.Publish(tree)
			s.mustSyncPlain()
			second := current(t, s.store, stable)
			test.change(s, tree)
			s.upstream.Publish(tree)
			s.upstream.Reset()
			told := map[cache.Digest]*mirror.Diff{first: s.diffUpstream(first), second: s.diffUpstream(second)}
			for _, r := range s.upstream.Requests() {
				if !strings.HasPrefix(r.Path, "streams/v1/") {
					t.Errorf("%s was asked for", r.Path)
				}
			}
			if now := current(t, s.store, stable); now != second {
				t.Errorf("snapshot %v was published", now)
			}
			if same := len(told[second].Versions.Added)+len(told[second].Versions.Removed)+len(told[second].Files.Added) == 0; same != test.same {
				t.Errorf("from the current snapshot: %+v", told[second])
			}
			s.mustSyncPlain()
			for from, d := range told {
				d.To = current(t, s.store, stable).String()
				if diff := cmp.Diff(s.diff(from, current(t, s.store, stable)), d); diff != "" {
					t.Errorf("what a sync makes of it (-true +told):\n%s", diff)
				}
				if back := d.Reverse(); !cmp.Equal(back, s.diff(current(t, s.store, stable), from)) {
					t.Errorf("reversed: %+v", back)
				}
			}
		})
	}
}

// A stream that a rollback holds is compared with what upstream has all the same, and that is told. An upstream that is not to be
// believed, or not to be asked, is an error.
func TestDiffUpstreamHeldAndRefused(t *testing.T) {
	tree := oneProduct()
	s := newSite(t, tree)
	s.days(tree, 2)
	second := current(t, s.store, stable)
	s.rollback(cache.Digest{})
	d := s.diffUpstream(current(t, s.store, stable))
	if d.To != mirror.UpstreamNow || len(d.Warnings) != 1 || !cmp.Equal(d.Versions, s.diff(current(t, s.store, stable), second).Versions) {
		t.Errorf("%+v", d)
	}
	tree.AddDay()
	s.upstream.Publish(tree)
	s.upstream.SetFault(streamstest.At("v3:download.sjson", streamstest.Fault{FlipAt: 500}))
	if _, err := s.m.DiffUpstream(t.Context(), s.kept(second), mirror.SyncOptions{}); !errors.Is(err, mirror.ErrVerification) {
		t.Errorf("a flipped byte: %v", err)
	}
	s.redefine(func(st *mirror.Stream) { st.Offline = true })
	if _, err := s.m.DiffUpstream(t.Context(), s.kept(second), mirror.SyncOptions{}); !errors.Is(err, mirror.ErrOffline) {
		t.Errorf("offline: %v", err)
	}
}
