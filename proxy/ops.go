package proxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
)

// serveOwn answers for the paths below /-/.
func (s *Server) serveOwn(w *reply, r *http.Request, path string) {
	name, rest, _ := strings.Cut(path, "/")
	switch {
	case path == "healthz":
		say(w, http.StatusOK, "", "ok")
	case path == "readyz":
		s.serveReady(w)
	case path == "metrics" && s.metrics != nil:
		s.serveMetrics(w, r)
	case path == "keyring.gpg":
		s.serveKeyring(w, r)
	case name == "snapshots":
		s.serveSnapshot(w, r, rest)
	case name == "custody":
		s.serveCustody(w, r, rest)
	default:
		s.unknown(w, r, path)
	}
}

// serveKeyring serves what a client has to be given along with the URL of a stream.
func (s *Server) serveKeyring(w *reply, r *http.Request) {
	keys := s.keyring()
	if len(keys) == 0 {
		s.unknown(w, r, r.URL.Path)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pgp-keys")
	h.Set("Cache-Control", caching)
	h.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(keys)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(keys))
}

// serveSnapshot serves STREAM/ID/PATH: any kept snapshot under a URL that can be used as
// a boot source. ID may be shortened to what is unique in the stream.
func (s *Server) serveSnapshot(w *reply, r *http.Request, path string) {
	name, rest, _ := strings.Cut(path, "/")
	prefix, inner, _ := strings.Cut(rest, "/")
	streams := s.streams()
	i := slices.IndexFunc(streams, func(st Stream) bool { return st.Name == name })
	if i < 0 || prefix == "" || inner == "" {
		s.unknown(w, r, path)
		return
	}
	w.stream = name
	id, err := s.store.Files().Resolve(name, prefix)
	var entry cache.Entry
	if err == nil {
		entry, err = s.store.Lookup(name, id, streams[i].View, inner)
	}
	switch {
	case errors.Is(err, cache.ErrMiss), errors.Is(err, cache.ErrNoSnapshot):
		s.unknown(w, r, inner)
	case err != nil:
		s.broken(w, r, err)
	default:
		s.serveEntry(w, r, cache.Found{Entry: entry, Snapshot: id, Current: true})
	}
}
