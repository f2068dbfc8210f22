package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// A custodySite has a stream with documents of its own, in two snapshots, and one that passes upstream's on.
type custodySite struct {
	*site
	key           *streams.SigningKey
	index         cache.Entry // of the newer snapshot
	older, newer  cache.Digest
	passed        cache.Digest
	custodian     *mirror.Custodian
	here, passing Stream
}

func newCustodySite(t *testing.T, damaged bool) *custodySite {
	t.Helper()
	s := &custodySite{site: newSite(t, damaged), here: stable, passing: Stream{Name: "passed", Path: "/passed/", View: cache.Upstream}}
	s.here.Also = []string{"/d"}
	m := mirror.New(mirror.Options{Store: s.store, Offline: true})
	var err error
	if s.key, err = m.Key(); err != nil {
		t.Fatal(err)
	}
	for _, st := range []Stream{s.here, s.passing} {
		if err := m.Define(mirror.Stream{Name: st.Name, Path: st.Path, Upstream: []string{"http://upstream.test"}, AllowUnsigned: true}); err != nil {
			t.Fatal(err)
		}
	}
	s.older = s.publish("stable", s.put(cache.KindSite, "streams/v1/index.json", "{}"), s.put(cache.KindItem, "a", "0123456789"))
	s.index = s.put(cache.KindSite, "streams/v1/index.sjson", "signed")
	s.newer = s.publish("stable", s.index, s.put(cache.KindSite, "streams/v1/index.json", "{ }"), s.put(cache.KindSite, "streams/v1/index.json.gpg", "signature"),
		s.put(cache.KindSite, "streams/v1/e1/list.sjson", "list"), s.put(cache.KindUpstream, "streams/v1/index.sjson", "upstream's"), s.put(cache.KindItem, "a", "0123456789"))
	s.passed = s.publish("passed", s.put(cache.KindUpstream, "streams/v1/index.sjson", "upstream's"))
	s.custodian = mirror.NewCustodian(s.store.Files(), "oxbow test")
	return s
}

func (s *custodySite) front() *Server {
	return s.server(Options{Custody: s.custodian}, s.here, s.passing, Stream{Name: "stable", Path: "/vendor/", View: cache.Upstream})
}

// The answer with an index of the site's own says where the custody of its snapshot is, in a way that stays right where a reverse proxy
// maps a prefix. Nothing else says so.
func TestCustodyIsOffered(t *testing.T) {
	s := newCustodySite(t, false)
	srv := s.front()
	prefixed := http.StripPrefix("/some/prefix", srv)
	for _, test := range []struct {
		path  string
		offer cache.Digest // zero: none
	}{
		{"/ephemeral-v3/stable/streams/v1/index.sjson", s.newer},
		{"/ephemeral-v3/stable/streams/v1/index.json", s.newer},
		{"/d/streams/v1/index.sjson", s.newer},
		{"/-/snapshots/stable/" + s.older.String() + "/streams/v1/index.json", s.older},
		{"/-/snapshots/stable/" + s.newer.String()[:12] + "/streams/v1/index.sjson", s.newer},
		{"/ephemeral-v3/stable/streams/v1/index.json.gpg", cache.Digest{}},
		{"/ephemeral-v3/stable/streams/v1/e1/list.sjson", cache.Digest{}},
		{"/ephemeral-v3/stable/a", cache.Digest{}},
		{"/ephemeral-v3/stable/nothing", cache.Digest{}},
		{"/vendor/streams/v1/index.sjson", cache.Digest{}},
		{"/passed/streams/v1/index.sjson", cache.Digest{}},
		{"/-/keyring.gpg", cache.Digest{}},
	} {
		for _, etag := range []string{"", s.index.Digest.String()} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/some/prefix"+test.path, nil)
			if etag != "" {
				r.Header.Set("If-None-Match", `"`+etag+`"`)
			}
			prefixed.ServeHTTP(w, r)
			link := w.Header().Get("Link")
			if test.offer.IsZero() {
				if link != "" {
					t.Errorf("%s: Link is %q", test.path, link)
				}
				continue
			}
			ref, rest, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
			if want := `; rel="http://www.w3.org/ns/prov#has_provenance"; type="application/x-tar"`; rest != want {
				t.Errorf("%s: %d, Link is %q", test.path, w.Code, link)
			}
			at, err := (&url.URL{Scheme: "http", Host: "mirror", Path: "/some/prefix" + test.path}).Parse(ref)
			if err != nil {
				t.Fatal(err)
			}
			if want := "http://mirror/some/prefix/-/custody/stable/" + test.offer.String(); at.String() != want {
				t.Errorf("%s: %q leads to %s, want %s", test.path, ref, at, want)
			}
		}
	}
}

// A custody volume is whole, has a strong ETag and a length, and is a bundle of the snapshot without files, signed by the site.
func TestCustodyIsServed(t *testing.T) {
	s := newCustodySite(t, false)
	addr := serve(t, s.front())
	path := "/-/custody/stable/" + s.older.String()
	resp, body := get(t, addr, path)
	want := cache.Sum([]byte(body)).String()
	if h := resp.Header; resp.StatusCode != http.StatusOK || h.Get("ETag") != `"`+want+`"` || h.Get("Content-Type") != "application/x-tar" ||
		h.Get("Content-Length") != fmt.Sprint(len(body)) || h.Get("Cache-Control") != "no-cache" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	ring, err := streams.ReadKeyring(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.NewReader(strings.NewReader(body), func(*streams.Keyring) (*streams.Keyring, error) { return ring, nil }, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		var m bundle.Member
		if m, _, err = r.Next(); err == nil && m.Kind() == bundle.KindFile {
			t.Errorf("it brings %s", m.Path)
		}
	}
	if c := r.Contents; err != io.EOF || len(c.Snapshots) != 1 || c.Snapshots[0].ID != s.older || len(c.Needs) != 1 || c.MadeBy != "oxbow test" {
		t.Errorf("%+v, %v", r.Contents, err)
	}
	if again, once := get(t, addr, path[:len(path)-50]); again.StatusCode != http.StatusOK || once != body {
		t.Errorf("by a shorter id: %d", again.StatusCode)
	}
	if same, body := get(t, addr, path, `If-None-Match: "`+want+`"`); same.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("the same: %d", same.StatusCode)
	}
	if part, some := get(t, addr, path, "Range: bytes=100-199"); part.StatusCode != http.StatusPartialContent || some != body[100:200] {
		t.Errorf("a part: %d", part.StatusCode)
	}
	w := dial(t, addr)
	defer w.Close()
	w.send(t, "HEAD %s HTTP/1.1\r\nHost: mirror\r\n\r\n", path)
	if head, none := w.answer(t, http.MethodHead); head.StatusCode != http.StatusOK || none != "" || head.ContentLength != int64(len(body)) {
		t.Errorf("HEAD: %d, %d bytes", head.StatusCode, head.ContentLength)
	}
	for _, line := range awaitLines(t, s.log, "path="+path+" ", 4) {
		if !strings.HasSuffix(line, " stream=stable snapshot="+s.older.String()[:shortID]) {
			t.Errorf("logged %q", line)
		}
	}
}

// There is none of what upstream wrote, of what is not kept, of a stream that is not served, and where no key could sign it; a store that
// fails is told from that.
func TestCustodyThatIsNotThere(t *testing.T) {
	s := newCustodySite(t, true)
	srv := s.front()
	for path, want := range map[string]int{
		"/-/custody/stable/" + s.newer.String():        200,
		"/-/custody/passed/" + s.passed.String():       404,
		"/-/custody/passed/" + s.newer.String():        404,
		"/-/custody/other/" + s.newer.String():         404,
		"/-/custody/stable/" + s.newer.String() + "/":  404,
		"/-/custody/stable/" + s.newer.String() + "/a": 404,
		"/-/custody/stable/":                           404,
		"/-/custody/stable":                            404,
		"/-/custody/":                                  404,
		"/-/custody":                                   404,
		"/-/custody/stable/" + strings.Repeat("0", 64): 404,
	} {
		if status, _ := ask(srv, path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	plain := s.server(Options{}, s.here)
	if status, _ := ask(plain, "/-/custody/stable/"+s.newer.String()); status != http.StatusNotFound {
		t.Errorf("by a server without a custodian: %d", status)
	}
	list := s.blobFile(cache.Entry{Digest: cache.Sum([]byte("{}"))})
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	if status, body := ask(srv, "/-/custody/stable/"+s.older.String()); status != http.StatusServiceUnavailable || body != "the store cannot answer now\n" {
		t.Errorf("of a snapshot that lacks a document: %d %q", status, body)
	}
	if err := os.Remove(s.dir + "/keys/site.asc"); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ephemeral-v3/stable/streams/v1/index.sjson", nil))
	if link := w.Header().Get("Link"); link != "" || !bytes.Equal(w.Body.Bytes(), []byte("signed")) {
		t.Errorf("without a key: Link is %q", link)
	}
	if status, _ := ask(srv, "/-/custody/stable/"+s.newer.String()); status != http.StatusNotFound {
		t.Errorf("without a key: %d", status)
	}
}
