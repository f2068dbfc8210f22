package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The schedule is replaced whole, outlives a rebuild and a restart, is nothing foreign, and costs no sync. What is no schedule of
// ours is not read into memory.
func TestSchedule(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if _, err := s.Files().ReadSchedule(); !errors.Is(err, ErrMiss) {
		t.Errorf("before the first write: %v", err)
	}
	log := recordOps(s)
	for _, text := range []string{"one", "another"} {
		if err := s.WriteSchedule([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Files().ReadSchedule(); string(got) != text || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	wantLog(t, log)
	wantNames(t, s, "ingest")
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := s.Check(t.Context(), CheckOptions{})
	if err != nil || !report.OK() || len(report.Notes) > 0 {
		t.Errorf("check: %v, %v", report, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	if got, err := s.Files().ReadSchedule(); string(got) != "another" || err != nil {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	if err := s.WriteSchedule(make([]byte, maxSchedule+1)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("one that is too long: %v", err)
	}
	if err := os.Truncate(filepath.Join(s.dir, scheduleFile), maxSchedule+1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Files().ReadSchedule(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one that is too long: %v", err)
	}
}
