package mirror_test

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// A site that syncs from a site has the chain up to upstream in every snapshot, whatever becomes of the stream at either, and so has a
// third one. Where nothing is new, it asks once.
func TestCustodyOverHTTP(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b)
	c.mustSync()
	if got := c.chained(1, noble); got != "20250717 upstream of upstream, 20250718 upstream of upstream" {
		t.Errorf("noble: %s", got)
	}
	first := c.vouched()
	b.asked()
	if res := c.mustSync(); res.Changed {
		t.Error("nothing was new, and something is published")
	}
	if got := b.asked(); !slices.Equal(got, []string{"/streams/v1/index.sjson"}) {
		t.Errorf("where nothing is new, it asks for %q", got)
	}
	d := hand(t, c.store, c.m)
	e := newDownstream(t, d)
	e.mustSync()
	e.chained(2, noble)

	// The product vanishes at upstream; it stays at both, by documents of before.
	tree.Drop(noble)
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	c.mustSync()
	if got := c.chained(1, noble); got != "20250717 upstream of evidence, 20250718 upstream of evidence" {
		t.Errorf("noble, gone: %s", got)
	}
	// The next site drops it: it stays by the older list of that site, with the volume that is about that.
	if _, err := near.m.DropProduct(t.Context(), stable, noble); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tree.AddDay()
		near.upstream.Publish(tree)
		near.mustSync()
		c.mustSync()
		if got := c.chained(1, noble); got != "20250717 evidence of evidence, 20250718 evidence of evidence" {
			t.Errorf("noble, dropped: %s", got)
		}
		if n := len(c.volumes()); n != 2 {
			t.Errorf("custody volumes %q", c.volumes())
		}
	}
	e.mustSync()
	e.chained(2, noble)

	// Back to the first day, at the downstream site and then at both.
	c.rollback(c.first())
	if again := c.vouched(); len(again.Versions) != len(first.Versions) || len(again.HandedOn) != 1 || again.HandedOn[0].Snapshot != first.HandedOn[0].Snapshot {
		t.Errorf("rolled back: %+v", again)
	}
	c.chained(1, noble)
	if err := c.m.Resume(stable); err != nil {
		t.Fatal(err)
	}
	c.mustSync()
	c.chained(1, noble)
	near.rollback(near.first())
	c.mustSync()
	if got := c.chained(1, noble); got != "20250717 upstream of upstream, 20250718 upstream of upstream" {
		t.Errorf("noble, rolled back: %s", got)
	}
	if n := len(c.volumes()); n > 2 {
		t.Errorf("custody volumes %q", c.volumes())
	}
}

// What a hold or a file that cannot be had leaves out at the downstream site, its own versions of before take the place of, by the
// documents of then.
func TestCustodyOverHTTPInPart(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.redefine(func(st *mirror.Stream) { st.MaxVersions = 1 })
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b)
	c.mustSync()
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	c.redefine(func(st *mirror.Stream) { st.Hold = []string{"release=noble version_name=20250719"} })
	c.mustSyncPlain()
	if got := c.chained(1, noble); got != "20250718 evidence of upstream" {
		t.Errorf("noble, held: %s", got)
	}
	c.redefine(func(st *mirror.Stream) { st.Hold = nil })
	b.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "20250719/squashfs") {
			return false
		}
		http.NotFound(w, r)
		return true
	})
	if res, err := c.sync(); err != nil || len(res.LeftOut) == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := c.chained(1, noble); got != "20250718 evidence of upstream" {
		t.Errorf("noble, in part: %s", got)
	}
	b.answer(nil)
	c.mustSync()
	if got := c.chained(1, noble); got != "20250719 upstream of upstream" || len(c.volumes()) != 1 {
		t.Errorf("noble, whole: %s, by %q", got, c.volumes())
	}
}

// Who signs the volume need not be who signs the documents: of a site that imports, another does. Its key is trusted as those of
// bundles are, and the next sync then has the chain: with who handed over before, and it goes on in bundles.
func TestCustodyOfWhatCameByBundle(t *testing.T) {
	t.Parallel()
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	nearKey := keyOf(t, near.m)
	middle := newFarSite(t)
	middle.mustTake(mirror.ImportOptions{TrustFingerprint: nearKey.Fingerprint()}, near.export(mirror.ExportOptions{})...)
	b := hand(t, middle.store, middle.m)
	if b.custodian.Offers() {
		t.Error("a site without a key offers custody")
	}
	if _, err := b.custodian.Volume(t.Context(), stable, current(t, middle.store, stable)); !errors.Is(err, mirror.ErrNoCustody) {
		t.Errorf("without a key: %v", err)
	}
	middleKey := b.key()
	c := newDownstream(t, b)
	c.define(b.url, nearKey.Public())
	if res, err := c.sync(); err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "`oxbow key import`") {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := c.m.TrustKeys(middleKey); err != nil {
		t.Fatal(err)
	}
	c.mustSync()
	c.chained(1, noble)
	h := c.vouched().HandedOn[0]
	if len(h.Handovers) != 2 || h.Handovers[0].Site != nearKey.Fingerprint() || !h.Handovers[0].Proven {
		t.Errorf("handovers %+v", h.Handovers)
	}

	// The bundle of the last site has it all, and who has upstream's own key asks for no other.
	volumes := c.export(mirror.ExportOptions{})
	for _, keyring := range [][]byte{nil, near.stream.Keyring} {
		in, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "a", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{Files: true, Keyring: keyring})
		if err != nil {
			t.Fatal(err)
		}
		if len(in.Faults) > 0 {
			t.Errorf("faults %q", in.Faults)
		}
		for _, v := range in.Streams[0].Custody.Versions {
			if v.Origin == nil || v.Origin.Given != (keyring != nil) || v.Document.Foreign != (keyring != nil) || v.Document.Signed == nil || v.Document.Signed.Fingerprint != nearKey.Fingerprint() {
				t.Errorf("%s %s: %+v of %+v", v.Product, v.Version, v.Document, v.Origin)
			}
		}
	}
	cKey := keyOf(t, c.m)
	far := newFarSite(t)
	if _, err := far.take(mirror.ImportOptions{TrustFingerprint: cKey.Fingerprint(), Keyring: streamstest.NewTree().Keyring()}, volumes...); !errors.Is(err, mirror.ErrVouched) {
		t.Errorf("by another key: %v", err)
	}
	far.mustTake(mirror.ImportOptions{TrustFingerprint: cKey.Fingerprint(), Keyring: near.stream.Keyring}, volumes...)
}

// By the keys that came along, or by those of the reader: the one is told from the other, and what no key signed that was asked for is a
// fault.
func TestCustodyByOriginsKey(t *testing.T) {
	t.Parallel()
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	c := newDownstream(t, hand(t, near.store, near.m))
	c.mustSync()
	man := c.manifest()
	trace := func(keyring []byte) *mirror.Custody {
		custody, err := mirror.TraceCustody(c.store.Files(), man, mirror.Stream{Name: stable, Keyring: keyring}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return custody
	}
	for _, v := range c.vouched().Versions {
		if v.Origin.Given || v.Document.Foreign {
			t.Errorf("%s %s: %+v of %+v", v.Product, v.Version, v.Document, v.Origin)
		}
	}
	given := trace(near.stream.Keyring)
	for _, v := range given.Versions {
		if v.Origin == nil || !v.Origin.Given || !v.Document.Foreign {
			t.Errorf("%s %s: %+v of %+v", v.Product, v.Version, v.Document, v.Origin)
		}
	}
	if len(given.Faults) > 0 || len(given.Versions) == 0 {
		t.Errorf("%d versions, faults %q", len(given.Versions), given.Faults)
	}
	if stranger := trace(streamstest.NewTree().Keyring()); len(stranger.Faults) < len(given.Versions) {
		t.Errorf("by another key: faults %q", stranger.Faults)
	}
}

// Where upstream gives other sums than SHA-256, or signs nothing, the chain says what there is to say.
func TestCustodyOverHTTPOfOthers(t *testing.T) {
	t.Parallel()
	near := newSite(t, streamstest.Plain(streamstest.PlainShape{}))
	near.mustSyncPlain()
	c := newDownstream(t, hand(t, near.store, near.m))
	c.mustSyncPlain()
	c.chained(1, noble)

	tree := oneProduct()
	tree.Key = nil
	open := newSite(t, tree)
	open.redefine(func(st *mirror.Stream) { st.AllowUnsigned, st.Keyring = true, nil })
	open.mustSync()
	c = newDownstream(t, hand(t, open.store, open.m))
	c.mustSync()
	for _, v := range c.vouched().Versions {
		if v.Origin == nil || v.Origin.Signed != nil || v.Origin.Given {
			t.Errorf("%s: %+v", v.Version, v.Origin)
		}
	}
	custody, err := mirror.TraceCustody(c.store.Files(), c.manifest(), mirror.Stream{Name: stable, Keyring: near.stream.Keyring}, time.Now())
	if err != nil || len(custody.Faults) < 2 {
		t.Errorf("by a keyring: %+v, %v", custody, err)
	}
}
