package mirror_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// Without a selection everything upstream lists is published.
func TestSyncAll(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	res := s.mustSync()
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("published versions (-upstream +site):\n%s", diff)
	}
	if !res.Changed || res.Fetched.Bytes != tree.Size() {
		t.Errorf("fetched %d bytes, upstream has %d", res.Fetched.Bytes, tree.Size())
	}
	for path := range tree.Files() {
		if n := s.upstream.Hits(path); n != 1 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
}

// A selection brings what it names, and the boot loaders that MAAS asks for
// whatever was selected; not the fifth one.
func TestSyncSelection(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{Notifications: true}))
	s.redefine(func(st *mirror.Stream) {
		st.Select = []string{"os=ubuntu release~(noble|mantic) subarch=ga-24.04 arch=amd64", "os=centos"}
		st.MaxVersions = 1
	})
	s.mustSync()
	want := []string{
		"com.ubuntu.maas.stable:1:grub-efi-signed:uefi:amd64 20250718.0",
		"com.ubuntu.maas.stable:1:grub-efi:uefi:arm64 20250718.0",
		"com.ubuntu.maas.stable:1:grub-ieee1275:open-firmware:ppc64el 20250718.0",
		"com.ubuntu.maas.stable:1:pxelinux:pxe:i386 20250718.0",
		"com.ubuntu.maas.stable:centos-bases:8:amd64 20250718_01",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250718",
	}
	if diff := cmp.Diff(want, s.versions()); diff != "" {
		t.Errorf("published versions (-want +got):\n%s", diff)
	}
}

// A version that MAAS would refuse does not count towards the number to keep.
func TestSyncRefusedVersion(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{NoBootloaders: true, CentOS: []string{}, Kernels: []string{"ga"}, Releases: []string{"noble"}})
	newest := tree.Lists[0].Products[0].Versions[1]
	newest.Items = slices.DeleteFunc(newest.Items, func(it *streamstest.Item) bool { return it.Name == "manifest" })
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.MaxVersions = 1 })
	res, err := s.sync()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250717"}, s.versions()); diff != "" {
		t.Errorf("published versions (-want +got):\n%s", diff)
	}
	if len(res.LeftOut) != 1 || res.LeftOut[0].Version != "20250718" || !strings.Contains(res.LeftOut[0].Reason, "manifest") {
		t.Errorf("left out %q", res.LeftOut)
	}
}

// A sync after a complete one asks upstream one conditional question, and
// when nothing is new writes nothing.
func TestSyncNothingNew(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	first := s.mustSync()
	s.upstream.Reset()
	before := s.files()
	res := s.mustSync()
	if res.Changed || res.Snapshot != first.Snapshot {
		t.Errorf("second sync: %+v", res)
	}
	requests := s.upstream.Requests()
	if len(requests) != 1 || requests[0].IfNoneMatch == "" || s.upstream.TotalBytes() != 0 {
		t.Errorf("requests of the second sync: %+v", requests)
	}
	if diff := cmp.Diff(before, s.files()); diff != "" {
		t.Errorf("files of the store (-before +after):\n%s", diff)
	}
}

// A snapshot that is lost is published anew, though upstream has nothing new: until then the one before it is served.
func TestSyncAfterALostSnapshot(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	first := s.mustSync()
	tree = tree.Clone()
	tree.AddDay()
	s.upstream.Publish(tree)
	second := s.mustSync()
	if err := os.Truncate(filepath.Join(s.store.Files().Dir(), "snapshots", stable, second.Snapshot), 100); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if current, err := s.store.Current(stable); err != nil || current.ID.String() != first.Snapshot {
		t.Fatalf("current is %v (%v), want the first snapshot", current.ID, err)
	}
	if third := s.mustSync(); !third.Changed || third.Fetched.Files != 0 {
		t.Errorf("the sync after that: %+v", third)
	}
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("published versions (-upstream +site):\n%s", diff)
	}
	s.upstream.Reset()
	if s.mustSync(); len(s.upstream.Requests()) != 1 {
		t.Errorf("requests of the next sync: %+v", s.upstream.Requests())
	}
}

// When upstream's metadata is new but not what is selected of it, clients keep
// the index they know: its date moves with content only.
func TestSyncUnselectedNews(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Select = []string{"release=noble"} })
	s.mustSync()
	before := readPath(t, s.store, stable, "streams/v1/index.sjson")
	tree = tree.Clone()
	tree.Drop("com.ubuntu.maas.stable:centos-bases:8:amd64")
	s.upstream.Publish(tree)
	s.mustSync()
	if diff := cmp.Diff(string(before), string(readPath(t, s.store, stable, "streams/v1/index.sjson"))); diff != "" {
		t.Errorf("index (-before +after):\n%s", diff)
	}
}

// A new day is fetched without what is there already; the previous day's
// snapshot stays its parent, and its documents stay readable.
func TestSyncNewDay(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	first := s.mustSync()
	s.upstream.Reset()
	tree = tree.Clone()
	added := tree.AddDay()
	tree.Trim(2)
	s.upstream.Publish(tree)
	second := s.mustSync()
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("published versions (-upstream +site):\n%s", diff)
	}
	if second.Fetched.Files != len(added) {
		t.Errorf("fetched %d files, %d are new", second.Fetched.Files, len(added))
	}
	snap, err := s.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	if snap.Parent.String() != first.Snapshot {
		t.Errorf("parent is %v, want %s", snap.Parent, first.Snapshot)
	}
	if len(readPath(t, s.store, stable, "noble/amd64/20250717/squashfs")) == 0 {
		t.Error("a file of the superseded snapshot is gone")
	}
}

const nobleRoot = "noble/amd64/20250719/squashfs"

// Whatever goes wrong upstream on a new day, the site stays whole, says what is
// wrong, and is right again after the next sync of a healthy upstream.
func TestSyncFaults(t *testing.T) {
	// noble has two kernels that share the root image.
	missesNoble := func(versions []string) bool {
		return !slices.ContainsFunc(versions, func(v string) bool { return strings.Contains(v, ":24.04:") && strings.HasSuffix(v, " 20250719") }) &&
			slices.Contains(versions, "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250718") &&
			slices.Contains(versions, "com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04 20250719")
	}
	for _, test := range []struct {
		summary string
		fault   func(*http.Request) streamstest.Fault
		change  func(s *site, tree *streamstest.Tree)
		err     error                        // the sync fails with it, and what was published stays
		text    string                       // in the error or the reason of what is left out
		partial func(versions []string) bool // else the sync leaves something out, and this holds
	}{
		{summary: "a byte of a file is flipped", fault: streamstest.At(nobleRoot, streamstest.Fault{FlipAt: 100}), partial: missesNoble, text: "sha256"},
		{summary: "a file is cut every time", fault: streamstest.At(nobleRoot, streamstest.Fault{CutAfter: -1}), partial: missesNoble, text: nobleRoot},
		{summary: "a file is announced longer than it is", fault: streamstest.At(nobleRoot, streamstest.Fault{WrongLength: 10}), partial: missesNoble, text: nobleRoot},
		{summary: "a file is announced shorter than it is", fault: streamstest.At(nobleRoot, streamstest.Fault{WrongLength: -10}), partial: missesNoble, text: nobleRoot},
		{summary: "a file is longer than declared", fault: streamstest.At(nobleRoot, streamstest.Fault{Extra: 10}), partial: missesNoble, text: nobleRoot},
		{summary: "a file is 503 for ever", fault: streamstest.At(nobleRoot, streamstest.Fault{Status: 503}), partial: missesNoble, text: "503"},
		{summary: "a file is 503 once", fault: streamstest.InTurn(nobleRoot, streamstest.Fault{Status: 503})},
		{summary: "a file is cut once", fault: streamstest.InTurn(nobleRoot, streamstest.Fault{CutAfter: 1000})},
		{summary: "a file is wrong once", fault: streamstest.InTurn(nobleRoot, streamstest.Fault{CutAfter: 1000}, streamstest.Fault{FlipAt: 2000})},
		{summary: "a file hangs once", fault: streamstest.InTurn(nobleRoot, streamstest.Fault{HangAfter: 1000})},
		{summary: "ranges are ignored", fault: streamstest.InTurn(nobleRoot, streamstest.Fault{CutAfter: 1000}, streamstest.Fault{NoRange: true})},
		{summary: "a file is 404", fault: streamstest.At(nobleRoot, streamstest.Fault{Status: 404}), partial: missesNoble, text: "404"},
		{summary: "a file hangs for ever", fault: streamstest.At(nobleRoot, streamstest.Fault{Hang: true}), partial: missesNoble, text: nobleRoot},
		{summary: "all files are gone", fault: func(r *http.Request) streamstest.Fault {
			if strings.Contains(r.URL.Path, "streams/v1") {
				return streamstest.Fault{}
			}
			return streamstest.Fault{Status: 500}
		}, partial: func(versions []string) bool {
			return !slices.ContainsFunc(versions, func(v string) bool { return strings.Contains(v, "20250719") })
		}, text: "500"},
		{summary: "a byte of a list is flipped", fault: streamstest.At("v3:download.sjson", streamstest.Fault{FlipAt: 500}), err: mirror.ErrVerification, text: "v3:download.sjson"},
		{summary: "a byte of the index is flipped", fault: streamstest.At("index.sjson", streamstest.Fault{FlipAt: 200}), err: mirror.ErrVerification, text: "index.sjson"},
		{summary: "the index is unsigned", fault: streamstest.At("index.sjson", streamstest.Fault{Unsigned: true}), err: streams.ErrUnsigned, text: "not signed"},
		{summary: "a list is unsigned", fault: streamstest.At("v3:download.sjson", streamstest.Fault{Unsigned: true}), err: streams.ErrUnsigned, text: "not signed"},
		{summary: "upstream signs with another key", change: func(_ *site, tree *streamstest.Tree) { tree.Key = streamstest.NewTree().Key }, err: streams.ErrUnknownKey, text: "index.sjson"},
		{summary: "the index is older", change: func(_ *site, tree *streamstest.Tree) { tree.Updated = streamstest.Epoch.Add(-time.Hour) }, err: mirror.ErrVerification, text: "--allow-older"},
		{summary: "the index is dated ahead", change: func(_ *site, tree *streamstest.Tree) { tree.Updated = time.Now().Add(25 * time.Hour) }, err: mirror.ErrVerification, text: "more than a day ahead"},
		{summary: "a list is dated ahead", change: func(_ *site, tree *streamstest.Tree) { tree.Lists[0].Updated = time.Now().Add(26 * time.Hour) }, err: mirror.ErrVerification, text: "more than a day ahead"},
		{summary: "a list is older", change: func(_ *site, tree *streamstest.Tree) { tree.Lists[0].Updated = streamstest.Epoch.Add(-2 * time.Hour) }, err: mirror.ErrVerification, text: "--allow-older"},
		{summary: "the index hangs", fault: streamstest.At("index.sjson", streamstest.Fault{Hang: true}), err: upstream.ErrUpstream, text: "index.sjson"},
		{summary: "a list is missing", fault: streamstest.At("v3:download.sjson", streamstest.Fault{Status: 404}), err: upstream.ErrNotFound, text: "404"},
		{summary: "the index is no JSON", fault: streamstest.At("index.sjson", streamstest.Fault{Body: []byte("<html>captive portal</html>")}), err: streams.ErrUnsigned, text: "index.sjson"},
		{summary: "the selection matches nothing", change: func(s *site, _ *streamstest.Tree) {
			s.redefine(func(st *mirror.Stream) { st.Select, st.NoBootloaders = []string{"release=warty"}, true })
		}, err: mirror.ErrNothing, text: "selection"},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			s.mustSync()
			before, id := s.versions(), current(t, s.store, stable)

			next := tree.Clone()
			next.AddDay()
			good := next.Clone()
			if test.change != nil {
				test.change(s, next)
			}
			s.upstream.Publish(next)
			s.upstream.SetFault(test.fault)
			res, err := s.sync()

			text := ""
			switch {
			case test.err != nil:
				if !errors.Is(err, test.err) {
					t.Errorf("sync: %v, want %v", err, test.err)
				}
				if err != nil {
					text = err.Error()
				}
				if diff := cmp.Diff(before, s.versions()); diff != "" || current(t, s.store, stable) != id {
					t.Errorf("what was published has changed (-before +after):\n%s", diff)
				}
			case err != nil:
				t.Fatal(err)
			case test.partial != nil:
				if len(res.LeftOut) == 0 || !test.partial(s.versions()) {
					t.Errorf("left out %v, published %q", res.LeftOut, s.versions())
				}
				for _, o := range res.LeftOut {
					text += o.String() + "\n"
				}
			default:
				if len(res.LeftOut) > 0 {
					t.Errorf("left out %v", res.LeftOut)
				}
			}
			if !strings.Contains(text, test.text) {
				t.Errorf("text %q does not name %q", text, test.text)
			}

			s.upstream.SetFault(nil)
			s.upstream.Publish(good)
			s.redefine(func(st *mirror.Stream) { st.Select, st.NoBootloaders = nil, false })
			s.mustSync()
			if diff := cmp.Diff(treeVersions(good), s.versions()); diff != "" {
				t.Errorf("after healing (-upstream +site):\n%s", diff)
			}
		})
	}
}

// Upstream publishes a new day, and withdraws the oldest, while a sync runs:
// the sync ends with the new day.
func TestSyncUpstreamMovesOn(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	next := tree.Clone()
	next.AddDay()
	next.Trim(2)
	s.upstream.PublishAt("noble/amd64/20250717/squashfs", 1, next)
	s.mustSync()
	if diff := cmp.Diff(treeVersions(next), s.versions()); diff != "" {
		t.Errorf("published versions (-upstream +site):\n%s", diff)
	}
}

// A product that vanishes upstream stays published, with the signed list that
// vouches for it.
func TestSyncVanished(t *testing.T) {
	for _, vanish := range []struct {
		summary string
		change  func(*streamstest.Tree)
	}{
		{"from its list", func(tree *streamstest.Tree) { tree.Drop("com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04") }},
		{"with its list", func(tree *streamstest.Tree) { tree.DropList("com.ubuntu.maas:stable:centos-bases-download") }},
	} {
		t.Run(vanish.summary, func(t *testing.T) {
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			s.mustSync()
			before := s.versions()
			tree = tree.Clone()
			vanish.change(tree)
			for range 3 {
				s.upstream.Publish(tree)
				s.mustSync()
				if diff := cmp.Diff(before, s.versions()); diff != "" {
					t.Fatalf("published versions (-before +after):\n%s", diff)
				}
				tree = tree.Clone()
				tree.Touch()
			}
			man, err := s.store.Manifest(stable, current(t, s.store, stable))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(man.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindEvidence }) {
				t.Error("no evidence is kept for what vanished")
			}
			for _, v := range before {
				if product, _, _ := strings.Cut(v, " "); !slices.Contains(treeVersions(tree), v) {
					if _, err := s.m.DropProduct(t.Context(), stable, product); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.mustSync()
			if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
				t.Errorf("after the drop (-upstream +site):\n%s", diff)
			}
			s.upstream.Reset()
			s.mustSync()
			if n := len(s.upstream.Requests()); n != 1 {
				t.Errorf("the next sync asks upstream %d times", n)
			}
		})
	}
}

// A product that upstream has is not dropped, now or when it vanishes later; one that nobody publishes, and one of a stream that
// passes on all that upstream lists, cannot be.
func TestDropProductRefused(t *testing.T) {
	const jammy = "com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04"
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.mustSync()
	before := s.versions()
	if _, err := s.m.DropProduct(t.Context(), stable, jammy); err != nil {
		t.Fatal(err)
	}
	if res, err := s.sync(); err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], jammy+" was to be dropped and stays") {
		t.Errorf("%+v, %v", res, err)
	}
	tree = tree.Clone()
	tree.Drop(jammy)
	s.upstream.Publish(tree)
	s.mustSync()
	if diff := cmp.Diff(before, s.versions()); diff != "" {
		t.Errorf("published versions (-before +after):\n%s", diff)
	}
	if _, err := s.m.DropProduct(t.Context(), stable, "absent"); !errors.Is(err, mirror.ErrNoProduct) {
		t.Errorf("of no product: %v", err)
	}
	if _, err := s.m.DropProduct(t.Context(), "absent", jammy); !errors.Is(err, mirror.ErrNoStream) {
		t.Errorf("of no stream: %v", err)
	}
	s.redefine(func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll })
	if _, err := s.m.DropProduct(t.Context(), stable, jammy); err == nil || !strings.Contains(err.Error(), "passes on all") {
		t.Errorf("of a stream that advertises all: %v", err)
	}
}

// --allow-older goes back with upstream.
func TestSyncAllowOlder(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	newer := tree.Clone()
	newer.AddDay()
	s := newSite(t, newer)
	s.mustSync()
	s.upstream.Publish(tree)
	if _, err := s.sync(); !errors.Is(err, mirror.ErrVerification) {
		t.Fatalf("older metadata: %v", err)
	}
	if _, err := s.m.Sync(t.Context(), stable, mirror.SyncOptions{AllowOlder: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("published versions (-upstream +site):\n%s", diff)
	}
}

// Unsigned metadata is taken only where the definition says so.
func TestSyncUnsigned(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	keyring := tree.Keyring()
	tree.Key = nil
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Keyring = keyring })
	if _, err := s.sync(); !errors.Is(err, upstream.ErrNotFound) || !strings.Contains(err.Error(), "--allow-unsigned") {
		t.Errorf("unsigned tree: %v", err)
	}
	s.redefine(func(st *mirror.Stream) { st.AllowUnsigned, st.Keyring = true, nil })
	s.mustSync()
}

// Streams of one store share what they have in common.
func TestSyncTwoStreams(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.mustSync()
	s.upstream.Reset()
	second := s.stream
	second.Name, second.Path, second.Also = "candidate", "/ephemeral-v3/candidate/", nil
	if err := s.m.Define(second); err != nil {
		t.Fatal(err)
	}
	res, err := s.m.Sync(t.Context(), "candidate", mirror.SyncOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Fetched.Files != 0 || res.Items == 0 {
		t.Errorf("fetched %+v for %d items that the store has", res.Fetched, res.Items)
	}
}

// A second upstream serves when the first is down, and is skipped when it is behind.
func TestSyncSecondUpstream(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	newer := tree.Clone()
	newer.AddDay()
	s := newSite(t, newer)
	behind := newSite(t, tree)
	if err := s.store.RemoveState(stable); err != nil {
		t.Fatal(err)
	}
	s.redefine(func(st *mirror.Stream) { st.Upstream = []string{behind.url, s.url} })
	s.mustSync()
	if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
		t.Errorf("first sync (-first upstream +site):\n%s", diff)
	}
	behind.upstream.SetFault(func(*http.Request) streamstest.Fault { return streamstest.Fault{Status: 404} })
	s.mustSync()
	if diff := cmp.Diff(treeVersions(newer), s.versions()); diff != "" {
		t.Errorf("with the first down (-second upstream +site):\n%s", diff)
	}
	behind.upstream.SetFault(nil)
	s.mustSync()
	if diff := cmp.Diff(treeVersions(newer), s.versions()); diff != "" {
		t.Errorf("with the first behind (-second upstream +site):\n%s", diff)
	}
}

// With a new signing key the next sync signs everything again. The old key
// stays in the keyring, for what it has signed.
func TestSyncNewKey(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.mustSync()
	old := readPath(t, s.store, stable, "streams/v1/index.sjson")
	if _, err := s.m.GenerateKey(streams.Ed25519, false); !errors.Is(err, mirror.ErrKeyExists) {
		t.Errorf("a second key without being told to replace: %v", err)
	}
	if _, err := s.m.GenerateKey(streams.Ed25519, true); err != nil {
		t.Fatal(err)
	}
	if res := s.mustSync(); !res.Changed || res.Fetched.Files != 0 {
		t.Errorf("sync after a new key: %+v", res)
	}
	data, err := mirror.Keyring(s.store.Files())
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := streams.ReadKeyring(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range [][]byte{old, readPath(t, s.store, stable, "streams/v1/index.sjson")} {
		if _, err := keyring.Verify(doc, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if len(keyring.Keys()) != 2 {
		t.Errorf("%d keys in the keyring, want the new and the old one", len(keyring.Keys()))
	}
}

// A stream's limit holds for documents and files together, over every connection,
// and ends no sync.
func TestSyncLimit(t *testing.T) {
	s := newSite(t, oneProduct())
	s.redefine(func(st *mirror.Stream) { st.Limit = 400_000 })
	start := time.Now()
	s.mustSync()
	// A tenth of a second's bytes pass at once.
	least := time.Duration(s.upstream.TotalBytes()-40_000) * time.Second / 400_000
	if d := time.Since(start); d < least || least < 100*time.Millisecond {
		t.Errorf("%d bytes came in %v, want %v or more", s.upstream.TotalBytes(), d, least)
	}
}
