package cache

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExtents(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		const size = 60
		var set extents
		var bytes [size]bool
		for range 12 {
			e := Extent{r.Int64N(size), 0}
			e.Len = r.Int64N(size - e.Off)
			overlap := false
			for i := e.Off; i < e.end(); i++ {
				overlap = overlap || bytes[i]
				bytes[i] = true
			}
			if e.Len > 0 && set.overlaps(e) != overlap {
				t.Fatalf("seed %d: %v overlaps %v: %v", seed, set, e, !overlap)
			}
			set = set.add(e)
		}
		var want, gaps extents
		for i := range int64(size) {
			if bytes[i] {
				want = want.add(Extent{i, 1})
			} else {
				gaps = gaps.add(Extent{i, 1})
			}
		}
		if diff := cmp.Diff(want, set); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if diff := cmp.Diff([]Extent(gaps), set.missing(size)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if set.total()+gaps.total() != size || len(gaps) > 0 && gaps[0].Off == 0 && set.prefix() != 0 {
			t.Fatalf("seed %d: %v", seed, set)
		}
	}
}
