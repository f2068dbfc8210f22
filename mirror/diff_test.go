package mirror_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

func (s *site) diff(from, to cache.Digest) *mirror.Diff {
	s.t.Helper()
	kept, err := s.store.Files().Snapshots(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	find := func(id cache.Digest) cache.Snapshot {
		return kept[slices.IndexFunc(kept, func(k cache.Snapshot) bool { return k.ID == id })]
	}
	d, err := mirror.DiffSnapshots(s.store.Files(), find(from), find(to))
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
