package proxy

import (
	"net/http"

	"oxbow/cache"
)

// serveDamaged answers with a file that should be here and is not, or cannot be sent: upstream is asked for it again.
func (s *Server) serveDamaged(w *reply, r *http.Request, found cache.Found, err error) {
	s.setAside(w.stream, found, err)
	switch {
	case s.mayFill(found):
		s.serveFill(w, r, found, repaired)
	case takesStatusAsFinal(r):
		panic(http.ErrAbortHandler)
	default:
		say(w, http.StatusNotFound, "damaged", "not available")
	}
}

// mayFill reports whether upstream can be asked for an entry: not for documents, which a sync publishes anew.
func (s *Server) mayFill(found cache.Found) bool {
	return s.fills.pull != nil && (found.Kind == cache.KindItem || found.Kind == cache.KindKnown)
}

// setAside has nobody read a damaged file any more, and tells of it.
func (s *Server) setAside(stream string, found cache.Found, err error) {
	s.metrics.Damaged(stream)
	s.log.Error("integrity: a published file cannot be served", "stream", stream, "path", found.Path,
		"digest", found.Digest.String(), "snapshot", found.Snapshot.String(), "reason", err)
	if err := s.store.Doubt(found.Digest); err != nil {
		s.log.Error("the store fails", "stream", stream, "reason", err)
	}
	if s.damaged != nil {
		s.damaged(stream, found.Entry)
	}
}
