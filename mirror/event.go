package mirror

import (
	"slices"
	"time"
)

// An Event is the end of one sync, however it was asked for. Syncs that were
// interrupted are none.
type Event struct {
	Stream   string
	Time     time.Time     // of the end
	Duration time.Duration // from the first request on
	Outcome  Outcome
	Reason   string // why it failed, or what was left out; empty when all was done
	Again    bool   // whether another try may bring what failed or was left out
	Snapshot string // the current one afterwards, as far as known
	Changed  bool   // whether it is a new one
	Fetched  Amount

	// Refresh: it was one of [Mirror.Refresh], which is told of only if something
	// changed, and leaves what is wanted beforehand to the next sync.
	Refresh bool
}

// newEvent is the end, at that time, of a sync with this outcome.
func newEvent(stream string, at time.Time, res *Result, err error) Event {
	e := Event{Stream: stream, Time: at, Outcome: OutcomeDone}
	if res != nil {
		e.Snapshot, e.Changed, e.Fetched = res.Snapshot, res.Changed, res.Fetched
	}
	switch {
	case err != nil:
		e.Outcome, e.Reason, e.Again = OutcomeFailed, err.Error(), true
	case len(res.LeftOut) > 0:
		e.Outcome, e.Reason, e.Again = OutcomePartial, leftOut(res.LeftOut), curable(res.LeftOut)
	}
	return e
}

// curable reports whether any of what was left out may be had another time.
func curable(all []Omission) bool {
	return slices.ContainsFunc(all, func(o Omission) bool { return !o.refused })
}
