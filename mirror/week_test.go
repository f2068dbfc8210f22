package mirror_test

import (
	"cmp"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams/streamstest"
)

// A week is a site on a simulated clock, with an upstream that goes by a timetable.
type week struct {
	*site
	start, now time.Time
	sched      *mirror.Scheduler
	first      *streamstest.Tree // that upstream had at the start
	tree       *streamstest.Tree // that upstream means to publish
	failing    bool              // upstream does something wrong
	old        bool              // upstream serves the first instead
	events     []event
	attempts   []attempt
	running    atomic.Int32
}

// An event is a change of upstream.
type event struct {
	after time.Duration // since the start
	do    func(*week)
}

// An attempt is a sync that the scheduler began, and how it ended.
type attempt struct {
	at    time.Time
	again bool // it was no good one
}

var weekly = mirror.Schedule{Every: 2 * time.Hour, Jitter: 20 * time.Minute}

func newWeek(t *testing.T, events []event) *week {
	first := oneProduct()
	w := &week{site: newSite(t, first), first: first, tree: first}
	w.add(events)
	// It is over by now, so that what the site signs can be verified.
	w.start = time.Now().Add(-8 * 24 * time.Hour).Truncate(time.Second)
	w.now = w.start
	clock := func() time.Time { return w.now }
	client := upstream.NewClient(&upstream.Options{Attempts: 2, Backoff: upstream.Backoff{Base: time.Millisecond}})
	t.Cleanup(client.Close)
	w.m = mirror.New(mirror.Options{Store: w.store, Client: client, Settle: time.Nanosecond, Now: clock,
		Observe: func(e mirror.Event) { w.sched.Note(e) }})
	w.sched = mirror.NewScheduler(mirror.SchedulerOptions{Store: w.store, Sync: w.syncOne, Now: clock, Rand: func() float64 { return 0.5 }})
	w.sched.Set(map[string]mirror.Schedule{stable: weekly})
	return w
}

// add adds to what upstream will do.
func (w *week) add(events []event) {
	w.events = append(w.events, events...)
	slices.SortStableFunc(w.events, func(a, b event) int { return cmp.Compare(a.after, b.after) })
}

func (w *week) syncOne(ctx context.Context, name string) (*mirror.Result, error) {
	if w.running.Add(1) != 1 {
		w.t.Error("a stream is synced twice at once")
	}
	defer w.running.Add(-1)
	res, err := w.m.Sync(ctx, name, mirror.SyncOptions{})
	again := err != nil || len(res.LeftOut) > 0
	w.attempts = append(w.attempts, attempt{w.now, again})
	if well := !w.failing && !w.old; again == well {
		w.t.Errorf("after %v, upstream well %v: result %+v, error %v", w.now.Sub(w.start), well, res, err)
	}
	return res, err
}

// run lets the week pass, from one moment at which something happens to the next.
func (w *week) run() {
	for end := w.start.Add(7 * 24 * time.Hour); ; {
		next, _ := w.sched.Next(stable)
		if len(w.events) > 0 && !w.start.Add(w.events[0].after).After(next) {
			next = w.start.Add(w.events[0].after)
		}
		if next.After(end) {
			return
		}
		w.now = next
		for len(w.events) > 0 && !w.start.Add(w.events[0].after).After(w.now) {
			e := w.events[0]
			w.events = w.events[1:]
			e.do(w)
		}
		before := len(w.attempts)
		w.sched.Step(w.t.Context())
		if len(w.attempts) > before && !w.attempts[before].again {
			if got, want := w.versions(), treeVersions(w.tree); !slices.Equal(got, want) {
				w.t.Errorf("after %v: published %q, upstream has %q", w.now.Sub(w.start), got, want)
			}
		}
	}
}

// publishDay is the day's publication.
func publishDay(w *week) {
	w.tree = w.tree.Clone()
	w.tree.AddDay()
	w.tree.Trim(2)
	if !w.old {
		w.upstream.Publish(w.tree)
	}
}

// during makes something go wrong for a while.
func during(after, d time.Duration, fault func(*http.Request) streamstest.Fault) []event {
	return []event{
		{after, func(w *week) { w.failing = true; w.upstream.SetFault(fault) }},
		{after + d, func(w *week) { w.failing = false; w.upstream.SetFault(nil) }},
	}
}

// untilNext makes something go wrong from the next run on, for a while.
func untilNext(after, d time.Duration, fault func(*http.Request) streamstest.Fault) []event {
	return []event{{after, func(w *week) {
		next, _ := w.sched.Next(stable)
		w.add(during(next.Sub(w.start), d, fault))
	}}}
}

func always(f streamstest.Fault) func(*http.Request) streamstest.Fault {
	return func(*http.Request) streamstest.Fault { return f }
}

// A week with an upstream that publishes each day and fails at the worst moments: the
// tries are those of the schedule, to the second, few while upstream is down, and the
// first one at which upstream is well brings all that it has by then.
func TestScheduledWeek(t *testing.T) {
	const day = 24 * time.Hour
	var events []event
	for d := range 7 {
		events = append(events, event{time.Duration(d)*day + 6*time.Hour, publishDay})
	}
	for _, more := range [][]event{
		untilNext(day+6*time.Hour, 3*time.Minute, always(streamstest.Fault{Status: http.StatusServiceUnavailable})),
		untilNext(2*day+6*time.Hour, 10*time.Minute, streamstest.At("squashfs", streamstest.Fault{CutAfter: -1})),
		during(3*day, day, always(streamstest.Fault{Drop: true})),
		{
			{4*day + 6*time.Hour - 1, func(w *week) { w.old = true; w.upstream.Publish(w.first) }},
			{4*day + 11*time.Hour, func(w *week) { w.old = false; w.upstream.Publish(w.tree) }},
		},
		during(5*day+6*time.Hour, 4*time.Hour, streamstest.At("index.sjson", streamstest.Fault{FlipAt: 300})),
	} {
		events = append(events, more...)
	}
	w := newWeek(t, events)
	w.run()

	failures, down := 0, 0
	for i, a := range w.attempts {
		since := a.at.Sub(w.start)
		if since >= 3*day && since < 4*day {
			down++
		}
		if i > 0 {
			wait := weekly.Every + weekly.Jitter/2
			if failures > 0 {
				wait = min(time.Minute<<min(failures-1, 10), time.Hour) * 3 / 4
			}
			if got := a.at.Sub(w.attempts[i-1].at); got != wait {
				t.Errorf("attempt %d after %v: %v after the one before, with %d failures, want %v", i, since, got, failures, wait)
			}
		}
		if failures++; !a.again {
			failures = 0
		}
	}
	t.Logf("%d attempts, %d of them on the day that upstream was down", len(w.attempts), down)
	if down < 24 || down > 40 {
		t.Errorf("%d attempts on the day that upstream was down", down)
	}
	if last := w.attempts[len(w.attempts)-1]; last.again || !slices.Equal(w.versions(), treeVersions(w.tree)) {
		t.Errorf("at the end: %q, upstream has %q", w.versions(), treeVersions(w.tree))
	}
	// The first, one of each day, and one of the day that came in part at first.
	const kept = 9
	if st, err := mirror.ReadStatus(w.store.Files(), stable); err != nil || st.Failures != 0 || st.Kept != kept || !st.LastGood.Equal(w.attempts[len(w.attempts)-1].at) {
		t.Errorf("status at the end: %+v, %v", st, err)
	}
}

// What is known of syncs outlives the process, is written only when it changes, and
// lost makes every stream due, with a warning where there is garbage.
func TestSchedulerRestarts(t *testing.T) {
	s := newSite(t, oneProduct())
	s.mustSync()
	set := map[string]mirror.Schedule{stable: {Every: time.Hour, Jitter: time.Minute}}
	f := newFailing(s, "", time.Now().Add(time.Minute))
	file := filepath.Join(s.store.Files().Dir(), "schedule.json")
	for range 3 {
		f.sched.Step(t.Context())
		f.now = f.now.Add(5 * time.Minute)
	}
	next, failures := f.sched.Next(stable)
	if failures != 3 {
		t.Fatalf("%d failures", failures)
	}
	written, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	f.now = next.Add(-time.Second)
	f.sched.Step(t.Context())
	if again, err := os.Stat(file); err != nil || !os.SameFile(written, again) {
		t.Errorf("it was written though nothing had changed (%v)", err)
	}

	again := newFailing(s, "", f.now)
	again.sched.Set(set)
	if got, n := again.sched.Next(stable); !got.Equal(next) || n != failures {
		t.Errorf("after a restart: next run %v, %d failures, want %v, %d", got, n, next, failures)
	}
	for _, garbage := range []string{"", "{", `{"stable": 1}`, `{"stable": {"failures": -1}}`, `{"stable": {"draw": 1}}`} {
		if err := s.store.WriteSchedule([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		lost := newFailing(s, "", f.now)
		if got, n := lost.sched.Next(stable); got.After(lost.now) || n != 0 || !strings.Contains(lost.log.String(), "WARN") {
			t.Errorf("with %q: next run %v, now %v, %d failures; log: %s", garbage, got, lost.now, n, lost.log.String())
		}
	}

	good := newFailing(s, "", f.now)
	good.res, good.fail = &mirror.Result{}, nil
	good.sched.Step(t.Context())
	if got, _ := good.sched.Next(stable); !got.After(good.now) {
		t.Errorf("after a good sync: next run %v, now %v", got, good.now)
	}
	if _, err := s.m.Drop(t.Context(), stable); err != nil {
		t.Fatal(err)
	}
	anew := newFailing(s, "", f.now)
	if got, _ := anew.sched.Next(stable); got.After(anew.now) {
		t.Errorf("of a stream without a snapshot: next run %v, now %v", got, anew.now)
	}
}
