package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"oxbow/cache"
)

func ask(srv *Server, path string) (status int, body string) {
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

// Readiness names every stream that has nothing to serve, and comes with the last of them.
func TestReadiness(t *testing.T) {
	s := newSite(t, false)
	srv := s.server(Options{}, stable, Stream{Name: "candidate", Path: "/ephemeral-v3/candidate/"})
	for _, step := range []struct {
		publish string
		status  int
		body    string
	}{
		{"", http.StatusServiceUnavailable, "stream stable: no snapshot yet\nstream candidate: no snapshot yet\n"},
		{"stable", http.StatusServiceUnavailable, "stream candidate: no snapshot yet\n"},
		{"candidate", http.StatusOK, "ready\n"},
	} {
		if step.publish != "" {
			s.publish(step.publish, s.put(cache.KindSite, "streams/v1/index.json", step.publish))
		}
		if status, body := ask(srv, "/-/readyz"); status != step.status || body != step.body {
			t.Errorf("after publishing %q: %d %q, want %d %q", step.publish, status, body, step.status, step.body)
		}
		if status, _ := ask(srv, "/-/healthz"); status != http.StatusOK {
			t.Errorf("after publishing %q: not healthy: %d", step.publish, status)
		}
	}
}

// A site that signs nothing has no keyring.
func TestNoKeyring(t *testing.T) {
	s := newSite(t, false)
	for _, keys := range []func() []byte{nil, func() []byte { return nil }} {
		if status, body := ask(s.server(Options{Keyring: keys}), "/-/keyring.gpg"); status != http.StatusNotFound || body != "not found\n" {
			t.Errorf("%d %q", status, body)
		}
	}
}

// The id of a snapshot may be cut to what is unique in its stream, and no shorter.
func TestSnapshotPrefixIsUnique(t *testing.T) {
	s := newSite(t, false)
	count := map[byte]int{} // by first digit
	var ids []string
	for n := range 17 { // so two begin alike
		id := s.publish("stable", s.put(cache.KindSite, "streams/v1/index.json", fmt.Sprint(n))).String()
		ids = append(ids, id)
		count[id[0]]++
	}
	srv := s.server(Options{}, stable)
	for n, id := range ids {
		want, wantBody := http.StatusOK, fmt.Sprint(n)
		if count[id[0]] > 1 {
			want, wantBody = http.StatusNotFound, "not found\n"
		}
		if status, body := ask(srv, "/-/snapshots/stable/"+id[:1]+"/streams/v1/index.json"); status != want || body != wantBody {
			t.Errorf("%s, one of %d: %d %q, want %d %q", id[:1], count[id[0]], status, body, want, wantBody)
		}
		if status, body := ask(srv, "/-/snapshots/stable/"+id[:12]+"/streams/v1/index.json"); status != http.StatusOK || body != fmt.Sprint(n) {
			t.Errorf("%s: %d %q", id[:12], status, body)
		}
	}
}

// A store that cannot tell is not taken for one that knows of no such snapshot.
func TestSnapshotsOfADamagedStore(t *testing.T) {
	s := newSite(t, true)
	id := s.publish("stable", s.put(cache.KindSite, "streams/v1/index.json", "1")).String()
	srv := s.server(Options{}, stable)
	if err := os.WriteFile(filepath.Join(s.dir, "current", "stable"), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/-/snapshots/stable/" + id + "/streams/v1/index.json":    http.StatusServiceUnavailable,
		"/-/snapshots/candidate/" + id + "/streams/v1/index.json": http.StatusNotFound, // not served here
	} {
		if status, body := ask(srv, path); status != want {
			t.Errorf("%s: %d %q, want %d", path, status, body, want)
		}
	}
}
