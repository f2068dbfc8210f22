package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"oxbow/cache"
)

// caching has caches between us and the client ask again each time, which the ETag makes
// cheap. That goes for items too: upstream may put another content under an old path, and
// the metadata that clients hold the bytes against is always the newest.
const caching = "no-cache"

// serveStream answers for a path inside a stream: from its current snapshot, or from the
// newest older one that names it.
func (s *Server) serveStream(w *reply, r *http.Request, stream Stream, path string) {
	w.stream = stream.Name
	if path == "" {
		say(w, http.StatusNotFound, "unknown", "stream "+stream.Name+": its index is streams/v1/index.sjson below this URL")
		return
	}
	found, err := s.store.Find(stream.Name, stream.View, path)
	if errors.Is(err, cache.ErrMiss) && s.refresh(r, stream) {
		found, err = s.store.Find(stream.Name, stream.View, path)
	}
	switch {
	case errors.Is(err, cache.ErrMiss):
		s.unknown(w, r, path)
	case err != nil:
		s.broken(w, r, err)
	default:
		s.serveEntry(w, r, found)
	}
}

// serveEntry answers with an entry of a snapshot.
func (s *Server) serveEntry(w *reply, r *http.Request, found cache.Found) {
	w.snapshot = found.Snapshot
	if found.Kind == cache.KindKnown {
		s.serveKnown(w, r, found)
		return
	}
	s.serveHere(w, r, found)
}

// serveHere answers with an entry whose blob is here.
func (s *Server) serveHere(w *reply, r *http.Request, found cache.Found) {
	file, err := s.open(found.Entry)
	if errors.Is(err, cache.ErrMiss) || errors.Is(err, errWrongSize) {
		s.serveDamaged(w, r, found, err)
		return
	}
	if err != nil { // the file may be whole: out of descriptors or memory, a disk that fails
		s.broken(w, r, err)
		return
	}
	defer file.Close()
	s.sendFile(w, r, found, file)
}

var errWrongSize = errors.New("wrong size")

// open opens the blob of an entry, which has to be as long as the entry says.
func (s *Server) open(e cache.Entry) (*os.File, error) {
	file, err := s.store.Blob(e.Digest)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() != e.Size {
		err = fmt.Errorf("%w: want %d bytes, have %d", errWrongSize, e.Size, info.Size())
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// sendFile sends the file, or what was asked of it.
func (s *Server) sendFile(w *reply, r *http.Request, found cache.Found, file *os.File) {
	s.describe(w, r, found, cacheStatus(found)+s.overdue(w.stream, found))
	http.ServeContent(w, r, "", time.Time{}, file)
	if !w.cutShort() {
		return
	}
	if w.readFailed() {
		s.setAside(w.stream, found, fmt.Errorf("sent %d of %d bytes: %w", w.bytes, w.length, endOrError(w.err)))
		if s.mayFill(found) {
			s.fills.join(w.stream, found.Entry) // for the next one who asks
		}
	}
	panic(http.ErrAbortHandler) // the client has to see that there is more to come
}

// describe sets the header of an entry, and makes the request one that net/http reads
// as it is meant.
func (s *Server) describe(w *reply, r *http.Request, found cache.Found, status string) {
	h := w.Header()
	h.Set("ETag", `"`+found.Digest.String()+`"`)
	h.Set("Cache-Status", status)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", caching)
	document := found.Kind != cache.KindItem && found.Kind != cache.KindKnown
	if t := documentType(found.Path); document && t != "" {
		h.Set("Content-Type", t)
	}
	s.offerCustody(w, r, found)
	if endsConnection(r, document) {
		h.Set("Connection", "close")
	}
	if asked, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		r.Header.Set("Range", "bytes="+satisfiable(asked, found.Size))
	} else {
		r.Header.Del("Range") // RFC 9110, 14.2: an unknown unit is ignored
	}
}

// satisfiable returns the ranges with every "-0" as one that begins behind the file. RFC
// 9110, 14.1.2: the last no bytes are not satisfiable; net/http would send them.
func satisfiable(ranges string, size int64) string {
	all := strings.Split(ranges, ",")
	for i, r := range all {
		if last, ok := strings.CutPrefix(strings.TrimSpace(r), "-"); ok && last != "" && strings.Trim(last, "0") == "" {
			all[i] = fmt.Sprintf("%d-", size)
		}
	}
	return strings.Join(all, ",")
}

var errShortFile = errors.New("the file ends there")

func endOrError(err error) error {
	if err == nil {
		return errShortFile
	}
	return err
}

// What Cache-Status says of a file that is served, as RFC 9211 has it.
const (
	hitCurrent = "oxbow; hit"
	hitOlder   = "oxbow; hit; detail=older-snapshot"
)

// cacheStatus says how the entry was found.
func cacheStatus(found cache.Found) string {
	if found.Current {
		return hitCurrent
	}
	return hitOlder
}

// overdue returns what Cache-Status says of upstream's own documents when they could not
// be brought up to date: since when, as a lifetime below zero (RFC 9211, 2.5).
func (s *Server) overdue(stream string, found cache.Found) string {
	if found.Kind != cache.KindUpstream {
		return ""
	}
	if d := stale(s.syncs(stream), time.Now()); d > 0 {
		return fmt.Sprintf("; ttl=-%d", int(d.Seconds()))
	}
	return ""
}

// notStored is the detail of an answer for a file that would have to be fetched.
const notStored = "not-stored"

// absent answers for a file that the metadata names and the store does not have.
func (s *Server) absent(w *reply, r *http.Request, found cache.Found) {
	if endsConnection(r, false) {
		w.Header().Set("Connection", "close")
	}
	say(w, http.StatusNotFound, notStored, "not stored here")
}

// unknown answers for a path that no snapshot names.
func (s *Server) unknown(w *reply, r *http.Request, path string) {
	if endsConnection(r, documentType(path) != "") {
		w.Header().Set("Connection", "close")
	}
	say(w, http.StatusNotFound, "unknown", "not found")
}

// broken answers when the store itself fails.
func (s *Server) broken(w *reply, r *http.Request, err error) {
	s.log.Error("the store fails", "stream", w.stream, "path", shownPath(r.URL.Path), "reason", err)
	if takesStatusAsFinal(r) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Retry-After", "30")
	say(w, http.StatusServiceUnavailable, "store-failed", "the store cannot answer now")
}
