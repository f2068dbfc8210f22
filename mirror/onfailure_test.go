package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/mirror"
)

// A failing site is one whose scheduled syncs end as fail says, on a clock that stands
// still; what is logged is kept.
type failing struct {
	*site
	now   time.Time
	fail  error
	res   *mirror.Result
	sched *mirror.Scheduler
	log   bytes.Buffer
}

func newFailing(s *site, command string, now time.Time) *failing {
	f := &failing{site: s, now: now, fail: errors.New("down")}
	f.sched = mirror.NewScheduler(mirror.SchedulerOptions{
		Store: s.store, OnFailure: func() string { return command }, Now: func() time.Time { return f.now }, Rand: func() float64 { return 0 },
		Sync: func(context.Context, string) (*mirror.Result, error) { return f.res, f.fail },
		Log:  slog.New(slog.NewTextHandler(&f.log, nil)),
	})
	f.sched.Set(map[string]mirror.Schedule{stable: {Every: time.Hour}})
	return f
}

// The command is told what happened, and nothing of this process but where to find
// programs: not its secrets, and no password of upstream.
func TestOnFailure(t *testing.T) {
	t.Setenv("OXBOW_TOKEN", "SECRET")
	t.Setenv("HOME", "/home/oxbow")
	s := newSite(t, oneProduct())
	s.mustSync()
	if _, err := s.m.Configure([]mirror.Stream{func() mirror.Stream {
		def := s.stream
		def.Upstream = []string{"http://user:SECRET@first.example/tree", s.url}
		return def
	}()}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "env")
	f := newFailing(s, "env >"+out+"; echo told", time.Now().Add(time.Minute))
	snap, err := s.store.Current(stable)
	if err != nil {
		t.Fatal(err)
	}
	f.fail = errors.New("cannot fetch:\nno\x00thing " + strings.Repeat("ü", 1000))
	run := func() string {
		t.Helper()
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		f.sched.Step(t.Context())
		data, err := os.ReadFile(out)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(data)
	}
	env := run()
	for _, want := range []string{
		"OXBOW_STREAM=stable", "OXBOW_OUTCOME=failed", "OXBOW_REASON=cannot fetch: no thing ü", "OXBOW_FAILURES=1",
		"OXBOW_TIME=" + f.now.UTC().Format(time.RFC3339), "OXBOW_SNAPSHOT=" + snap.ID.String(), "OXBOW_PUBLISHED=" + snap.Created.UTC().Format(time.RFC3339),
		fmt.Sprintf("OXBOW_AGE=%d", int(f.now.Sub(snap.Created).Seconds())), "OXBOW_NEXT=" + f.now.Add(30*time.Second).UTC().Format(time.RFC3339),
		"OXBOW_UPSTREAM=http://first.example/tree " + s.url, "HOME=/home/oxbow", "PATH=" + os.Getenv("PATH"),
	} {
		if !strings.Contains("\n"+env, "\n"+want) {
			t.Errorf("the environment lacks %s:\n%s", want, env)
		}
	}
	if strings.Contains(env, "SECRET") {
		t.Errorf("the environment tells a secret:\n%s", env)
	}
	if len(env) > 3000 {
		t.Errorf("the environment has %d bytes", len(env))
	}
	if !strings.Contains(f.log.String(), "told") {
		t.Errorf("the log lacks the output: %s", f.log.String())
	}

	f.now = f.now.Add(time.Hour)
	f.res, f.fail = &mirror.Result{LeftOut: []mirror.Omission{{Product: "p", Version: "v", Reason: "broken"}}}, nil
	if env := run(); !strings.Contains(env, "OXBOW_OUTCOME=partial\n") || !strings.Contains(env, "OXBOW_FAILURES=2\n") {
		t.Errorf("after a partial one:\n%s", env)
	}
	f.now = f.now.Add(time.Hour)
	f.res = &mirror.Result{}
	if env := run(); env != "" {
		t.Errorf("after a good one:\n%s", env)
	}
}

// A command that fails, floods or hangs is logged, ended with all that it started, and
// does no harm.
func TestOnFailureFails(t *testing.T) {
	s := newSite(t, oneProduct())
	for i, test := range []struct {
		summary, command, want string
	}{
		{"fails", "echo why >&2; exit 3", `reason="exit status 3" output="why\n"`},
		{"is no command", "no-such-command", "not found"},
		{"floods", "yes | head -c 1000000; exit 1", strings.Repeat(`y\n`, 2048) + `"`},
		{"hangs, with a child", "echo pid $$; sleep 1000 & sleep 1001", "it took longer than 300ms"},
		{"leaves one behind that holds its output", "echo left; (trap '' TERM; sleep 3) &", "left"},
	} {
		t.Run(test.summary, func(t *testing.T) {
			f := newFailing(s, test.command, time.Now().Add(time.Duration(i)*time.Hour))
			f.sched.SetCommandTime(time.Minute)
			if strings.HasPrefix(test.summary, "hangs") {
				f.sched.SetCommandTime(300 * time.Millisecond)
			}
			start := time.Now()
			f.sched.Step(t.Context())
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
			if !strings.Contains(f.log.String(), test.want) || f.log.Len() > 10_000 {
				t.Errorf("log of %d bytes, want %.100q: %.2000s", f.log.Len(), test.want, f.log.String())
			}
		})
	}
}

// A command that hangs does not keep a process that is to end for its whole minute.
func TestOnFailureAtTheEnd(t *testing.T) {
	f := newFailing(newSite(t, oneProduct()), "sleep 1000", time.Now())
	f.sched.SetLastTime(200 * time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, stop)
	start := time.Now()
	f.sched.Step(ctx)
	if d := time.Since(start); d > 10*time.Second || !strings.Contains(f.log.String(), "it went on for 200ms when") {
		t.Errorf("it took %v; log: %s", d, f.log.String())
	}
}

// While a command runs, other streams are synced, and the end of Run waits for it.
func TestOnFailureBlocksNobody(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	var began []string
	s := mirror.NewScheduler(mirror.SchedulerOptions{
		OnFailure: func() string {
			return "touch " + dir + "/began-$OXBOW_STREAM; while [ ! -e " + dir + "/go ]; do sleep 0.02; done; echo $OXBOW_STREAM >>" + dir + "/done"
		},
		Sync: func(_ context.Context, name string) (*mirror.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			if began = append(began, name); len(began) == 4 {
				defer stop()
				for {
					if all, err := filepath.Glob(dir + "/began-*"); len(all) == 3 || err != nil {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				time.AfterFunc(100*time.Millisecond, func() { os.WriteFile(dir+"/go", nil, 0o600) })
				return &mirror.Result{}, nil
			}
			return nil, errors.New("down")
		},
	})
	every := mirror.Schedule{Every: time.Hour}
	s.Set(map[string]mirror.Schedule{"a": every, "b": every, "c": every, "d": every})
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	data, err := os.ReadFile(dir + "/done")
	if err != nil {
		t.Fatal(err)
	}
	done := strings.Fields(string(data))
	slices.Sort(began)
	if len(done) != 3 || len(slices.Compact(began)) != 4 {
		t.Errorf("synced %q, commands done for %q", began, done)
	}
}
