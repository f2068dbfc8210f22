package mirror_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams"
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
	if results, err := far.take(mirror.ImportOptions{}, bundles[2]...); err != nil || len(results[0].There) != 1 {
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

// A site that imports hands on to a third: what is served there is signed by the first, whose keyring came along, and the chain names
// both, back to upstream's signatures.
func TestBundleChain(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	nearKey, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	middle, far := newFarSite(t), newFarSite(t)
	middle.mustTake(mirror.ImportOptions{TrustFingerprint: nearKey.Fingerprint()}, near.export(mirror.ExportOptions{})...)
	middleKey, err := middle.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	volumes := exportFrom(t, middle.store, mirror.ExportOptions{Split: 300 << 10})
	far.mustTake(mirror.ImportOptions{TrustFingerprint: middleKey.Fingerprint(), Keyring: tree.Keyring()}, volumes...)
	far.same(near)
	if ring, err := mirror.Keyring(far.store.Files()); err != nil || !bytes.Equal(ring, nearKey.Public()) {
		t.Errorf("the keyring of the far site is not that of the near one: %v", err)
	}
	i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "one", Reader: bytes.NewReader(volumes[1])}}, mirror.InspectOptions{Files: true, Keyring: tree.Keyring()})
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Faults) > 0 || len(i.Read) != 1 || i.Read[0].Volume != 2 || !i.Read[0].Proven || len(i.Missing()) != len(volumes)-1 {
		t.Errorf("faults %q, read %+v, missing %v", i.Faults, i.Read, i.Missing())
	}
	s := i.Streams[0]
	if len(s.Handovers) != 2 || s.Handovers[0].Site != nearKey.Fingerprint() || s.Handovers[1].Site != middleKey.Fingerprint() || !s.Handovers[0].Proven || !s.Handovers[1].Proven {
		for _, h := range s.Handovers {
			t.Errorf("near %s, middle %s, handover %+v", nearKey.Fingerprint(), middleKey.Fingerprint(), h)
		}
	}
	for _, v := range s.Custody.Vouchers() {
		if v.Signed == nil {
			t.Errorf("nobody signed %s", v.Path)
		}
	}
	if len(s.Custody.Versions) != len(near.versions()) {
		t.Errorf("%d versions are vouched for, %d published", len(s.Custody.Versions), len(near.versions()))
	}
	other := streamstest.MAAS(streamstest.Shape{})
	i, err = mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "one", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{Keyring: other.Keyring()})
	if err != nil || len(i.Faults) != len(near.versions()) {
		t.Errorf("by another keyring: %d faults, %v", len(i.Faults), err)
	}
}

// The handovers of what came stay with each snapshot as long as it is kept, or its content, which a rollback published anew.
func TestHandoversStay(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	nearKey, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	middle := newFarSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	middle.m = mirror.New(mirror.Options{Store: middle.store, Now: func() time.Time { return now }})
	trust := mirror.ImportOptions{TrustFingerprint: nearKey.Fingerprint()}
	took := func() (cache.Snapshot, time.Time) {
		now = now.Add(time.Hour)
		middle.mustTake(trust, near.export(mirror.ExportOptions{})...)
		snap, err := middle.store.Current(stable)
		if err != nil {
			t.Fatal(err)
		}
		return snap, now
	}
	first, came := took()
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	took()
	now = now.Add(time.Hour)
	if _, err := middle.m.Rollback(t.Context(), stable, first.ID); err != nil {
		t.Fatal(err)
	}
	back, err := middle.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	middleKey, err := middle.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what  string
		snap  cache.Snapshot
		since time.Time // as the middle one says
	}{{"that came first", first, came}, {"of a rollback to that", back, back.Created}} {
		volumes := exportFrom(t, middle.store, mirror.ExportOptions{Snapshots: []cache.Snapshot{test.snap}})
		i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "one", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{Keyring: tree.Keyring()})
		if err != nil || len(i.Faults) > 0 {
			t.Fatalf("%s: %+v, %v", test.what, i, err)
		}
		want := []*mirror.HandoverView{
			{Snapshot: first.ID.String(), Site: nearKey.Fingerprint(), Time: first.Created, MadeBy: "oxbow test", Proven: true},
			{Snapshot: test.snap.ID.String(), Site: middleKey.Fingerprint(), Time: test.since, MadeBy: "oxbow test", Proven: true},
		}
		if diff := cmp.Diff(want, i.Streams[0].Handovers, cmpopts.IgnoreFields(mirror.HandoverView{}, "By")); diff != "" {
			t.Errorf("handovers of the snapshot %s (-want +got):\n%s", test.what, diff)
		}
		far := newFarSite(t)
		far.mustTake(mirror.ImportOptions{TrustFingerprint: middleKey.Fingerprint()}, volumes...)
	}
}

// A bundle that is imported again changes nothing of when its snapshot came, nor what is current, and it is said what that is.
func TestImportAgain(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	old := near.export(mirror.ExportOptions{})
	tree.AddDay()
	near.upstream.Publish(tree)
	near.m = mirror.New(mirror.Options{Store: near.store, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	near.mustSync()
	newer := near.export(mirror.ExportOptions{})

	far := newFarSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	far.m = mirror.New(mirror.Options{Store: far.store, Now: func() time.Time { return now }})
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint(), AllowOlder: true}
	far.mustTake(o, newer...)
	snap, err := far.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	came := now
	now = now.Add(time.Hour)
	far.mustTake(o, old...)
	was := current(t, far.store, stable)
	now = now.Add(time.Hour)
	results, err := far.take(o, newer...)
	if err != nil || len(results) != 1 || results[0].There[stable] != snap.ID.String() || results[0].Current[stable] != was.String() {
		t.Errorf("%+v, %v", results, err)
	}
	if is := current(t, far.store, stable); is != was || is == snap.ID {
		t.Errorf("%v is current, and was %v; the newer one is %v", is, was, snap.ID)
	}
	if _, err := far.m.Key(); err != nil {
		t.Fatal(err)
	}
	volumes := exportFrom(t, far.store, mirror.ExportOptions{Snapshots: []cache.Snapshot{snap}})
	i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "one", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{Keyring: tree.Keyring()})
	if err != nil || len(i.Faults) > 0 {
		t.Fatalf("%+v, %v", i, err)
	}
	if h := i.Streams[0].Handovers; len(h) != 2 || !h[1].Time.Equal(came) {
		t.Errorf("handovers %+v, want the last since %v", h, came)
	}
}

// What is not to be imported is refused before anything of it is taken in: a stream that is synced here, one that another site's
// bundles bring, something older than what is here, and what upstream's keyring does not vouch for.
func TestImportRefused(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}
	first := near.export(mirror.ExportOptions{})
	refused := func(s *farSite, words string, is error, o mirror.ImportOptions, volumes ...[]byte) {
		t.Helper()
		_, err := s.take(o, volumes...)
		if err == nil || !strings.Contains(err.Error(), words) || is != nil && !errors.Is(err, is) {
			t.Errorf("got %v, want %q", err, words)
		}
	}
	syncing := newSite(t, tree)
	syncing.mustSync()
	refused(&farSite{t, syncing.store, syncing.m}, "is synced from its upstream here", mirror.ErrNotImported, o, first...)
	far := newFarSite(t)
	refused(far, "not vouched for by upstream", mirror.ErrVouched, mirror.ImportOptions{TrustFingerprint: key.Fingerprint(), Keyring: streamstest.MAAS(streamstest.Shape{}).Keyring()}, first...)
	if _, err := far.store.Current(stable); !errors.Is(err, cache.ErrNoSnapshot) {
		t.Errorf("it is published: %v", err)
	}
	far.mustTake(o, first...)
	other := newSite(t, tree)
	other.mustSync()
	otherKey, err := other.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.m.TrustKeys(otherKey.Public()); err != nil {
		t.Fatal(err)
	}
	refused(far, "its bundles come from "+key.Fingerprint(), bundle.ErrForeign, mirror.ImportOptions{}, other.export(mirror.ExportOptions{})...)
	refused(far, "no oxbow bundle", mirror.ErrVerification, mirror.ImportOptions{}, bytes.Repeat([]byte("something else"), 100))
	all := near.export(mirror.ExportOptions{})
	all[0] = all[0][:len(all[0])/2]
	refused(far, "the volume is damaged", mirror.ErrVerification, mirror.ImportOptions{}, all...)

	// A stream that passes on what is not here cannot be carried.
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Advertise, st.Select = mirror.AdvertiseAll, []string{"release=noble"} })
	if _, err := s.sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.m.Key(); err != nil {
		t.Fatal(err)
	}
	snap, err := s.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.PlanExport(t.Context(), s.store.Files(), mirror.ExportOptions{Snapshots: []cache.Snapshot{snap}}); err == nil || !strings.Contains(err.Error(), "files that are not here") {
		t.Errorf("of a stream with known files: %v", err)
	}
}

// A site whose key is trusted cannot pass upstream's keyring by what it says beside upstream's documents: other bytes served as a
// document, a list that says another thing in one form than in the other, an index that names no document.
func TestImportVouchedWhole(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint(), Keyring: tree.Keyring()}
	good := near.export(mirror.ExportOptions{})
	honest, err := near.store.Manifest(stable, current(t, near.store, stable))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text []byte) []byte {
		signed, err := key.Clearsign(text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for name, change := range map[string]func(path string, doc []byte) (string, []byte){
		"bytes that are no document": func(path string, doc []byte) (string, []byte) {
			if path != "streams/v1/index.json" {
				return path, doc
			}
			return "noble/boot-initrd", []byte("something hostile")
		},
		"a signed list that differs": func(path string, doc []byte) (string, []byte) {
			if text, err := streams.ClearText(doc); err == nil && bytes.Contains(text, []byte("squashfs")) {
				doc = sign(bytes.ReplaceAll(text, []byte(`"boot-kernel": {`), []byte(`"boot-initrd-of-old": {`)))
			}
			return path, doc
		},
		"an index that names a file": func(path string, doc []byte) (string, []byte) {
			if text, err := streams.ClearText(doc); err == nil && strings.HasSuffix(path, "index.sjson") {
				doc = sign(bytes.ReplaceAll(text, []byte(`"path": "streams/v1/`), []byte(`"path": "images/v1/`)))
			}
			return path, doc
		},
	} {
		man := &cache.Manifest{Stream: stable, Parent: current(t, near.store, stable), Created: time.Now().UTC().Truncate(time.Second), Reason: name}
		changed := false
		for _, e := range honest.Entries {
			if e.Kind == cache.KindSite {
				doc := readPath(t, near.store, stable, e.Path)
				path, data := change(e.Path, doc)
				changed = changed || path != e.Path || !bytes.Equal(doc, data)
				d, err := near.store.Put(t.Context(), data)
				if err != nil {
					t.Fatal(err)
				}
				e = cache.Entry{Kind: e.Kind, Digest: d, Size: int64(len(data)), Path: path}
			}
			man.Entries = append(man.Entries, e)
		}
		if !changed {
			t.Fatalf("%s: nothing is changed", name)
		}
		if _, err := near.store.Publish(t.Context(), man); err != nil {
			t.Fatal(err)
		}
		far := newFarSite(t)
		if _, err := far.take(o, near.export(mirror.ExportOptions{})...); !errors.Is(err, mirror.ErrVouched) || !errors.Is(err, mirror.ErrVerification) {
			t.Errorf("%s: %v", name, err)
		}
		back := *honest
		back.Parent, back.Created, back.Reason = current(t, near.store, stable), time.Now().UTC().Truncate(time.Second), "back after "+name
		if _, err := near.store.Publish(t.Context(), &back); err != nil {
			t.Fatal(err)
		}
	}
	newFarSite(t).mustTake(o, good...)
}

// Clients have the keys that sign a snapshot before it is published. An import that is killed as it has published is completed by the
// same command: the site knows what came last.
func TestImportKilledBetween(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	first := near.export(mirror.ExportOptions{})
	dir := filepath.Join(t.TempDir(), "far")
	far := &farSite{t: t, store: newStore(t, dir, -1)}
	far.m = mirror.New(mirror.Options{Store: far.store, Offline: true})
	t.Cleanup(func() { endStore(t, far.store) })
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}
	far.takeInVain(dir, o, first...)
	if ring, err := mirror.Keyring(far.store.Files()); err != nil || !bytes.Equal(ring, key.Public()) {
		t.Errorf("before it is published the keyring has %d bytes, %v", len(ring), err)
	}
	before, err := far.store.Files().ReadState(stable)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		far.mustTake(o, near.export(mirror.ExportOptions{})...)
		if err := far.store.WriteState(stable, before); err != nil { // as if it was killed then
			t.Fatal(err)
		}
		if results, err := far.take(o, near.export(mirror.ExportOptions{})...); err != nil || len(results[0].There) != 1 {
			t.Fatalf("once more: %+v, %v", results, err)
		}
		if id := current(t, near.store, stable); far.imported() != id.String() {
			t.Errorf("what came last is %q, want %v", far.imported(), id)
		}
		if before, err = far.store.Files().ReadState(stable); err != nil {
			t.Fatal(err)
		}
		tree.AddDay()
		near.upstream.Publish(tree)
		near.mustSync()
	}
	far.take(o, first...)
	if id := current(t, far.store, stable); far.imported() != id.String() {
		t.Error("an older bundle, once more, is called the last that came")
	}
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

// A site whose key is trusted cannot spoil the keyring that clients of all streams get.
func TestImportSigners(t *testing.T) {
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	key, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	middle, far := newFarSite(t), newFarSite(t)
	middle.mustTake(mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}, near.export(mirror.ExportOptions{})...)
	state, err := middle.store.Files().ReadState(stable)
	if err != nil {
		t.Fatal(err)
	}
	state = regexp.MustCompile(`"signers": "[^"]*"`).ReplaceAll(state, []byte(`"signers": "c29tZXRoaW5nIGVsc2U="`))
	if err := middle.store.WriteState(stable, state); err != nil {
		t.Fatal(err)
	}
	middleKey, err := middle.m.Key()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.take(mirror.ImportOptions{TrustFingerprint: middleKey.Fingerprint()}, exportFrom(t, middle.store, mirror.ExportOptions{})...); !errors.Is(err, bundle.ErrContents) {
		t.Errorf("got %v", err)
	}
	if ring, err := mirror.Keyring(far.store.Files()); err != nil || len(ring) > 0 {
		t.Errorf("the keyring has %q, %v", ring, err)
	}
}
