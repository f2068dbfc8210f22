package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams/streamstest"
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
	snap, err := store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	o.Snapshots, o.MadeBy = []cache.Snapshot{snap}, "oxbow test"
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
	var sources []mirror.Source
	for i, v := range volumes {
		sources = append(sources, mirror.Source{Name: fmt.Sprintf("volume %d", i+1), Reader: bytes.NewReader(v)})
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
	h, err := mirror.ReadHave(doc, nil, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

// A site that never sees upstream gets its images, and three days of updates; a day that is skipped is refused, and then healed; it
// goes back and forward on its own.
func TestAirGap(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	far := newFarSite(t)
	ids := []cache.Digest{}
	var bundles [][][]byte
	for day := range 4 {
		if day > 0 {
			tree.AddDay()
			tree.Trim(2)
			near.upstream.Publish(tree)
		}
		near.mustSync()
		o := mirror.ExportOptions{}
		if day > 0 {
			o.Since = map[string]cache.Digest{stable: ids[day-1]}
		}
		ids = append(ids, current(t, near.store, stable))
		bundles = append(bundles, near.export(o))
	}
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.take(mirror.ImportOptions{}, bundles[0]...); !errors.Is(err, bundle.ErrForeign) || !strings.Contains(err.Error(), "--trust-fingerprint "+key.Fingerprint()) {
		t.Errorf("of a stranger: %v", err)
	}
	far.mustTake(mirror.ImportOptions{TrustFingerprint: key.Fingerprint(), Keyring: tree.Keyring()}, bundles[0]...)
	far.mustTake(mirror.ImportOptions{Keyring: tree.Keyring()}, bundles[1]...)
	if len(bundles[1][0]) > len(bundles[0][0])*3/4 {
		t.Errorf("an increment has %d bytes, the first bundle %d", len(bundles[1][0]), len(bundles[0][0]))
	}
	before := current(t, far.store, stable)
	if _, err := far.take(mirror.ImportOptions{}, bundles[3]...); !errors.Is(err, mirror.ErrGap) || !strings.Contains(err.Error(), ids[2].String()[:12]) {
		t.Errorf("after a skipped day: %v", err)
	}
	if got := current(t, far.store, stable); got != before {
		t.Errorf("current is %v", got)
	}
	far.mustTake(mirror.ImportOptions{}, append(bundles[3], bundles[2]...)...)
	far.same(near)
	if mirror.Signs(far.store.Files()) {
		t.Error("the far site is said to sign what it publishes")
	}
	if ring, err := mirror.Keyring(far.store.Files()); err != nil || !bytes.Equal(ring, key.Public()) {
		t.Errorf("the keyring of the far site has %d bytes, %v", len(ring), err)
	}
	if results, err := far.take(mirror.ImportOptions{}, bundles[2]...); err != nil || len(results[0].Known) != 1 {
		t.Errorf("once more: %+v, %v", results, err)
	}

	// Back, and forward with the next day.
	if _, err := far.m.Rollback(t.Context(), stable, ids[2]); err != nil {
		t.Fatal(err)
	}
	want := readPath(t, far.store, stable, "streams/v1/index.sjson")
	if !bytes.Contains(want, []byte("BEGIN PGP")) {
		t.Error("no signed index")
	}
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	next := near.export(mirror.ExportOptions{Have: far.have()})
	if _, err := far.take(mirror.ImportOptions{}, next...); err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("while it is held: %v", err)
	}
	if err := far.m.Resume(stable); err != nil {
		t.Fatal(err)
	}
	far.mustTake(mirror.ImportOptions{}, next...)
	far.same(near)
}

// Volumes come in any order, over days, and nothing is published before the last; a sweep meanwhile takes nothing of it. The same
// snapshot gives the same bytes.
func TestVolumes(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	volumes := near.export(mirror.ExportOptions{Split: 250 << 10})
	if len(volumes) < 3 {
		t.Fatalf("%d volumes", len(volumes))
	}
	if diff := cmp.Diff(volumes, near.export(mirror.ExportOptions{Split: 250 << 10})); diff != "" {
		t.Error("another export has other bytes")
	}
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	far := newFarSite(t)
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}
	for i := len(volumes) - 1; i > 0; i-- {
		results, err := far.take(o, volumes[i])
		if err != nil || len(results) != 1 || len(results[0].Missing) != i || results[0].Missing[0].Volume != 1 || results[0].Missing[0].Files == 0 {
			t.Fatalf("after volume %d: %+v, %v", i+1, results, err)
		}
		if _, err := far.store.Current(stable); !errors.Is(err, cache.ErrNoSnapshot) {
			t.Fatalf("something is published: %v", err)
		}
		plan, err := far.m.PlanSweep(t.Context())
		if err == nil {
			_, err = plan.Execute(t.Context())
		}
		if err != nil || len(plan.Items) > 0 {
			t.Errorf("a sweep removes %v (%v)", plan.Items, err)
		}
	}
	far.mustTake(o, volumes[0])
	far.same(near)
	if _, err := mirror.PlanExport(t.Context(), near.store.Files(), mirror.ExportOptions{Snapshots: []cache.Snapshot{{Stream: stable, ID: current(t, near.store, stable)}}, Split: 50 << 10}); err == nil || !strings.Contains(err.Error(), "volume is too small") {
		t.Errorf("of small volumes: %v", err)
	}
}
