package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oxbow/mirror"
)

// A syncer stands for a Mirror in fake time: each sync takes a while, and is taken
// down with its start.
type syncer struct {
	t     *testing.T
	start time.Time
	takes time.Duration
	fails func(name string) error // nil: never
	held  bool                    // by a rollback

	mu      sync.Mutex // guards the rest
	began   []string   // "NAME TIME", the time since start
	running map[string]bool
	most    int
}

func newSyncer(t *testing.T) *syncer {
	return &syncer{t: t, start: time.Now(), takes: time.Second, running: map[string]bool{}}
}

func (s *syncer) sync(ctx context.Context, name string) (*mirror.Result, error) {
	s.mu.Lock()
	if s.running[name] {
		s.t.Errorf("%s is synced twice at once", name)
	}
	s.running[name] = true
	s.most = max(s.most, len(s.running))
	s.began = append(s.began, name+" "+time.Since(s.start).String())
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, name)
	}()
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.fails != nil {
		if err := s.fails(name); err != nil {
			return nil, err
		}
	}
	return &mirror.Result{Stream: name, Held: s.held}, nil
}

// runFor runs the scheduler for d of fake time and returns the syncs that began.
func (s *syncer) runFor(sched *mirror.Scheduler, d time.Duration) []string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	if err := sched.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		s.t.Errorf("run: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	began := s.began
	s.began = nil
	return began
}

func (s *syncer) scheduler() *mirror.Scheduler {
	return mirror.NewScheduler(mirror.SchedulerOptions{Sync: s.sync, Rand: func() float64 { return 0.5 }})
}

func wantSyncs(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("syncs %q\nwant  %q", got, want)
	}
}

// Streams are synced when they are due, by what is set at the moment, however often
// that changes; one that is set again as it was keeps its time.
func TestSchedulerSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		s := y.scheduler()
		hourly := mirror.Schedule{Every: time.Hour, Jitter: 10 * time.Minute}
		s.Set(map[string]mirror.Schedule{"a": hourly, "never": {}})
		time.AfterFunc(2*time.Hour, func() { s.Set(map[string]mirror.Schedule{"a": hourly, "b": {Every: 2 * time.Hour}}) })
		time.AfterFunc(150*time.Minute, func() { s.Set(map[string]mirror.Schedule{"b": {Every: 2 * time.Hour}}) })
		time.AfterFunc(200*time.Minute, func() { s.Set(map[string]mirror.Schedule{"b": {Every: 90 * time.Minute}}) })
		wantSyncs(t, y.runFor(s, 5*time.Hour), "a 0s", "a 1h5m1s", "b 2h0m0s", "a 2h10m2s", "b 3h30m1s")
		if next, failures := s.Next("b"); !next.Equal(y.start.Add(5*time.Hour+2*time.Second)) || failures != 0 {
			t.Errorf("b is next due %v after the start, with %d failures", next.Sub(y.start), failures)
		}
		if next, _ := s.Next("a"); !next.IsZero() {
			t.Errorf("a is due at %v and has no schedule", next)
		}
	})
}

// A stream that a rollback holds is looked at when it is due, and not taken for synced; a sync that the rollback interrupts is
// neither good nor a failure.
func TestSchedulerHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		s := y.scheduler()
		s.Set(map[string]mirror.Schedule{"a": {Every: time.Hour}})
		y.fails = func(string) error {
			y.fails, y.held = nil, true
			return mirror.ErrRolledBack
		}
		wantSyncs(t, y.runFor(s, 3*time.Hour), "a 0s", "a 11s", "a 1h0m12s", "a 2h0m13s")
		if st := s.Standing("a"); !st.Good.IsZero() || st.Failures != 0 {
			t.Errorf("last good %v, %d failures", st.Good, st.Failures)
		}
	})
}

// Many streams that are due at the same moment are synced two at once; the one that
// has waited longest comes first.
func TestSchedulerCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		y.takes = 9 * time.Minute
		s := y.scheduler()
		set := map[string]mirror.Schedule{}
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			set[name] = mirror.Schedule{Every: 24 * time.Hour}
		}
		s.Set(set)
		got := y.runFor(s, time.Hour)
		slices.Sort(got) // of two at once either may be heard of first
		wantSyncs(t, got, "a 0s", "b 0s", "c 9m0s", "d 9m0s", "e 18m0s")
		if y.most != 2 {
			t.Errorf("%d syncs at once, want 2", y.most)
		}
	})
}

// Syncs that go on for ever, since their upstreams trickle, hold up the others for ten
// minutes at most.
func TestSchedulerDraggedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		y.takes = 1000 * time.Hour
		s := y.scheduler()
		set := map[string]mirror.Schedule{}
		for _, name := range []string{"a", "b", "c", "d"} {
			set[name] = mirror.Schedule{Every: 24 * time.Hour}
		}
		s.Set(set)
		got := y.runFor(s, time.Hour)
		slices.Sort(got)
		wantSyncs(t, got, "a 0s", "b 0s", "c 10m0s", "d 10m0s")
	})
}

// While upstream is down the tries become fewer, and the first good one ends that.
func TestSchedulerBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		y.takes = 0
		down := true
		y.fails = func(string) error {
			if down {
				return errors.New("down")
			}
			return nil
		}
		s := y.scheduler()
		s.Set(map[string]mirror.Schedule{"a": {Every: 2 * time.Hour}})
		got := y.runFor(s, 24*time.Hour)
		wantSyncs(t, got[:8], "a 0s", "a 45s", "a 2m15s", "a 5m15s", "a 11m15s", "a 23m15s", "a 47m15s", "a 1h32m15s")
		if n := len(got); n != 37 {
			t.Errorf("%d tries in a day, want 37", n)
		}
		if _, failures := s.Next("a"); failures != 37 {
			t.Errorf("%d failures in a row, want 37", failures)
		}
		down = false
		wantSyncs(t, y.runFor(s, 4*time.Hour), "a 24h2m15s", "a 26h2m15s")
		if _, failures := s.Next("a"); failures != 0 {
			t.Errorf("%d failures in a row after a good one", failures)
		}
	})
}

// A sync that was asked for by hand counts as an attempt. One that is under way when
// the stream is due is no failure: its end is waited for.
func TestSchedulerByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		s := y.scheduler()
		var tries int
		y.fails = func(string) error {
			if d := time.Since(y.start); d > time.Hour && d < 65*time.Minute {
				tries++
				return fmt.Errorf("stream a is %w", mirror.ErrSyncing)
			}
			return nil
		}
		s.Set(map[string]mirror.Schedule{"a": {Every: time.Hour}})
		note := func(after time.Duration, e mirror.Event) {
			e.Stream = "a"
			time.AfterFunc(after, func() { e.Time = time.Now(); s.Note(e) })
		}
		note(65*time.Minute, mirror.Event{Outcome: mirror.OutcomeDone})
		note(70*time.Minute, mirror.Event{Outcome: mirror.OutcomeFailed, Again: true})
		note(70*time.Minute+20*time.Second, mirror.Event{Outcome: mirror.OutcomePartial})
		got := y.runFor(s, 3*time.Hour)
		if n := len(got); n != tries+2 || tries < 10 || tries > 30 {
			t.Errorf("%d syncs, %d of them too many, want 2 and some", n, tries)
		}
		wantSyncs(t, []string{got[0], got[len(got)-1]}, "a 0s", "a 2h10m20s")
		if _, failures := s.Next("a"); failures != 0 {
			t.Errorf("%d failures", failures)
		}
	})
}

// The end of a sync by hand that is heard of while the scheduler's own try is refused
// is not lost.
func TestSchedulerHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		s := y.scheduler()
		y.fails = func(name string) error {
			s.Note(mirror.Event{Stream: name, Outcome: mirror.OutcomeFailed, Again: true})
			return mirror.ErrSyncing
		}
		s.Set(map[string]mirror.Schedule{"a": {Every: time.Hour}})
		wantSyncs(t, y.runFor(s, 2*time.Minute), "a 0s", "a 46s")
		if _, failures := s.Next("a"); failures != 2 {
			t.Errorf("%d failures, want 2", failures)
		}
	})
}

// What was missed is made up for once, and no clock that is set can stop syncing for
// longer than the schedule's own interval.
func TestSchedulerClock(t *testing.T) {
	for _, test := range []struct {
		summary string
		jump    time.Duration // of the clock, half an hour after the start
		want    []string
	}{
		{"none", 0, []string{"a 0s", "a 1h0m0s", "a 2h0m0s"}},
		{"forward by days: due within a minute, once", 72 * time.Hour, []string{"a 0s", "a 31m0s", "a 1h31m0s"}},
		{"back by a year", -365 * 24 * time.Hour, []string{"a 0s", "a 1h31m0s"}},
		{"back by a little", -10 * time.Minute, []string{"a 0s", "a 1h10m0s", "a 2h10m0s"}},
	} {
		t.Run(test.summary, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newSyncer(t)
				y.takes = 0
				s := mirror.NewScheduler(mirror.SchedulerOptions{Sync: y.sync, Now: func() time.Time {
					now := time.Now()
					if now.Sub(y.start) >= 30*time.Minute+30*time.Second {
						return now.Add(test.jump)
					}
					return now
				}})
				s.Set(map[string]mirror.Schedule{"a": {Every: time.Hour}})
				wantSyncs(t, y.runFor(s, 150*time.Minute), test.want...)
			})
		})
	}
}

// The end of the context ends syncs and is waited for; a sync that was interrupted is
// no attempt.
func TestSchedulerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newSyncer(t)
		y.takes = time.Hour
		s := y.scheduler()
		s.Set(map[string]mirror.Schedule{"a": {Every: time.Hour}})
		wantSyncs(t, y.runFor(s, time.Minute), "a 0s")
		if len(y.running) > 0 || time.Since(y.start) != time.Minute {
			t.Errorf("ended after %v with %v running", time.Since(y.start), y.running)
		}
		if next, failures := s.Next("a"); next.After(time.Now()) || failures != 0 {
			t.Errorf("next run in %v, %d failures", time.Until(next), failures)
		}
	})
}
