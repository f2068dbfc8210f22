package mirror

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"oxbow/cache"
)

// SchedulerOptions configures a [Scheduler].
type SchedulerOptions struct {
	// Sync syncs a stream: [Mirror.Sync].
	Sync func(ctx context.Context, name string) (*Result, error)

	// Store keeps what was and what is next, for reading commands and the next
	// process. If nil, nothing is kept.
	Store *cache.Store

	// OnFailure returns a command line for /bin/sh, run after each scheduled sync that
	// failed or left something out. Its environment is PATH, HOME and LANG of this
	// process, which may have secrets in others, and the facts: OXBOW_STREAM,
	// OXBOW_OUTCOME (failed or partial), OXBOW_REASON (one line), OXBOW_FAILURES (in a
	// row), OXBOW_TIME (RFC 3339, as all times), OXBOW_SNAPSHOT (that is served),
	// OXBOW_PUBLISHED (when it was), OXBOW_AGE (since then, in seconds), OXBOW_NEXT (the
	// next try) and OXBOW_UPSTREAM (URLs without passwords); what is not known is
	// empty. It is ended after a minute, and ten seconds after Run is told to end. If nil, or the line is empty, nothing is run.
	OnFailure func() string

	// Now is the clock; the days and times of the day of schedules are those of its
	// location. If nil, [time.Now] is used.
	Now func() time.Time

	// Rand draws a number from 0 up to, but not including, 1. If nil, [rand.Float64]
	// is used.
	Rand func() float64

	// Log is told how each sync ended. If nil, nothing is logged.
	Log *slog.Logger
}

// A Scheduler syncs streams by their schedules. Its methods may be called from
// several goroutines.
type Scheduler struct {
	o    SchedulerOptions
	wake chan struct{}  // holds a token when there is something new
	work sync.WaitGroup // of what Run has started

	commandTime time.Duration // bounds a command of the operator
	lastTime    time.Duration // and what is left of it when Run is to end

	mu      sync.Mutex // guards the rest; not held during I/O
	streams map[string]*scheduled
	seen    time.Time // the newest reading of the clock
	saved   []byte    // what the store was last given
}

// scheduled is a stream with a schedule, or of which a sync was noted.
type scheduled struct {
	schedule Schedule
	record
	busy    bool      // a sync by schedule, or the command after it, is under way
	syncing bool      // it is the sync
	began   time.Time // when it did
	noted   *Event    // meanwhile
}

const (
	// maxSyncs bounds the scheduled syncs at once: many streams that are due at one
	// moment, as after a start, share one line.
	maxSyncs = 2

	// slotTime is how long a sync keeps others from beginning: one that its upstream
	// drags out for hours is not to hold up the others.
	slotTime = 10 * time.Minute

	// maxSleep bounds how long the clock is not looked at: timers do not run while a
	// machine is suspended, and do not know when its clock is set.
	maxSleep = time.Minute

	// busyPause is the wait before another try where somebody else syncs the stream, or rolls it back.
	busyPause = 10 * time.Second
)

// NewScheduler returns a Scheduler that knows what the store keeps of earlier syncs,
// and has no schedules yet.
func NewScheduler(o SchedulerOptions) *Scheduler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.OnFailure == nil {
		o.OnFailure = func() string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{o: o, wake: make(chan struct{}, 1), streams: map[string]*scheduled{}, commandTime: commandTime, lastTime: lastTime}
	if o.Store == nil {
		return s
	}
	all, err := readSchedule(o.Store.Files())
	if err != nil && !errors.Is(err, cache.ErrMiss) {
		o.Log.Warn("what was known of earlier syncs is lost: every stream with a schedule is due", "reason", err)
	}
	for name, r := range all {
		r.Next = time.Time{}
		s.streams[name] = &scheduled{record: r}
	}
	return s
}

// Set replaces all schedules. A stream that is not among them is forgotten; one with
// the zero schedule is not, and is synced by command only.
func (s *Scheduler) Set(schedules map[string]Schedule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for name := range s.streams {
		if _, ok := schedules[name]; !ok {
			delete(s.streams, name)
		}
	}
	for name, schedule := range schedules {
		st := s.streams[name]
		if st == nil {
			st = &scheduled{}
			s.streams[name] = st
		}
		if st.schedule == schedule {
			continue
		}
		st.schedule = schedule
		if st.Failures == 0 && s.empty(name) {
			st.Attempt = time.Time{} // what was good is gone
		}
		st.plan(now)
	}
	s.signal()
}

// empty reports whether the stream has nothing published.
func (s *Scheduler) empty(name string) bool {
	if s.o.Store == nil {
		return false
	}
	_, err := s.o.Store.Current(name)
	return errors.Is(err, cache.ErrNoSnapshot)
}

// A Standing is how the syncs of a stream stand.
type Standing struct {
	Attempt  time.Time // end of the last one; zero: none is known
	Good     time.Time // end of the last good one
	Next     time.Time // when the next is due, may be in the past; zero: never by itself
	Failures int       // in a row that failed, or left out what may still come
	Reason   string    // why the last one failed, or what it left out

	// UpstreamIndex is the date that upstream's index gives itself, of the last one
	// accepted; zero: none was. Someone who holds updates back cannot make it newer.
	UpstreamIndex time.Time

	// NoCustody says why the custody is not here that upstream offers; empty: it is, or none is offered.
	NoCustody string

	// Held is since when a rollback keeps syncs from changing it; zero: none does.
	Held time.Time
}

// Standing returns how the syncs of a stream stand.
func (s *Scheduler) Standing(name string) Standing {
	var standing Standing
	if s.o.Store != nil {
		if st, err := readState(s.o.Store.Files(), name); err == nil { // else it was just dropped
			standing.UpstreamIndex, standing.NoCustody = st.Accepted.Index, st.Accepted.NoCustody
			if st.Held != nil {
				standing.Held = st.Held.Since
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[name]; st != nil {
		standing.Attempt, standing.Good, standing.Next, standing.Failures, standing.Reason = st.Attempt, st.Good, st.Next, st.Failures, st.Reason
	}
	return standing
}

// Due has a stream with a schedule synced now: what is wanted of it has changed.
func (s *Scheduler) Due(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[name]; st != nil && !st.schedule.IsZero() {
		st.record.Next = s.now()
		s.signal()
	}
}

// Note takes down the end of a sync, so that those asked for by hand count as
// attempts, too. It may be told of the scheduler's own as well.
func (s *Scheduler) Note(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[e.Stream]
	if st == nil {
		st = &scheduled{}
		s.streams[e.Stream] = st
	}
	if st.syncing { // its own, unless it turns out that somebody else was first
		st.noted = &e
		return
	}
	s.take(st, e)
	s.logEnd(e, st)
	s.signal()
}

// Run syncs what is due until ctx ends, which ends its syncs. It returns the cause of
// that, when these and the commands after them are done. It is called once.
func (s *Scheduler) Run(ctx context.Context) error {
	for {
		wait := s.start(ctx)
		s.save()
		if ctx.Err() != nil {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	s.work.Wait()
	s.save()
	return context.Cause(ctx)
}

func (s *Scheduler) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// now reads the clock, which is the wall's: without the monotonic reading, which
// stands still while the machine sleeps. When it was set back, everything is planned
// anew. The caller holds s.mu.
func (s *Scheduler) now() time.Time {
	now := s.o.Now().Round(0)
	if now.Before(s.seen) {
		for _, st := range s.streams {
			st.plan(now)
		}
	}
	s.seen = now
	return now
}

// plan says when the stream is next due. What was done later than now counts as done
// now: the clock was set back since.
func (st *scheduled) plan(now time.Time) {
	if st.Attempt.After(now) {
		st.Attempt = now
	}
	st.Next = st.schedule.Next(st.History, now)
}

// take makes the end of a sync part of the stream's history. The caller holds s.mu.
func (s *Scheduler) take(st *scheduled, e Event) {
	now := s.now().UTC().Truncate(time.Second)
	st.Attempt, st.Draw = now, s.o.Rand()
	st.Reason = oneLine(e.Reason)
	if e.Again {
		st.Failures++
	} else {
		st.Failures, st.Good = 0, now
	}
	st.plan(s.seen)
}

// start begins the syncs that are due, as far as there may be more at once, those that
// have waited longest first. It returns how long nothing else will be due.
func (s *Scheduler) start(ctx context.Context) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	wait, running := maxSleep, 0
	var due []string
	for name, st := range s.streams {
		if st.syncing && now.Sub(st.began) < slotTime {
			running++
		}
		switch next := st.Next; {
		case st.busy || next.IsZero():
		case next.After(now):
			wait = min(wait, next.Sub(now))
		default:
			due = append(due, name)
		}
	}
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(s.streams[a].Next.Compare(s.streams[b].Next), cmp.Compare(a, b))
	})
	for _, name := range due {
		if running == maxSyncs || ctx.Err() != nil {
			break
		}
		running++
		st := s.streams[name]
		st.busy, st.syncing, st.began, st.noted = true, true, now, nil
		s.work.Go(func() { s.run(ctx, name, st) })
	}
	return wait
}

// run syncs a stream, and runs the command if that went wrong.
func (s *Scheduler) run(ctx context.Context, name string, st *scheduled) {
	began := s.o.Now()
	res, err := s.o.Sync(ctx, name)
	if e, ended := s.ended(ctx, name, st, began, res, err); ended && e.Outcome != OutcomeDone {
		if line := s.o.OnFailure(); line != "" {
			s.onFailure(ctx, line, e, st)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.busy = false
	s.signal()
}

// ended takes down how a sync of the scheduler ended. It reports false for one that
// was none: interrupted, refused because somebody else syncs the stream, or of one
// that a rollback holds.
func (s *Scheduler) ended(ctx context.Context, name string, st *scheduled, began time.Time, res *Result, err error) (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.syncing = false
	s.signal()
	if errors.Is(err, ErrSyncing) {
		if st.noted != nil { // it has ended meanwhile
			s.take(st, *st.noted)
			s.logEnd(*st.noted, st)
		} else {
			st.Next = s.now().Add(busyPause)
		}
		return Event{}, false
	}
	if errors.Is(err, ErrRolledBack) {
		st.Next = s.now().Add(busyPause)
		return Event{}, false
	}
	if err != nil && ctx.Err() != nil {
		return Event{}, false
	}
	if res != nil {
		for _, w := range res.Warnings {
			s.o.Log.Warn(w, "stream", name)
		}
	}
	if res != nil && res.Held { // which says nothing of upstream
		st.Attempt = s.now().UTC().Truncate(time.Second)
		st.plan(s.seen)
		return Event{}, false
	}
	e := newEvent(name, s.now(), res, err)
	e.Duration = e.Time.Sub(began)
	s.take(st, e)
	s.logEnd(e, st)
	return e, true
}

func (s *Scheduler) logEnd(e Event, st *scheduled) {
	level, text := slog.LevelInfo, "synced"
	switch e.Outcome {
	case OutcomeFailed:
		level, text = slog.LevelError, "sync failed"
	case OutcomePartial:
		level, text = slog.LevelWarn, "sync left something out"
	}
	attrs := []slog.Attr{slog.String("stream", e.Stream)}
	if e.Snapshot != "" {
		attrs = append(attrs, slog.String("snapshot", e.Snapshot), slog.Bool("changed", e.Changed))
	}
	if e.Reason != "" {
		attrs = append(attrs, slog.String("reason", e.Reason), slog.Int("failures", st.Failures))
	}
	attrs = append(attrs, slog.Int("files", e.Fetched.Files), slog.Int64("bytes", e.Fetched.Bytes), slog.Float64("seconds", e.Duration.Seconds()))
	if next := st.Next; !next.IsZero() {
		attrs = append(attrs, slog.Time("next", next))
	}
	s.o.Log.LogAttrs(context.Background(), level, text, attrs...)
}

// save gives the store what has changed. Only Run calls it.
func (s *Scheduler) save() {
	if s.o.Store == nil {
		return
	}
	s.mu.Lock()
	all := make(map[string]record, len(s.streams))
	for name, st := range s.streams {
		r := st.record
		r.Next = r.Next.UTC()
		all[name] = r
	}
	s.mu.Unlock()
	data, err := writeSchedule(all)
	if err == nil && bytes.Equal(data, s.saved) {
		return
	}
	s.saved = data // or, after an error, it is warned of at each turn
	if err == nil {
		err = s.o.Store.WriteSchedule(data)
	}
	if err != nil {
		s.o.Log.Warn("what is known of syncs is not kept for the next process", "reason", err)
	}
}
