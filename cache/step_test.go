package cache

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
)

// stepLog is a log that keeps which steps begin and end.
type stepLog struct{ told *[]string }

func (l stepLog) Enabled(context.Context, slog.Level) bool { return true }
func (l stepLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l stepLog) WithGroup(string) slog.Handler            { return l }

func (l stepLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "step" {
			*l.told = append(*l.told, map[string]string{"step begins": "", "step ends": "/"}[r.Message]+a.Value.String())
		}
		return true
	})
	return nil
}

// A log at level debug is told of every step of a publication and of a sweep, in their order.
func TestStepsAreTold(t *testing.T) {
	t.Parallel()
	var told []string
	o := testOptions(t)
	o.Log = slog.New(stepLog{&told})
	s, err := Create(filepath.Join(t.TempDir(), "store"), o)
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	want := func(steps ...string) {
		t.Helper()
		if !slices.Equal(told, steps) {
			t.Errorf("told of %q, want %q", told, steps)
		}
		told = nil
	}
	want("open", "/open")
	ingest(t, s, content(60, smallSize))
	want("durable", "index", "/index", "/durable")
	publish(t, s, "stable", put(t, s, KindItem, "a", "small"))
	want("durable", "index", "/index", "/durable", "manifest", "/manifest", "index", "/index", "switch", "/switch")
	plan, err := s.PlanSweep(t.Context(), SweepOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("sweep", "/sweep")
}
