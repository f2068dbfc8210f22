package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

// serveCustody serves STREAM/ID: the custody volume of any kept snapshot that has one. ID may be shortened to what is unique in the
// stream.
func (s *Server) serveCustody(w *reply, r *http.Request, path string) {
	name, prefix, _ := strings.Cut(path, "/")
	if s.custody == nil || !slices.ContainsFunc(s.streams(), func(st Stream) bool { return st.Name == name }) {
		s.unknown(w, r, path)
		return
	}
	w.stream = name
	id, err := s.store.Files().Resolve(name, prefix)
	var v *mirror.CustodyVolume
	if err == nil {
		v, err = s.custody.Volume(r.Context(), name, id)
	}
	switch {
	case errors.Is(err, cache.ErrNoSnapshot), errors.Is(err, mirror.ErrNoCustody):
		s.unknown(w, r, path)
		return
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // nobody waits for it
	case err != nil:
		s.broken(w, r, err)
		return
	}
	w.snapshot = id
	h := w.Header()
	h.Set("Content-Type", mirror.CustodyType)
	h.Set("Cache-Control", caching)
	h.Set("ETag", `"`+v.Digest.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(v.Bytes))
}

// offerCustody says with an index of the site's own where the custody of its snapshot is.
func (s *Server) offerCustody(w *reply, r *http.Request, found cache.Found) {
	index := found.Path == string(streams.SignedIndex) || found.Path == string(streams.UnsignedIndex)
	if index && found.Kind == cache.KindSite && s.custody != nil && s.custody.Offers() {
		w.Header().Set("Link", mirror.CustodyLink(r.URL.Path, w.stream, found.Snapshot))
	}
}
