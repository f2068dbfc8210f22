package mirror

import (
	"strings"
	"time"
)

// A Schedule says when a stream is synced by itself: Every so often, or At a time
// of each day. The zero Schedule is never.
type Schedule struct {
	// Every is the time from the end of a sync to the next, a minute or more.
	Every time.Duration
	// At is a time of the day, "HH:MM", where this machine is.
	At string
	// Jitter is how much later a run may begin: by a random part of it, drawn for
	// each run, so that many mirrors do not ask one upstream at the same moment. It
	// is shorter than Every, or than a day.
	Jitter time.Duration
}

// A History is what a [Schedule] has to know of a stream's syncs so far.
type History struct {
	Attempt  time.Time `json:"attempt,omitzero"`   // end of the last one; zero: there was none
	Good     time.Time `json:"last_good,omitzero"` // end of the last good one
	Failures int       `json:"failures,omitempty"` // in a row, since the last good one
	Draw     float64   `json:"draw"`               // drawn after the last one: 0 up to, but not including, 1
}

// The wait after the first failure, which doubles with each further one, and what it
// is at most.
const (
	firstRetry = time.Minute
	lastRetry  = time.Hour
)

// IsZero reports whether s is never.
func (s Schedule) IsZero() bool { return s == Schedule{} }

// String returns s in words, as "every 1h, up to 5m later".
func (s Schedule) String() string {
	var text string
	switch {
	case s.IsZero():
		return "only by command"
	case s.At != "":
		text = "at " + s.At
	default:
		text = "every " + DurationText(s.Every)
	}
	if s.Jitter > 0 {
		text += ", up to " + DurationText(s.Jitter) + " later"
	}
	return text
}

// DurationText returns d as Go writes it, without the parts that are zero at its end.
func DurationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Next returns when the next run is due; in the past, when it was missed: it is due
// then, once, however many were missed. It is zero for never.
//
// A stream's first run is due now. After a failure it is tried again after a
// minute, then two, four and so on up to an hour (or Every, where that is less), of
// which a random half may be missing, but no later than the regular run. A clock that
// was set back delays nothing by more than the schedule's own interval from now:
// what was done later than now counts as done now.
//
// Days and times of the day are those of now's location.
func (s Schedule) Next(h History, now time.Time) time.Time {
	if s.IsZero() {
		return time.Time{}
	}
	if h.Attempt.IsZero() {
		return now
	}
	last := h.Attempt.In(now.Location())
	if last.After(now) {
		last = now
	}
	regular := last.Add(s.Every)
	if s.At != "" {
		regular = s.daily(last)
	}
	regular = regular.Add(part(s.Jitter, h.Draw))
	if h.Failures == 0 {
		return regular
	}
	d := s.backoff(h.Failures)
	if retry := last.Add(d/2 + part(d/2, h.Draw)); retry.Before(regular) {
		return retry
	}
	return regular
}

func part(d time.Duration, draw float64) time.Duration { return time.Duration(float64(d) * draw) }

func (s Schedule) backoff(failures int) time.Duration {
	most := lastRetry
	if s.At == "" {
		most = min(most, s.Every)
	}
	d := firstRetry
	for ; failures > 1 && d < most; failures-- {
		d *= 2
	}
	return min(d, most)
}

// daily returns the first time after last that is At on its day.
func (s Schedule) daily(last time.Time) time.Time {
	at, _ := time.Parse("15:04", s.At)
	// The first of the days may have had its run already, and where clocks change
	// at midnight a day's run may lie outside of it.
	for day := -1; ; day++ {
		if t := onDay(last, day, at.Hour(), at.Minute()); t.After(last) {
			return t
		}
	}
}

// onDay returns a time of the day, so many days after that of t. Of a time that
// comes twice it is one, always the same; one that is left out is as long after
// midnight as it would be had the clock not been changed.
func onDay(t time.Time, days, hour, minute int) time.Time {
	year, month, day := t.Date()
	at := time.Date(year, month, day+days, hour, minute, 0, 0, t.Location())
	if at.Hour() == hour && at.Minute() == minute {
		return at
	}
	_, offset := at.Add(-12 * time.Hour).Zone() // before the change
	return time.Date(year, month, day+days, hour, minute, 0, 0, time.FixedZone("", offset)).In(t.Location())
}
