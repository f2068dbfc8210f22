package mirror

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"oxbow/cache"
)

// A Keep says for how long superseded snapshots of a stream stay: one that any part of it asks for does. The current one and
// pinned ones stay in any case.
type Keep struct {
	Last   int           `json:"last"`   // so many of the newest, the current one included
	Daily  int           `json:"daily"`  // the newest of each of the last so many days that have one
	Weekly int           `json:"weekly"` // the newest of each of the last so many weeks that have one, from Monday on
	Grace  time.Duration `json:"grace"`  // all that were current within this time
}

// DefaultKeep is what a stream keeps if nothing else is said. MAAS downloads for up to two hours what an index of before named,
// and tries again every hour.
var DefaultKeep = Keep{Last: 10, Daily: 7, Weekly: 4, Grace: 24 * time.Hour}

// OrDefault returns k or, if nothing is said, [DefaultKeep].
func (k Keep) OrDefault() Keep { return cmp.Or(k, DefaultKeep) }

// PlanSweep plans a sweep of the store by what the streams keep. All snapshots of a
// stream whose definition is not there, or cannot be read, stay.
func (m *Mirror) PlanSweep(ctx context.Context) (*cache.SweepPlan, error) {
	all, unreadable := Streams(m.store.Files())
	if unreadable != nil {
		m.log.Warn("all snapshots of a stream stay, since its definition cannot be read", "reason", unreadable)
	}
	keeps := map[string]Keep{}
	for _, s := range all {
		keeps[s.Name] = s.Keep.OrDefault()
	}
	return m.store.PlanSweep(ctx, cache.SweepOptions{Expired: func(stream string, kept []cache.Snapshot) map[cache.Digest]string {
		k, defined := keeps[stream]
		if !defined {
			return nil
		}
		return k.expired(kept, m.now())
	}})
}

// expired returns those of the kept snapshots, newest first, that nothing asks for, and why. Days are those of UTC.
func (k Keep) expired(kept []cache.Snapshot, now time.Time) map[cache.Digest]string {
	gone := map[cache.Digest]string{}
	days, weeks := map[string]bool{}, map[string]bool{}
	superseded := now
	for i, s := range kept {
		year, week := s.Created.UTC().ISOWeek()
		stays := i < max(k.Last, 1)
		stays = firstOf(days, s.Created.UTC().Format(time.DateOnly), k.Daily) || stays
		stays = firstOf(weeks, fmt.Sprint(year, week), k.Weekly) || stays
		stays = stays || now.Sub(superseded) < k.Grace
		if !stays {
			gone[s.ID] = "superseded " + superseded.UTC().Format(time.RFC3339) + ", and nothing of `keep` asks for it"
		}
		superseded = s.Created
	}
	return gone
}

// firstOf reports whether a period is seen for the first time, and is one of the first n.
func firstOf(seen map[string]bool, period string, n int) bool {
	if seen[period] || len(seen) >= n {
		return false
	}
	seen[period] = true
	return true
}
