package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// refreshTime bounds how long a request waits for metadata that may name its path.
const refreshTime = 30 * time.Second

// refresh brings the metadata of a stream up to date for a path that it does not name,
// and reports whether it was tried. It asks upstream once a minute at most.
func (s *Server) refresh(r *http.Request, stream Stream) bool {
	if s.refreshing == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), refreshTime)
	defer cancel()
	return s.refreshing(ctx, stream.Name) == nil
}

// serveKnown answers with a file that the metadata names and that is not mirrored: from
// an earlier fill, or by one.
func (s *Server) serveKnown(w *reply, r *http.Request, found cache.Found) {
	lease := s.store.Lease() // before the question, so that what is here stays
	defer lease.Release()
	lease.Add(found.Digest)
	switch {
	case s.store.Has(found.Digest):
		s.store.Touch(found.Digest)
		s.serveHere(w, r, found)
	case s.fills.pull == nil:
		s.absent(w, r, found)
	default:
		s.serveFill(w, r, found, missed)
	}
}

// Cache-Status of a miss, as RFC 9211 has it.
const (
	missed    = "oxbow; fwd=uri-miss; stored"
	collapsed = "oxbow; fwd=uri-miss; stored; collapsed"
	repaired  = "oxbow; fwd=miss; stored; detail=damaged"
)

// serveFill answers with what a fill brings, with that Cache-Status. A request that needs no bytes, such as HEAD,
// begins none.
func (s *Server) serveFill(w *reply, r *http.Request, found cache.Found, status string) {
	content := &follower{ctx: r.Context(), size: found.Size, join: func() *fill {
		f, joined := s.fills.join(w.stream, found.Entry)
		if joined {
			w.Header().Set("Cache-Status", collapsed)
		}
		return f
	}}
	defer content.Close()
	s.describe(w, r, found, status)
	if strings.Contains(r.Header.Get("Range"), ",") {
		// net/http would answer before it has a byte. RFC 9110, 14.2: a range may be ignored.
		r.Header.Del("Range")
	}
	w.hold()
	http.ServeContent(w, r, "", time.Time{}, content)
	absent := found.Kind == cache.KindKnown && errors.Is(content.failure(), mirror.ErrOffline)
	switch {
	case !w.cutShort():
		w.release()
	case !w.withdraw() || takesStatusAsFinal(r) && !absent:
		panic(http.ErrAbortHandler) // the client has to see that there is more to come
	default:
		s.lost(w, content.failure())
	}
}

// lost answers for a file of which not a byte could be had.
func (s *Server) lost(w *reply, err error) {
	w.Header().Set("Retry-After", "30")
	switch {
	case errors.Is(err, mirror.ErrOffline):
		w.Header().Del("Retry-After")
		say(w, http.StatusNotFound, "offline", "not stored here, and this server is offline")
	case errors.Is(err, cache.ErrNoSpace):
		say(w, http.StatusServiceUnavailable, "no-space", "there is no room for it now")
	case errors.Is(err, context.DeadlineExceeded):
		say(w, http.StatusGatewayTimeout, "upstream-silent", "upstream does not answer")
	default:
		say(w, http.StatusBadGateway, "upstream-failed", "upstream does not deliver it")
	}
}
