package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A handing is a site that hands its stream on over HTTP, as the front end does.
type handing struct {
	t         *testing.T
	store     *cache.Store
	m         *mirror.Mirror
	url       string
	custodian *mirror.Custodian

	mu     sync.Mutex // guards the rest
	hits   []string   // paths, in the order of the requests
	custom func(http.ResponseWriter, *http.Request) bool
}

func hand(t *testing.T, store *cache.Store, m *mirror.Mirror) *handing {
	t.Helper()
	h := &handing{t: t, store: store, m: m, custodian: mirror.NewCustodian(store.Files(), "oxbow test")}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

func (h *handing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.hits = append(h.hits, r.URL.Path)
	custom := h.custom
	h.mu.Unlock()
	if custom != nil && custom(w, r) {
		return
	}
	if at, ok := strings.CutPrefix(r.URL.Path, mirror.CustodyDir+stable+"/"); ok {
		id, err := cache.ParseDigest(at)
		if err == nil {
			var v *mirror.CustodyVolume
			if v, err = h.custodian.Volume(r.Context(), stable, id); err == nil {
				w.Write(v.Bytes)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	found, err := h.store.Find(stable, cache.Published, r.URL.Path[1:])
	if err != nil {
		http.NotFound(w, r)
		return
	}
	blob, err := h.store.Blob(found.Entry.Digest)
	if err != nil {
		h.t.Error(err)
		return
	}
	defer blob.Close()
	w.Header().Set("ETag", `"`+found.Entry.Digest.String()+`"`)
	if strings.Contains(r.URL.Path, "/index.") && h.custodian.Offers() {
		w.Header().Set("Link", mirror.CustodyLink(r.URL.Path, stable, found.Snapshot))
	}
	http.ServeContent(w, r, "", time.Time{}, blob)
}

// asked returns the paths that were asked for since the last call, without those of images.
func (h *handing) asked() (documents []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, path := range h.hits {
		if strings.HasPrefix(path, "/streams/") || strings.HasPrefix(path, "/-/") {
			documents = append(documents, path)
		}
	}
	h.hits = nil
	return documents
}

func (h *handing) answer(custom func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.custom = custom
}

// key returns the public key of the site.
func (h *handing) key() []byte {
	h.t.Helper()
	key, err := h.m.Key()
	if err != nil {
		h.t.Fatal(err)
	}
	return key.Public()
}

// newDownstream makes a site that syncs from another one, whose key it trusts.
func newDownstream(t *testing.T, from *handing) *site {
	t.Helper()
	s := &site{t: t, url: from.url, store: newStore(t, filepath.Join(t.TempDir(), "store"), -1)}
	t.Cleanup(func() { endStore(t, s.store) })
	client := upstream.NewClient(&upstream.Options{Attempts: 3, Backoff: upstream.Backoff{Base: time.Millisecond}}) // a site may be slow
	t.Cleanup(client.Close)
	s.m = mirror.New(mirror.Options{Store: s.store, Client: client, Settle: time.Nanosecond})
	s.define(from.url, from.key())
	return s
}

// chained fails the test unless everything that is published comes from a document of the first upstream, by way of that many sites. It
// returns the versions of a product with the kinds of document and origin.
func (s *site) chained(links int, product string) string {
	s.t.Helper()
	var all []string
	for _, v := range s.vouched().Versions {
		if v.Origin == nil || len(v.Origin.HandedOn) != links || v.Origin.Signed == nil {
			s.t.Errorf("%s %s: origin %+v", v.Product, v.Version, v.Origin)
			continue
		}
		if by := v.Origin.Signed.UserID; by != "streamstest upstream" {
			s.t.Errorf("%s %s: the origin is signed by %s", v.Product, v.Version, by)
		}
		for i, h := range v.Origin.HandedOn {
			nearest := i == links-1
			if n := len(h.Handovers); n == 0 || h.Handovers[n-1].Site != h.Signed.Fingerprint || h.Known != nearest {
				s.t.Fatalf("handed on: %+v", h)
			}
		}
		if v.Product == product {
			all = append(all, fmt.Sprint(v.Version, " ", v.Document.Kind, " of ", v.Origin.Kind))
		}
	}
	return strings.Join(all, ", ")
}

// volumes returns the paths of the custody volumes of the current snapshot.
func (s *site) volumes() (all []string) {
	for _, e := range s.manifest().Entries {
		if e.Kind == cache.KindEvidence && strings.HasPrefix(e.Path, "custody/") {
			all = append(all, e.Path)
		}
	}
	return all
}

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

// A volume that is not what it should be is left out, and a warning says where it is, why, and what helps. The same one is not asked for
// again, until something is different.
func TestCustodyRefused(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{Kernels: []string{"ga"}, CentOS: []string{}, NoBootloaders: true})
	near := newSite(t, tree)
	near.mustSync()
	old := current(t, near.store, stable)
	other := newSite(t, tree) // whose key nobody trusts
	other.mustSync()
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	b := hand(t, near.store, near.m)
	volume := func(of *handing, id cache.Digest) []byte {
		v, err := of.custodian.Volume(t.Context(), stable, id)
		if err != nil {
			t.Fatal(err)
		}
		return v.Bytes
	}
	good := volume(b, current(t, near.store, stable))
	// in place of the volume
	bytesOf := func(data []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
				w.Write(data)
			}
			return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
		}
	}
	linked := func(link string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/index.sjson") {
				data := readPath(t, near.store, stable, "streams/v1/index.sjson")
				w.Header().Set("ETag", `"`+cache.Sum(data).String()+`"`)
				w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="http://www.w3.org/ns/prov#has_provenance"; type="application/x-tar"`, link))
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			}
			return strings.HasSuffix(r.URL.Path, "/index.sjson")
		}
	}
	bundled := near.export(mirror.ExportOptions{})[0]
	for _, test := range []struct {
		summary string
		custom  func(http.ResponseWriter, *http.Request) bool
		want    string // in the warning
		again   bool   // the next sync tries again
	}{
		{"of a stranger", bytesOf(volume(hand(t, other.store, other.m), current(t, other.store, stable))), "signed by a key that is not trusted here: it comes from oxbow mirror at", false},
		{"of another snapshot", bytesOf(volume(b, old)), "it is the custody of other documents than those that were read", false},
		{"cut off", bytesOf(good[:len(good)-2048]), "the volume is damaged: it ends before volumes/", false},
		{"cut in a document", bytesOf(good[:len(good)/2]), "the volume is damaged", false},
		{"with a bit that is wrong", bytesOf(flipped(good, len(good)-3000)), "the volume is damaged", false},
		{"with files", bytesOf(bundled), "it is no custody volume", false},
		{"something else", bytesOf(bytes.Repeat([]byte("<html>"), 500)), "this is no oxbow bundle", false},
		{"too large", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
				w.Header().Set("Content-Length", fmt.Sprint(mirror.MaxCustody+1))
				w.WriteHeader(http.StatusOK)
			}
			return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
		}, "the document is longer than the bound of 67108864 bytes", false},
		{"gone", linked("../../-/custody/stable/0123"), "HTTP 404", false},
		{"where a shell would run it", func(w http.ResponseWriter, r *http.Request) bool {
			return bytesOf(bytes.Repeat([]byte("<html>"), 500))(w, r) || linked("../../-/custody/stable/x;reboot;$(id)'&")(w, r)
		}, "/-/custody/stable/x;reboot;$(id)%27&' | oxbow bundle verify -`", false},
		{"at another server", linked("http://127.0.0.1:1/-/custody/stable/0123"), "it is at another server than the index", false},
		{"of a server that fails", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
		}, "HTTP 503 Service Unavailable; the next sync tries again", true},
	} {
		t.Run(test.summary, func(t *testing.T) {
			c := newDownstream(t, b)
			b.answer(test.custom)
			defer b.answer(nil)
			for n := range 2 {
				b.asked()
				res, err := c.sync()
				if err != nil || len(res.LeftOut) > 0 || res.Changed != (n == 0) {
					t.Fatalf("%+v, %v", res, err)
				}
				if n == 1 && !test.again {
					if asked := b.asked(); !slices.Equal(asked, []string{"/streams/v1/index.sjson"}) || len(res.Warnings) > 0 {
						t.Errorf("the next sync asks for %q, and warns %q", asked, res.Warnings)
					}
					continue
				}
				if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], test.want) || !strings.Contains(res.Warnings[0], "/-/custody/stable/") {
					t.Errorf("warnings %q, want %s", res.Warnings, test.want)
				}
			}
			standing := func() string {
				return mirror.NewScheduler(mirror.SchedulerOptions{Store: c.store}).Standing(stable).NoCustody
			}
			if got := standing(); !strings.Contains(got, test.want) {
				t.Errorf("it is said to lack custody because of %q", got)
			}
			if v := c.volumes(); len(v) > 0 {
				t.Errorf("volumes %q", v)
			}
			c.whole()
			b.answer(nil)
			if test.summary == "at another server" || test.summary == "gone" || test.again { // the offer is another one now
				c.mustSync()
				c.chained(1, noble)
				if got := standing(); got != "" {
					t.Errorf("it has custody, and is said to lack it because of %q", got)
				}
			}
		})
	}
}

func flipped(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 1
	return data
}

// Who signs the volume need not be who signs the documents: of a site that imports, another does. Its key is trusted as those of
// bundles are, and the next sync then has the chain: with who handed over before, and it goes on in bundles.
func TestCustodyOfWhatCameByBundle(t *testing.T) {
	t.Parallel()
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	nearKey, err := near.m.Key()
	if err != nil {
		t.Fatal(err)
	}
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
	cKey, err := c.m.Key()
	if err != nil {
		t.Fatal(err)
	}
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

// A volume that says something else than what is published is a fault, and one that is damaged; what it is not about is none.
func TestCustodyChainFaults(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	c := newDownstream(t, hand(t, near.store, near.m))
	c.mustSync()
	man := c.manifest()
	if c := c.trace(man); len(c.Faults) > 0 || len(c.Versions) != 2 || c.Versions[0].Origin == nil {
		t.Fatalf("%+v", c)
	}
	// A site whose upstream said otherwise: another sum for one file, under the same names, by documents of its own.
	liar := oneProduct()
	liar.Resize("noble/amd64/20250718/squashfs", 70000)
	lying := newSite(t, liar)
	lying.mustSync()
	replaced := func(by []byte) *cache.Manifest {
		d, err := c.store.Put(t.Context(), by)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.store.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		changed := *man
		changed.Entries = slices.Clone(man.Entries)
		for i, e := range changed.Entries {
			if strings.HasPrefix(e.Path, "custody/") {
				changed.Entries[i].Digest, changed.Entries[i].Size = d, int64(len(by))
			}
		}
		return &changed
	}
	good, err := c.store.Files().ReadFile(entryOf(man, "custody/").Digest, mirror.MaxCustody)
	if err != nil {
		t.Fatal(err)
	}
	for summary, test := range map[string]struct {
		volume []byte
		faults string
	}{
		"cut off":  {good[:len(good)/2], "the volume is damaged"},
		"no tar":   {bytes.Repeat([]byte("nothing"), 500), "this is no oxbow bundle"},
		"the same": {good, ""},
		"it lies":  {forged(t, near, lying), "by which site "},
	} {
		custody := c.trace(replaced(test.volume))
		if test.faults == "" {
			if len(custody.Faults) > 0 {
				t.Errorf("%s: faults %q", summary, custody.Faults)
			}
			continue
		}
		if len(custody.Faults) != 1 || !strings.Contains(custody.Faults[0], test.faults) {
			t.Errorf("%s: faults %q, want one with %s", summary, custody.Faults, test.faults)
		}
	}
}

func entryOf(man *cache.Manifest, prefix string) cache.Entry {
	i := slices.IndexFunc(man.Entries, func(e cache.Entry) bool { return strings.HasPrefix(e.Path, prefix) })
	return man.Entries[i]
}

// forged returns a custody volume about the documents of a site that has, as upstream's, the documents of another one. The site signs it.
func forged(t *testing.T, s, other *site) []byte {
	t.Helper()
	man := *s.manifest()
	man.Entries = slices.DeleteFunc(slices.Clone(man.Entries), func(e cache.Entry) bool { return e.Kind == cache.KindUpstream })
	for _, e := range other.manifest().Entries {
		if e.Kind != cache.KindUpstream {
			continue
		}
		data, err := other.store.Files().ReadFile(e.Digest, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Put(t.Context(), data); err != nil {
			t.Fatal(err)
		}
		man.Entries = append(man.Entries, e)
	}
	man.Parent = current(t, s.store, stable)
	if err := s.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, err := s.store.Publish(t.Context(), &man)
	if err != nil {
		t.Fatal(err)
	}
	s.redefine(func(st *mirror.Stream) { st.Keyring = slices.Concat(st.Keyring, other.stream.Keyring) })
	v, err := mirror.NewCustodian(s.store.Files(), "oxbow test").Volume(t.Context(), stable, id)
	if err != nil {
		t.Fatal(err)
	}
	return v.Bytes
}

// A chain that is longer than anybody's breaks, and costs nothing more.
func TestCustodyChainIsBounded(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	s := near
	for n := 1; n <= 9; n++ {
		s = newDownstream(t, hand(t, s.store, s.m))
		res, err := s.sync()
		if err != nil || len(res.Warnings) > 0 {
			t.Fatalf("site %d: %+v, %v", n, res, err)
		}
		if n <= 8 {
			s.chained(n, noble)
		}
	}
	custody := s.trace(s.manifest())
	if len(custody.Faults) == 0 || !strings.Contains(strings.Join(custody.Faults, "\n"), "more than 8 custody volumes are within each other") {
		t.Errorf("nine sites: %q", custody.Faults)
	}
}

// Where custody does not come, the images wait for no more than one further try: each sync tries again.
func TestCustodyKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b) // which makes three attempts
	b.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
	})
	if res, err := c.sync(); err != nil || len(res.Warnings) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	asked := slices.DeleteFunc(b.asked(), func(path string) bool { return !strings.HasPrefix(path, mirror.CustodyDir) })
	if len(asked) != 2 {
		t.Errorf("it asks for %q", asked)
	}
}

// A site that passes the documents of the other one on keeps the chain too. A client that waits for metadata does not wait for that: the
// next sync brings it.
func TestCustodyOfWhatIsPassedOn(t *testing.T) {
	t.Parallel()
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b)
	c.redefine(func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll })
	if err := c.m.Refresh(t.Context(), stable); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(b.asked(), func(path string) bool { return strings.HasPrefix(path, mirror.CustodyDir) }) || len(c.volumes()) > 0 {
		t.Errorf("a refresh asks for custody; volumes %q", c.volumes())
	}
	for _, v := range c.vouched().Versions {
		if v.Origin != nil {
			t.Errorf("%+v", v)
		}
	}
	c.mustSyncPlain()
	c.chained(1, noble)
	b.asked()
	if c.mustSyncPlain(); !slices.Equal(b.asked(), []string{"/streams/v1/index.sjson"}) {
		t.Error("where nothing is new, it asks for more than the index")
	}
}

// What is lost of a custody volume is had again, and what is damaged is left out, as long as it is not.
func TestCustodyVolumeLost(t *testing.T) {
	t.Parallel()
	tree := oneProduct()
	near := newSite(t, tree)
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b)
	c.mustSync()
	e := entryOf(c.manifest(), "custody/")
	c.harm(e)
	c.repair()
	c.mustSync()
	c.chained(1, noble)
	if got := entryOf(c.manifest(), "custody/"); got != e {
		t.Errorf("another one is there: %+v", got)
	}
	c.harm(e)
	c.redefine(func(st *mirror.Stream) { st.Hold = []string{"version_name=20250718"} })
	c.mustSyncPlain()
	if got := c.chained(1, noble); got != "20250717 upstream of upstream" {
		t.Errorf("noble: %s", got)
	}
}

// However much is in a custody volume, no more is read of it than there is room for, and what is not read is a fault.
func TestCustodyRoom(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	c := newDownstream(t, hand(t, near.store, near.m))
	c.mustSync()
	d := newDownstream(t, hand(t, c.store, c.m))
	d.mustSync()
	man := d.manifest()
	whole := int64(0)
	for room := int64(1); whole == 0; room *= 2 {
		custody, err := mirror.TraceWithin(d.store.Files(), man, d.stream, room)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range custody.Versions {
			if chained := v.Origin != nil && len(v.Origin.HandedOn) == 2; chained != (len(custody.Faults) == 0) || v.Document == nil {
				t.Errorf("with room for %d bytes: %s is of %+v, and there are %d faults", room, v.Version, v.Origin, len(custody.Faults))
			}
		}
		if len(custody.Faults) == 0 {
			whole = room
		}
	}
	if size := entryOf(man, "custody/").Size; whole < size || whole > 1<<20 {
		t.Errorf("it takes room for %d bytes, where the volume has %d", whole, size)
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

// What is within a custody volume takes no more room than its manifest says it does, and what is broken of it takes room too: else a
// small volume has hours of work in it.
func TestCustodyBombs(t *testing.T) {
	t.Parallel()
	f := newForger(t, newSite(t, oneProduct()))
	c := newDownstream(t, hand(t, f.store, f.m))
	c.mustSync()
	man := c.manifest()
	bomb := f.put(make([]byte, 1<<20))
	forged := func(summary string, more ...cache.Entry) *cache.Manifest {
		lying := &cache.Manifest{Stream: stable, Created: time.Now().UTC().Truncate(time.Second), Reason: summary, Entries: f.with(func(e cache.Entry) cache.Entry { return e }, more...)}
		lying.Sort()
		id := cache.Sum(lying.Encode())
		file := filepath.Join(f.store.Files().Dir(), "snapshots", stable, id.String()) // a store does not publish what lies
		if err := errors.Join(f.store.Flush(t.Context()), os.WriteFile(file, lying.Encode(), 0o644)); err != nil {
			t.Fatal(err)
		}
		v, err := mirror.NewCustodian(f.store.Files(), "oxbow test").Volume(t.Context(), stable, id)
		err = errors.Join(err, os.Remove(file))
		if err != nil {
			t.Fatal(err)
		}
		changed := *man
		changed.Entries = slices.Clone(man.Entries)
		for i, e := range changed.Entries {
			if strings.HasPrefix(e.Path, "custody/") {
				if changed.Entries[i].Digest, err = c.store.Put(t.Context(), v.Bytes); err != nil {
					t.Fatal(err)
				}
				changed.Entries[i].Size = int64(len(v.Bytes))
			}
		}
		if err := c.store.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return &changed
	}
	custody := c.trace(forged("one that says it has a byte", cache.Entry{Kind: cache.KindEvidence, Digest: bomb, Size: 1, Path: "custody/1.tar"}))
	if len(custody.Faults) != 1 || !strings.Contains(custody.Faults[0], "has more than 1 bytes when it is decompressed") {
		t.Errorf("faults %q", custody.Faults)
	}

	broken := volumeWithManifest(t, f.key, make([]byte, 1<<20))
	d, err := c.store.Put(t.Context(), broken)
	if err == nil {
		err = c.store.Flush(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	many := *man
	many.Entries = slices.Clone(man.Entries)
	for n := range 100 {
		many.Entries = append(many.Entries, cache.Entry{Kind: cache.KindEvidence, Digest: d, Size: int64(len(broken)), Path: fmt.Sprintf("custody/%02d.tar", n)})
	}
	custody, err = mirror.TraceWithin(c.store.Files(), &many, c.stream, 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(custody.Faults) > 10 || !strings.Contains(strings.Join(custody.Faults, "\n"), "custody volumes and what is in them have more than") {
		t.Errorf("%d faults: %q", len(custody.Faults), custody.Faults)
	}
}

// volumeWithManifest returns a custody volume of a site, with something as its manifest.
func volumeWithManifest(t *testing.T, key *streams.SigningKey, text []byte) []byte {
	id := cache.Sum(text)
	manifest := bundle.Compress(text)
	contents := &bundle.Contents{MadeBy: "oxbow test", Created: time.Now().UTC().Truncate(time.Second), Site: key.Fingerprint(), Volumes: 1,
		Snapshots: []bundle.Snapshot{{Stream: stable, ID: id}},
		Members: []bundle.Member{{Path: bundle.SitePath(), Digest: cache.Sum(key.Public()), Size: int64(len(key.Public()))},
			{Path: bundle.SnapshotPath(stable, id), Digest: cache.Sum(manifest), Size: int64(len(manifest))}, bundle.VolumeMember(1)}}
	signed, err := key.Clearsign(contents.Encode(), contents.Created)
	if err != nil {
		t.Fatal(err)
	}
	var volume bytes.Buffer
	err = bundle.NewVolume(contents, signed, 1).Write(t.Context(), &volume, 0, func(m bundle.Member) (io.ReadCloser, error) {
		if m.Path == bundle.SitePath() {
			return io.NopCloser(bytes.NewReader(key.Public())), nil
		}
		return io.NopCloser(bytes.NewReader(manifest)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return volume.Bytes()
}
