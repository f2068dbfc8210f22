package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// blobFile is where the store keeps a blob.
func (s *site) blobFile(d cache.Digest) string {
	return filepath.Join(s.store.Files().Dir(), "blobs/sha256", d.String()[:2], d.String())
}

// harm changes a byte of a blob, and returns what it was.
func (s *site) harm(e cache.Entry) (was []byte) {
	s.t.Helper()
	was, err := os.ReadFile(s.blobFile(e.Digest))
	if err != nil {
		s.t.Fatal(err)
	}
	bad := bytes.Clone(was)
	bad[len(bad)/2] ^= 1
	s.overwrite(e.Digest, bad)
	return was
}

func (s *site) overwrite(d cache.Digest, data []byte) {
	s.t.Helper()
	if err := os.Remove(s.blobFile(d)); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.blobFile(d), data, 0o444); err != nil {
		s.t.Fatal(err)
	}
}

// entry returns the first entry of a snapshot that is of a kind and whose path contains part.
func (s *site) entry(id cache.Digest, kind cache.Kind, part string) cache.Entry {
	s.t.Helper()
	man, err := s.store.Manifest(stable, id)
	if err != nil {
		s.t.Fatal(err)
	}
	i := slices.IndexFunc(man.Entries, func(e cache.Entry) bool { return e.Kind == kind && strings.Contains(e.Path, part) })
	if i < 0 {
		s.t.Fatalf("snapshot %v has no %s with %q in its path", id, kind, part)
	}
	return man.Entries[i]
}

// repair checks the store deeply and repairs it.
func (s *site) repair() *mirror.Repaired {
	s.t.Helper()
	report, err := s.store.Check(s.t.Context(), cache.CheckOptions{Deep: true})
	if err != nil {
		s.t.Fatal(err)
	}
	told := 0
	res, err := s.m.Repair(s.t.Context(), report, mirror.RepairOptions{Mended: func(mirror.Mended) { told++ }})
	if err != nil {
		s.t.Fatal(err)
	}
	if told != len(res.Mended) {
		s.t.Errorf("told of %d blobs, mended %d", told, len(res.Mended))
	}
	return res
}

// wantRepaired says which paths were mended and which are left, in any order.
func (s *site) wantRepaired(res *mirror.Repaired, mended, left []string) {
	s.t.Helper()
	var gotMended, gotLeft []string
	for _, m := range res.Mended {
		gotMended = append(gotMended, m.Path)
	}
	for _, l := range res.Left {
		gotLeft = append(gotLeft, l.Hurts[0].Path)
	}
	for _, list := range [][]string{gotMended, gotLeft, mended, left} {
		slices.Sort(list)
	}
	if !slices.Equal(gotMended, mended) || !slices.Equal(gotLeft, left) {
		s.t.Errorf("mended %q, left %q (%v), want %q and %q", gotMended, gotLeft, res.Reasons, mended, left)
	}
}

// Files and documents of upstream's that are damaged, cut off or gone are fetched again, those and nothing else, also where only
// an older snapshot names them; what is whole after all is left as it is.
func TestRepair(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, _ := s.days(tree, 2)
	noble := s.entry(ids[1], cache.KindItem, "noble")
	kernel := s.entry(ids[1], cache.KindItem, "boot-kernel")
	loader := s.entry(ids[1], cache.KindItem, "bootloaders")
	index := s.entry(ids[1], cache.KindUpstream, "index.sjson")
	s.harm(noble)
	s.harm(index)
	s.overwrite(kernel.Digest, []byte("short"))
	if err := os.Remove(s.blobFile(loader.Digest)); err != nil {
		t.Fatal(err)
	}
	s.upstream.Reset()
	s.wantRepaired(s.repair(), []string{noble.Path, kernel.Path, loader.Path, index.Path}, nil)
	if n := len(s.upstream.Requests()); n != 4 {
		t.Errorf("upstream was asked %d times: %v", n, s.upstream.Requests())
	}
	if got := current(t, s.store, stable); got != ids[1] {
		t.Errorf("snapshot %v was published", got)
	}
	s.whole()
	if err := s.store.Doubt(noble.Digest); err != nil {
		t.Fatal(err)
	}
	s.upstream.Reset()
	if res, err := s.m.Repair(t.Context(), &cache.Report{Problems: []cache.Problem{{Kind: cache.MissingBlob, Digest: noble.Digest, Stream: stable}}}, mirror.RepairOptions{}); err != nil || len(res.Mended) != 1 || len(s.upstream.Requests()) > 0 {
		t.Errorf("of a whole one: %+v, %v", res, err)
	}
}

// Metadata of the site's own that is damaged is made anew by a sync, so that what is current is whole; the old snapshot, which
// lacks it for good, is listed.
func TestRepairPublishesAnew(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.mustSync()
	old := current(t, s.store, stable)
	e := s.entry(old, cache.KindSite, "index.sjson")
	was := s.harm(e)
	later := time.Now().Add(2 * time.Second)
	s.m = mirror.New(mirror.Options{Store: s.store, Client: newClient(t), Now: func() time.Time { return later }})
	res := s.repair()
	s.wantRepaired(res, nil, []string{e.Path})
	if got := current(t, s.store, stable); got == old {
		t.Error("nothing was published")
	}
	if hurts := res.Left[0].Hurts; len(hurts) != 1 || hurts[0].Current || hurts[0].Snapshot != old {
		t.Errorf("it hurts %v", hurts)
	}
	s.whole()
	s.take(e, was)
}

// Metadata of the site's own that a sync makes again as it was, both forms of which were lost, is in the old snapshot's place again.
func TestRepairMakesTheSame(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	now := time.Now()
	s.m = mirror.New(mirror.Options{Store: s.store, Client: newClient(t), Now: func() time.Time { return now }})
	s.mustSync()
	old := current(t, s.store, stable)
	signed, text := s.entry(old, cache.KindSite, "index.sjson"), s.entry(old, cache.KindSite, "v1/index.json")
	s.harm(signed)
	s.harm(text)
	s.wantRepaired(s.repair(), []string{signed.Path, text.Path}, nil)
	if got := current(t, s.store, stable); got != old {
		t.Errorf("snapshot %v was published", got)
	}
	s.whole()
}

// take puts back what cannot be repaired, so that the store is sound at the end of the test.
func (s *site) take(e cache.Entry, data []byte) {
	s.t.Helper()
	_, err := s.store.Take(s.t.Context(), cache.Want{SHA256: e.Digest, Size: e.Size}, bytes.NewReader(data))
	if err == nil {
		err = s.store.Flush(s.t.Context())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// What upstream no longer has is listed by all that it hurts: snapshots, product and version. The rest is repaired all the same.
func TestRepairLeaves(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, _ := s.days(tree, 3)
	gone := s.entry(ids[0], cache.KindItem, "noble/amd64/20250717/ga-24.04")
	here := s.entry(ids[2], cache.KindItem, "noble/amd64/20250720/ga-24.04")
	was := s.harm(gone)
	s.harm(here)
	res := s.repair()
	s.wantRepaired(res, []string{here.Path}, []string{gone.Path})
	want := fmt.Sprintf("stream stable, snapshot %.12s, product com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04, version 20250717, path %s", ids[0], gone.Path)
	if got := res.Left[0]; len(got.Hurts) != 1 || got.Hurts[0].String() != want || !strings.Contains(got.Reason, "404") {
		t.Errorf("left %+v\nwant %s", got, want)
	}
	s.wantFaults(cache.DamagedBlob)
	s.take(gone, was)
}

func (s *site) wantFaults(want ...cache.ProblemKind) {
	s.t.Helper()
	report, err := s.store.Check(s.t.Context(), cache.CheckOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	var got []cache.ProblemKind
	for _, p := range report.Problems {
		got = append(got, p.Kind)
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("faults %q, want %q", got, want)
	}
}

// An index that lacks something is made anew, a current that makes no sense too; a damaged manifest of what is current is followed by
// a new snapshot of the same, and is nothing that is kept then.
func TestRepairOthers(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, versions := s.days(tree, 2)
	currentFile := filepath.Join(s.store.Files().Dir(), "current", stable)
	if err := os.WriteFile(currentFile, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if res := s.repair(); !res.OK() {
		t.Errorf("left %+v, %v", res.Left, res.Faults)
	}
	s.wantFaults()
	if got := current(t, s.store, stable); got != ids[1] {
		t.Errorf("current is %v", got)
	}
	manifest := filepath.Join(s.store.Files().Dir(), "snapshots", stable, ids[1].String())
	was, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, was[:len(was)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	res := s.repair()
	if got := current(t, s.store, stable); got == ids[0] || !res.OK() {
		t.Errorf("current is %v, left %v", got, res.Faults)
	}
	s.wantFaults()
	if got := s.versions(); !slices.Equal(got, versions[1]) {
		t.Errorf("published are %q, want %q", got, versions[1])
	}
	if err := os.WriteFile(manifest, was, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Where upstream must not be asked, what is left says so; where a rollback holds the stream, so do the reasons.
func TestRepairOffline(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	ids, _ := s.days(tree, 2)
	s.rollback(ids[0])
	now := current(t, s.store, stable)
	doc := s.entry(now, cache.KindSite, "index.json")
	item := s.entry(now, cache.KindItem, "noble/amd64/20250718/ga-24.04")
	was := s.harm(doc)
	s.harm(item)
	s.redefine(func(st *mirror.Stream) { st.Offline = true })
	res := s.repair()
	s.wantRepaired(res, nil, []string{doc.Path, item.Path})
	for _, l := range res.Left {
		if l.Hurts[0].Path == item.Path && !strings.Contains(l.Reason, "offline") {
			t.Errorf("the reason is %q", l.Reason)
		}
	}
	s.redefine(func(st *mirror.Stream) { st.Offline = false })
	res = s.repair()
	s.wantRepaired(res, []string{item.Path}, []string{doc.Path})
	if len(res.Reasons) != 1 || !strings.Contains(res.Reasons[0], "--resume") {
		t.Errorf("reasons %q", res.Reasons)
	}
	s.take(doc, was)
}

// A repair that is interrupted says so, and can be done again.
func TestRepairInterrupted(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.mustSync()
	e := s.entry(current(t, s.store, stable), cache.KindItem, "noble")
	s.harm(e)
	report, err := s.store.Check(t.Context(), cache.CheckOptions{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.m.Repair(ctx, report, mirror.RepairOptions{}); err == nil {
		t.Error("no error")
	}
	s.wantRepaired(s.repair(), []string{e.Path}, nil)
}

// What upstream dropped stays published though one of the documents is lost that clients read: its other form says the same. The
// snapshot that takes the place of the damaged one is whole.
func TestVanishedStaysThoughADocumentIsDamaged(t *testing.T) {
	for _, path := range []string{"index.json", "index.json.gpg", "index.sjson", "v3:download.json", "v3:download.json.gpg", "v3:download.sjson"} {
		t.Run(path, func(t *testing.T) {
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			s.mustSync()
			tree.Drop("com.ubuntu.maas.stable:centos-bases:8:amd64")
			tree.Drop("com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04")
			s.upstream.Publish(tree)
			s.mustSync()
			before := s.versions()
			e := s.entry(current(t, s.store, stable), cache.KindSite, path)
			was := s.harm(e)
			for _, left := range s.repair().Left {
				if slices.ContainsFunc(left.Hurts, func(h mirror.Hurt) bool { return h.Current }) {
					t.Errorf("the current snapshot is not whole: %v", left)
				}
			}
			if now := s.versions(); !slices.Equal(now, before) {
				t.Errorf("published %q, not %q", now, before)
			}
			s.overwrite(e.Digest, was) // for the older snapshot
			s.repair()
		})
	}
}
