package mirror_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
)

// A farSite is a store that no upstream is reached from.
type farSite struct {
	t     *testing.T
	store *cache.Store
	m     *mirror.Mirror
}

func newFarSite(t *testing.T) *farSite {
	t.Helper()
	s := &farSite{t: t, store: newStore(t, filepath.Join(t.TempDir(), "far"), -1)}
	s.m = mirror.New(mirror.Options{Store: s.store, Offline: true})
	t.Cleanup(func() { endStore(t, s.store) })
	return s
}

// export writes a bundle of the current snapshot, a volume each.
func (s *site) export(o mirror.ExportOptions) (volumes [][]byte) {
	s.t.Helper()
	return exportFrom(s.t, s.store, o)
}

func exportFrom(t *testing.T, store *cache.Store, o mirror.ExportOptions) (volumes [][]byte) {
	t.Helper()
	if len(o.Snapshots) == 0 {
		snap, err := store.Current(stable)
		if err != nil {
			t.Fatal(err)
		}
		o.Snapshots = []cache.Snapshot{snap}
	}
	o.MadeBy = "oxbow test"
	e, err := mirror.PlanExport(t.Context(), store.Files(), o)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= e.Contents.Volumes; n++ {
		var b bytes.Buffer
		if err := e.Write(t.Context(), &b, n, 0); err != nil {
			t.Fatal(err)
		}
		if size := e.Volume(n).Size(); int64(b.Len()) != size || o.Split > 0 && size > o.Split {
			t.Errorf("volume %d has %d bytes, planned %d, split at %d", n, b.Len(), size, o.Split)
		}
		volumes = append(volumes, b.Bytes())
	}
	return volumes
}

func (s *farSite) take(o mirror.ImportOptions, volumes ...[]byte) ([]*mirror.BundleResult, error) {
	s.t.Helper()
	var sources []mirror.Volume
	for i, v := range volumes {
		sources = append(sources, mirror.Volume{Name: fmt.Sprintf("volume %d", i+1), Reader: bytes.NewReader(v)})
	}
	return s.m.Import(s.t.Context(), sources, o)
}

// mustTake takes volumes in that complete a bundle.
func (s *farSite) mustTake(o mirror.ImportOptions, volumes ...[]byte) {
	s.t.Helper()
	results, err := s.take(o, volumes...)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range results {
		if !r.Whole() || len(r.Published) == 0 {
			s.t.Fatalf("not published: %+v", r)
		}
	}
}

// same reports what the far site serves otherwise than the near one.
func (s *farSite) same(near *site) {
	s.t.Helper()
	if a, b := current(s.t, near.store, stable), current(s.t, s.store, stable); a != b {
		s.t.Fatalf("the far site has snapshot %v, the near one %v", b, a)
	}
	man, err := s.store.Manifest(stable, current(s.t, s.store, stable))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range man.Entries {
		if e.Kind != cache.KindItem && e.Kind != cache.KindSite {
			continue
		}
		if diff := cmp.Diff(cache.Sum(readPath(s.t, near.store, stable, e.Path)), cache.Sum(readPath(s.t, s.store, stable, e.Path))); diff != "" {
			s.t.Errorf("%s: %s", e.Path, diff)
		}
	}
}

// have returns what the far site says that it has, as the near one reads it.
func (s *farSite) have() *mirror.Have {
	s.t.Helper()
	doc, err := s.m.Have("oxbow test")
	if err != nil {
		s.t.Fatal(err)
	}
	h, err := mirror.ReadHave(doc)
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// takeInVain imports volumes of the first bundle, of which the snapshot cannot be published: a file is in the way below dir, the
// store, and is gone at the end.
func (s *farSite) takeInVain(dir string, o mirror.ImportOptions, volumes ...[]byte) {
	s.t.Helper()
	inTheWay := filepath.Join(dir, "snapshots", stable)
	o.Taken = func(mirror.Taken) {
		if err := os.WriteFile(inTheWay, nil, 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	if results, err := s.take(o, volumes...); err == nil {
		s.t.Fatalf("published in spite of all: %+v", results)
	}
	if err := os.Remove(inTheWay); err != nil {
		s.t.Fatal(err)
	}
}

// imported returns the id of the snapshot that came last.
func (s *farSite) imported() string {
	s.t.Helper()
	data, err := s.store.Files().ReadState(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	var st struct{ Imported mirror.Imported }
	if err := json.Unmarshal(data, &st); err != nil {
		s.t.Fatal(err)
	}
	return st.Imported.Snapshot
}
