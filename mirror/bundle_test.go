package mirror_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

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
	key := keyOf(t, near.m)
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
	key := keyOf(t, near.m)
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
	nearKey := keyOf(t, near.m)
	middle, far := newFarSite(t), newFarSite(t)
	middle.mustTake(mirror.ImportOptions{TrustFingerprint: nearKey.Fingerprint()}, near.export(mirror.ExportOptions{})...)
	middleKey := keyOf(t, middle.m)
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

// What is not to be imported is refused before anything of it is taken in: a stream that is synced here, one that another site's
// bundles bring, something older than what is here, and what upstream's keyring does not vouch for.
func TestImportRefused(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key := keyOf(t, near.m)
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
	otherKey := keyOf(t, other.m)
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
	keyOf(t, s.m) // it is made
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
	key := keyOf(t, near.m)
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
	key := keyOf(t, near.m)
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

// A site whose key is trusted cannot spoil the keyring that clients of all streams get.
func TestImportSigners(t *testing.T) {
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	key := keyOf(t, near.m)
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
	middleKey := keyOf(t, middle.m)
	if _, err := far.take(mirror.ImportOptions{TrustFingerprint: middleKey.Fingerprint()}, exportFrom(t, middle.store, mirror.ExportOptions{})...); !errors.Is(err, bundle.ErrContents) {
		t.Errorf("got %v", err)
	}
	if ring, err := mirror.Keyring(far.store.Files()); err != nil || len(ring) > 0 {
		t.Errorf("the keyring has %q, %v", ring, err)
	}
}
