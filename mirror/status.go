package mirror

import (
	"errors"
	"time"

	"oxbow/cache"
)

// A Status is what there is to say of a stream now.
type Status struct {
	Stream string
	Path   string

	Advertise Advertise
	Offline   bool

	Snapshot  string    // the current one; "": nothing is published yet
	Published time.Time // when it was
	Files     int       // items of it
	Bytes     int64     // of its distinct blobs
	Kept      int       // snapshots, the current one included

	Held *Held    // by a rollback; nil: it is not
	Hold []string // filters of versions that are held back, by definition or command
	Last *Last    // nil: there was no sync yet

	// These are the scheduler's; where another process synced since, that counts.
	LastAttempt time.Time
	LastGood    time.Time
	Failures    int       // in a row
	Next        time.Time // zero: by command only; in the past: due

	// UpstreamIndex is the date of the upstream index that was accepted last.
	UpstreamIndex time.Time

	// NoCustody says why the custody is not here that upstream offered; empty: none was, or it is here.
	NoCustody string
}

// ReadStatus returns the status of a stream. It reads files only, few whatever the
// number of kept snapshots, and so needs no lock.
func ReadStatus(f *cache.Files, name string) (Status, error) {
	st, err := readState(f, name)
	if err != nil {
		return Status{}, err
	}
	s := Status{Stream: name, Path: st.Stream.Path, Advertise: st.Stream.Advertise, Offline: st.Stream.Offline, Held: st.Held, Hold: st.wanted().Hold, Last: st.Last, UpstreamIndex: st.Accepted.Index, NoCustody: st.Accepted.NoCustody}
	r, _ := readSchedule(f) // what is lost or garbage is as good as none
	s.attempts(r[name], st.Last)
	current, err := f.Current(name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.Snapshot, s.Published, s.Files, s.Bytes = current.ID.String(), current.Created, current.Items, current.Bytes
	s.Kept, err = f.Kept(name)
	return s, err
}

// attempts sets what is known of syncs from the scheduler's record and from the end of
// the last one that left a trace.
func (s *Status) attempts(r record, last *Last) {
	s.LastAttempt, s.LastGood, s.Failures, s.Next = r.Attempt, r.Good, r.Failures, r.Next
	if last == nil || !last.Time.After(r.Attempt) {
		return
	}
	s.LastAttempt = last.Time
	switch last.Outcome {
	case OutcomeDone:
		s.LastGood, s.Failures = last.Time, 0
	case OutcomeFailed:
		s.Failures++
	}
}
