package mirror

import "time"

// An Event is the end of one sync, however it was asked for. Syncs that were
// interrupted are none.
type Event struct {
	Stream   string
	Time     time.Time     // of the end
	Duration time.Duration // from the first request on
	Outcome  Outcome
	Reason   string // why it failed, or what was left out; empty when all was done
	Snapshot string // the current one afterwards, as far as known
	Changed  bool   // whether it is a new one
	Fetched  Amount
}
