package mirror_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// What is told of a snapshot is what its clients see: of the site's documents, or of upstream's where these are shown.
func TestReadLists(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	for _, test := range []struct {
		name string
		site *site
	}{
		{"selected", newSite(t, tree)},
		{"all", newAllSite(t, tree)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := test.site
			s.mustSyncPlain()
			man, err := s.store.Manifest(stable, current(t, s.store, stable))
			if err != nil {
				t.Fatal(err)
			}
			lists, err := mirror.ReadLists(s.store.Files(), man)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			products := 0
			for _, l := range lists {
				for _, p := range l.Products {
					products++
					for _, v := range p.Versions {
						got = append(got, p.Name+" "+v)
					}
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(treeVersions(tree), got); diff != "" {
				t.Errorf("versions (-upstream +told):\n%s", diff)
			}
			counter := mirror.NewCounter(s.store.Files())
			for range 2 {
				if p, v, err := counter.Count(man); err != nil || p != products || v != len(got) {
					t.Errorf("%d products, %d versions, %v, want %d and %d", p, v, err, products, len(got))
				}
			}
		})
	}
}
