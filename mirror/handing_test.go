package mirror_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
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
	key := keyOf(h.t, h.m)
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
