package mirror_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

func (s *site) manifest() *cache.Manifest {
	s.t.Helper()
	man, err := s.store.Manifest(stable, current(s.t, s.store, stable))
	if err != nil {
		s.t.Fatal(err)
	}
	return man
}

// trace returns the custody of a snapshot's content by the stream's definition.
func (s *site) trace(man *cache.Manifest) *mirror.Custody {
	s.t.Helper()
	c, err := mirror.TraceCustody(s.store.Files(), man, s.stream, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// vouched fails the test unless the current snapshot itself has a signed document of upstream's for every file that it publishes, and
// its custody says which, who signed it, and when. It returns that.
func (s *site) vouched() *mirror.Custody {
	s.t.Helper()
	man := s.manifest()
	c := s.trace(man)
	if len(c.Faults) > 0 {
		s.t.Errorf("nothing vouches for this:\n%s", strings.Join(c.Faults, "\n"))
	}
	if s.stream.AllowUnsigned {
		return c
	}
	signed, lists := s.signedLists(man)
	named := map[string]bool{}
	for _, l := range lists {
		for _, it := range l.Items() {
			named[fmt.Sprintf("%s %x %d", it.Path, it.SHA256, it.Size)] = true
		}
	}
	for _, e := range man.Entries {
		if (e.Kind == cache.KindItem || e.Kind == cache.KindKnown) && !named[fmt.Sprintf("%s %v %d", e.Path, e.Digest, e.Size)] {
			s.t.Errorf("%s is published, and no signed document names it", e.Path)
		}
	}
	for _, v := range c.Versions {
		doc := v.Document
		if doc == nil || doc.Signed == nil {
			s.t.Errorf("%s %s: %+v", v.Product, v.Version, doc)
			continue
		}
		sig, l := signed[doc.Digest], lists[doc.Digest]
		if l == nil || l.ContentID != v.ContentID || l.Version(v.Product, v.Version) == nil {
			s.t.Errorf("%s %s: %s does not list it", v.Product, v.Version, doc.Path)
			continue
		}
		want := mirror.Signature{Fingerprint: sig.Fingerprint, UserID: sig.SignedBy, Date: sig.Created}
		if *doc.Signed != want || doc.Updated != l.Updated {
			s.t.Errorf("%s: signed %+v, updated %s; want %+v, %s", doc.Path, *doc.Signed, doc.Updated, want, l.Updated)
		}
	}
	return c
}

// signedLists returns the clearsigned lists of upstream's in a snapshot, by their digest.
func (s *site) signedLists(man *cache.Manifest) (map[string]*streams.Signed, map[string]*streams.Products) {
	s.t.Helper()
	keyring, err := streams.ReadKeyring(s.stream.Keyring)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, lists := map[string]*streams.Signed{}, map[string]*streams.Products{}
	for _, e := range man.Entries {
		if e.Kind != cache.KindUpstream && e.Kind != cache.KindEvidence || !strings.HasSuffix(e.Path, ".sjson") {
			continue
		}
		data, err := s.store.Files().ReadFile(e.Digest, 1<<20)
		if err != nil {
			s.t.Fatal(err)
		}
		sig, err := keyring.Verify(data, time.Now())
		if err != nil {
			s.t.Errorf("%s: %v", e.Path, err)
			continue
		}
		if l, err := streams.ParseProducts(sig.Text); err == nil {
			signed[e.Digest.String()], lists[e.Digest.String()] = sig, l
		}
	}
	return signed, lists
}

// kindsOf says of which kind the documents are that vouch for the versions of a product.
func kindsOf(c *mirror.Custody, product string) string {
	var all []string
	for _, v := range c.Versions {
		if v.Product == product {
			all = append(all, fmt.Sprint(v.Version, " ", v.Document.Kind))
		}
	}
	return strings.Join(all, ", ")
}

// Whatever becomes of a stream, a signed document of upstream's is in the snapshot for everything that it publishes: today's, or the
// one of before for what only that lists.
func TestCustody(t *testing.T) {
	const root = "noble/amd64/20250719/squashfs"
	for _, test := range []struct {
		summary string
		define  func(*mirror.Stream)
		days    []func(*site, *streamstest.Tree)
		want    string // of noble
		known   bool   // files may be pulled through
	}{
		{summary: "all of a tree", want: "20250717 upstream, 20250718 upstream"},
		{summary: "the newest version only", define: func(st *mirror.Stream) { st.MaxVersions = 1 }, want: "20250718 upstream"},
		{summary: "the newest of every day", define: func(st *mirror.Stream) { st.MaxVersions = 1 }, days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.AddDay(); tree.Trim(1) },
		}, want: "20250719 upstream"},
		{summary: "a version is left out, and those of before are upstream's no more", days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) {
				tree.AddDay()
				tree.Trim(1)
				tree.Break(root, streamstest.Flipped)
			},
			func(_ *site, tree *streamstest.Tree) { tree.Touch() },
		}, want: "20250717 evidence, 20250718 evidence"},
		{summary: "a version is left out, and one of before is upstream's still", define: func(st *mirror.Stream) { st.MaxVersions = 1 }, days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.AddDay(); tree.Break(root, streamstest.Flipped) },
		}, want: "20250718 upstream"},
		{summary: "a version is another one by the same name, which cannot be had", days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) {
				tree.Resize("noble/amd64/20250718/squashfs", 70000)
				tree.Break("noble/amd64/20250718/squashfs", streamstest.Absent)
			},
		}, want: "20250717 upstream, 20250718 evidence"},
		{summary: "the newest is held back, and upstream drops those of before", define: func(st *mirror.Stream) { st.MaxVersions = 1 }, days: []func(*site, *streamstest.Tree){
			func(s *site, tree *streamstest.Tree) {
				tree.AddDay()
				tree.Trim(1)
				s.redefine(func(st *mirror.Stream) { st.Hold = []string{"release=noble version_name=20250719"} })
			},
		}, want: "20250718 evidence"},
		{summary: "the product is gone for days, while others go on", days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.Drop(noble) },
			func(_ *site, tree *streamstest.Tree) { tree.AddDay() },
			func(_ *site, tree *streamstest.Tree) { tree.AddDay(); tree.Trim(2) },
		}, want: "20250717 evidence, 20250718 evidence"},
		{summary: "the product is gone, and dropped", days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.Drop(noble) },
			func(s *site, _ *streamstest.Tree) {
				if _, err := s.m.DropProduct(s.t.Context(), stable, noble); err != nil {
					s.t.Fatal(err)
				}
			},
		}, want: ""},
		{summary: "the list is gone", days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.DropList("com.ubuntu.maas:stable:v3:download") },
			func(_ *site, tree *streamstest.Tree) { tree.AddDay() },
		}, want: "20250717 evidence, 20250718 evidence"},
		{summary: "all is advertised", define: func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll }, days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.AddDay(); tree.Trim(2) },
		}, want: "20250718 upstream, 20250719 upstream", known: true},
		{summary: "all is advertised, and something is here beforehand", define: func(st *mirror.Stream) {
			st.Advertise, st.Select = mirror.AdvertiseAll, []string{"release=noble"}
		}, days: []func(*site, *streamstest.Tree){
			func(_ *site, tree *streamstest.Tree) { tree.AddDay(); tree.Break(root, streamstest.Absent) },
		}, want: "20250717 upstream, 20250718 upstream, 20250719 upstream", known: true},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			if test.define != nil {
				s.redefine(test.define)
			}
			s.mustSyncPlain()
			first := s.vouched()
			for _, change := range test.days {
				tree = tree.Clone()
				change(s, tree)
				s.upstream.Publish(tree)
				if res, err := s.sync(); err != nil || !res.Changed {
					t.Fatalf("%+v, %v", res, err)
				}
				s.vouched()
			}
			if got := kindsOf(s.vouched(), noble); got != test.want {
				t.Errorf("noble is vouched for: %s, want %s", got, test.want)
			}
			if known := slices.Contains(slices.Collect(maps.Values(s.kinds())), cache.KindKnown); known != test.known {
				t.Errorf("files may be pulled through: %v, want %v", known, test.known)
			}
			if len(test.days) == 0 {
				return
			}
			// What vouched for the first snapshot comes back with it.
			s.rollback(s.first())
			again := s.vouched()
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("rolled back to the first snapshot (-then +now):\n%s", diff)
			}
		})
	}
}

// first returns the oldest kept snapshot.
func (s *site) first() cache.Digest {
	s.t.Helper()
	kept, err := s.store.Files().Snapshots(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	return kept[len(kept)-1].ID
}

// Where upstream gives no SHA-256, the files themselves tell that they are what it signed.
func TestCustodyByOtherSums(t *testing.T) {
	for _, advertise := range []mirror.Advertise{mirror.AdvertiseSelected, mirror.AdvertiseAll} {
		tree := streamstest.Plain(streamstest.PlainShape{})
		s := newSite(t, tree)
		s.redefine(func(st *mirror.Stream) { st.Advertise, st.Select = advertise, []string{"version_name~."} })
		s.mustSyncPlain()
		man := s.manifest()
		if c := s.trace(man); len(c.Faults) > 0 || len(c.Versions) != 1 || c.Versions[0].Files != len(tree.Files()) {
			t.Errorf("%s: %+v", advertise, c)
		}
		var items []int // of which two have a sum that is not the SHA-256
		for i, e := range man.Entries {
			if e.Kind == cache.KindItem {
				items = append(items, i)
			}
		}
		for _, i := range items {
			changed := *man
			changed.Entries = slices.Clone(man.Entries)
			changed.Entries[i].Digest = man.Entries[items[0]].Digest
			if i == items[0] {
				changed.Entries[i].Digest = man.Entries[items[1]].Digest
			}
			if c := s.trace(&changed); len(c.Faults) == 0 {
				t.Errorf("%s: %s has another content and is vouched for", advertise, man.Entries[i].Path)
			}
		}
	}
}

// What nothing vouches for is told, with the reason, and nothing else is.
func TestCustodyFaults(t *testing.T) {
	vanished := func(t *testing.T) *site { // of which evidence vouches for noble
		tree := streamstest.MAAS(streamstest.Shape{Kernels: []string{"ga"}, CentOS: []string{}, NoBootloaders: true})
		s := newSite(t, tree)
		s.mustSync()
		tree.Drop(noble)
		s.upstream.Publish(tree)
		s.mustSync()
		return s
	}
	missing := "no document of upstream's that is here lists it as it is published"
	for _, test := range []struct {
		summary string
		spoil   func(t *testing.T, s *site, man *cache.Manifest)
		faults  map[string]int // by the end of their lines
		nobody  string         // the only product that nothing vouches for; else of all
	}{
		{"the evidence is not there", func(_ *testing.T, _ *site, man *cache.Manifest) {
			man.Entries = slices.DeleteFunc(man.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindEvidence })
		}, map[string]int{missing: 2}, noble},
		{"a file is another one", func(_ *testing.T, _ *site, man *cache.Manifest) {
			for i, e := range man.Entries {
				if strings.HasPrefix(e.Path, "noble/") {
					man.Entries[i].Digest = cache.Sum([]byte(e.Path))
				}
			}
		}, map[string]int{": no document of upstream's that is here names it with the content that it has": 8}, noble},
		{"a file has another size", func(_ *testing.T, _ *site, man *cache.Manifest) {
			i := slices.IndexFunc(man.Entries, func(e cache.Entry) bool { return e.Path == "noble/amd64/20250718/squashfs" })
			man.Entries[i].Size++
		}, map[string]int{"noble/amd64/20250718/squashfs: no document of upstream's that is here names it with the content that it has": 1}, "-"},
		{"the evidence is damaged", func(t *testing.T, s *site, man *cache.Manifest) {
			i := slices.IndexFunc(man.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindEvidence })
			sum := man.Entries[i].Digest.String()
			blob := filepath.Join(s.store.Files().Dir(), "blobs/sha256", sum[:2], sum)
			good, err := os.ReadFile(blob)
			if err != nil {
				t.Fatal(err)
			}
			replace := func(data []byte) {
				if err := os.Remove(blob); err != nil {
					t.Error(err)
				}
				if err := os.WriteFile(blob, data, 0o444); err != nil {
					t.Error(err)
				}
			}
			t.Cleanup(func() { replace(good) }) // for the check at the end
			replace(bytes.Replace(good, []byte("20250718"), []byte("20250719"), 1))
		}, map[string]int{missing: 2, ": content does not match": 1}, noble},
		{"the key is in the keyring no more", func(_ *testing.T, s *site, _ *cache.Manifest) {
			s.stream.Keyring = streamstest.NewTree().Keyring()
		}, map[string]int{"signed by a key that is not in the keyring": 4}, ""},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			s := vanished(t)
			man := s.manifest()
			test.spoil(t, s, man)
			c := s.trace(man)
			got := map[string]int{}
			for _, fault := range c.Faults {
				for want := range test.faults {
					if strings.HasSuffix(fault, want) || strings.Contains(fault, want+": key ") {
						got[want]++
					}
				}
			}
			total := 0
			for n := range maps.Values(test.faults) {
				total += n
			}
			if diff := cmp.Diff(test.faults, got); diff != "" || len(c.Faults) != total {
				t.Errorf("faults (-want +got):\n%s\n%s", diff, strings.Join(c.Faults, "\n"))
			}
			for _, v := range c.Versions {
				if orphan := test.nobody == "" || v.Product == test.nobody; orphan != (v.Document == nil) {
					t.Errorf("%s %s is vouched for by %+v", v.Product, v.Version, v.Document)
				}
			}
		})
	}
}

// Unsigned documents vouch where the stream allows that, and nowhere else; signed ones go before them.
func TestCustodyUnsigned(t *testing.T) {
	tree := oneProduct()
	keyring := tree.Keyring()
	signed := newSite(t, tree)
	signed.redefine(func(st *mirror.Stream) { st.AllowUnsigned = true })
	signed.mustSync()
	for _, v := range signed.vouched().Versions {
		if v.Document.Signed == nil {
			t.Errorf("%+v", v.Document)
		}
	}
	tree.Key = nil
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.AllowUnsigned, st.Keyring = true, keyring })
	s.mustSync()
	c := s.vouched()
	if len(c.Versions) != 2 || c.Versions[0].Document.Signed != nil || c.Versions[0].Document.Kind != cache.KindUpstream {
		t.Errorf("%+v", c.Versions)
	}
	s.stream.AllowUnsigned = false
	c = s.trace(s.manifest())
	if len(c.Faults) != 2 || !strings.HasSuffix(c.Faults[0], "streams/v1/com.ubuntu.maas:stable:v3:download.json lists it, which does not count: document is not signed") {
		t.Errorf("faults %q", c.Faults)
	}
}

// A signature apart is as good as one around the text.
func TestCustodyDetached(t *testing.T) {
	s := newAllSite(t, oneProduct())
	s.mustSyncPlain()
	man := s.manifest()
	man.Entries = slices.DeleteFunc(man.Entries, func(e cache.Entry) bool { return strings.HasSuffix(e.Path, ".sjson") })
	c := s.trace(man)
	if len(c.Faults) > 0 || len(c.Versions) != 2 {
		t.Fatalf("%+v", c)
	}
	const list = "streams/v1/com.ubuntu.maas:stable:v3:download.json"
	if doc := c.Versions[0].Document; doc.Path != list || doc.Apart != list+".gpg" || doc.Signed == nil {
		t.Errorf("%+v", doc)
	}
}

// A key that has expired since was good when it signed: that is told, and is no fault.
func TestCustodyExpiredKey(t *testing.T) {
	tree := oneProduct()
	tree.Key = expiring(t, streamstest.Epoch, 90*24*time.Hour)
	s := newSite(t, tree)
	then := streamstest.Epoch.Add(48 * time.Hour)
	s.m = mirror.New(mirror.Options{Store: s.store, Client: newClient(t), Now: func() time.Time { return then }})
	s.mustSyncPlain()
	for _, now := range []time.Time{then, time.Now()} {
		c, err := mirror.TraceCustody(s.store.Files(), s.manifest(), s.stream, now)
		if err != nil || len(c.Faults) > 0 || len(c.Versions) != 2 {
			t.Fatalf("%+v, %v", c, err)
		}
		if got := c.Versions[0].Document.Signed; got == nil || got.Expired != now.After(then) {
			t.Errorf("at %v: %+v", now, got)
		}
	}
}

// expiring returns a key that is good for a while from a day before at.
func expiring(t *testing.T, at time.Time, d time.Duration) *streams.SigningKey {
	t.Helper()
	entity, err := openpgp.NewEntity("streamstest upstream", "", "", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: uint32(d / time.Second), Time: func() time.Time { return at.Add(-24 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var secret bytes.Buffer
	if err := entity.SerializePrivate(&secret, nil); err != nil {
		t.Fatal(err)
	}
	key, err := streams.ReadSigningKey(secret.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return key
}
