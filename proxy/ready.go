package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

const (
	// staleIndex is the age from which upstream's index is worth a note. The streams
	// of images.maas.io get a new one every day or two.
	staleIndex = 7 * 24 * time.Hour

	// expirySoon is how long before its end a certificate is worth a note: ACME
	// clients renew 30 days ahead, so by then that has failed for two weeks.
	expirySoon = 14 * 24 * time.Hour

	// maxNote and maxReason bound a note and what it quotes, in characters.
	maxNote   = 500
	maxReason = 250
)

// serveReady says whether every stream has something to serve, with a line a reason when
// it is not so. What else an operator should know follows as notes, which change nothing:
// old images are better than none.
func (s *Server) serveReady(w *reply) {
	status, lines := http.StatusServiceUnavailable, s.reasons()
	if len(lines) == 0 {
		status, lines = http.StatusOK, []string{"ready"}
	}
	for _, n := range s.notes() {
		lines = append(lines, "note: "+clip(shown(n), maxNote))
	}
	say(w, status, "", strings.Join(lines, "\n"))
}

// reasons says what keeps the server from being ready.
func (s *Server) reasons() (reasons []string) {
	if s.draining.Load() {
		reasons = append(reasons, "draining: the server is about to end")
	}
	for _, stream := range distinct(s.streams()) {
		_, err := s.store.Current(stream)
		switch {
		case errors.Is(err, cache.ErrNoSnapshot):
			reasons = append(reasons, "stream "+stream+": no snapshot yet")
		case err != nil:
			s.log.Error("cannot read the current snapshot", "stream", stream, "reason", err)
			reasons = append(reasons, "stream "+stream+": the store cannot answer")
		}
	}
	return reasons
}

// notes says what is not as it should be and keeps nobody from being served.
func (s *Server) notes() (notes []string) {
	now := time.Now()
	for _, stream := range distinct(s.streams()) {
		state := s.syncs(stream)
		if !state.Held.IsZero() {
			notes = append(notes, fmt.Sprintf("stream %s: held by a rollback of %s, until `oxbow snapshot rollback %[1]s --resume`", stream, state.Held.UTC().Format(time.RFC3339)))
		}
		if state.Failures > 0 {
			notes = append(notes, s.failing(stream, state, now))
		}
		if state.NoCustody != "" {
			notes = append(notes, "stream "+stream+": "+state.NoCustody)
		}
		if at := state.UpstreamIndex; !at.IsZero() && now.Sub(at) >= staleIndex {
			notes = append(notes, fmt.Sprintf("stream %s: upstream's index is of %s, %s old",
				stream, at.UTC().Format(time.DateOnly), age(now.Sub(at))))
		}
	}
	if space, err := s.store.Space(); err != nil {
		notes = append(notes, err.Error())
	} else if space.Free < space.Reserve {
		notes = append(notes, fmt.Sprintf("the disk has %d MiB left, and syncs stop below %d", space.Free>>20, space.Reserve>>20))
	}
	if s.certificate != nil {
		switch left := s.certificate.Expires().Sub(now); {
		case left <= 0:
			notes = append(notes, "the TLS certificate expired "+age(-left)+" ago")
		case left < expirySoon:
			notes = append(notes, "the TLS certificate expires in "+age(left))
		}
	}
	return append(notes, s.more()...)
}

// failing tells of a stream whose last sync failed, or several in a row.
func (s *Server) failing(stream string, state mirror.Standing, now time.Time) string {
	note := "stream " + stream + ": the last sync failed"
	if state.Failures > 1 {
		note += fmt.Sprintf(" %d times in a row", state.Failures)
	}
	if state.Reason != "" {
		note += ": " + clip(shown(state.Reason), maxReason)
	}
	if current, err := s.store.Current(stream); err == nil {
		note += "; what is served was published " + age(now.Sub(current.Created)) + " ago"
	}
	return note
}
