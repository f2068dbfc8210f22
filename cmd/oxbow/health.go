package main

import (
	"fmt"
	"sync"
	"time"

	"oxbow/cache"
)

// A health is what the last check, scrub or repair left.
type health struct {
	mu     sync.Mutex // guards the rest
	faults int
	at     time.Time

	republished map[string]time.Time // when a stream was last told to be published anew
}

// noteFaults notes how many faults a check or a repair has left.
func (d *daemon) noteFaults(left int) {
	d.health.mu.Lock()
	d.health.faults, d.health.at = left, time.Now()
	d.health.mu.Unlock()
	d.front.metrics.Faults(left)
}

// note says what is left, for readiness.
func (h *health) note() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.faults == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the store has %s, as of %s: `oxbow store check` says which", counted(h.faults, "fault"), h.at.UTC().Format(time.RFC3339))}
}

// republishEvery bounds how often requests for a damaged document have a stream synced.
const republishEvery = time.Minute

// damaged has a stream synced of which a document could not be served: what is published then is whole.
func (d *daemon) damaged(stream string, e cache.Entry) {
	if e.Kind == cache.KindItem || e.Kind == cache.KindKnown {
		return // it is fetched already
	}
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	if now := time.Now(); now.Sub(d.health.republished[stream]) >= republishEvery {
		d.health.republished[stream] = now
		d.scheduler.Due(stream)
	}
}
