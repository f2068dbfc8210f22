package cache

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A pin names its reason and outlives the process, and only what is kept can be pinned.
func TestPins(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	id := publish(t, s, "stable", put(t, s, KindItem, "a", "content"))
	if err := s.Pin(t.Context(), id, "before the kernel change"); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(t.Context(), Sum(nil), ""); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("pinned what is not there: %v", err)
	}
	for _, reason := range []string{"two\nlines", strings.Repeat("x", 1001)} {
		if err := s.Pin(t.Context(), id, reason); err == nil {
			t.Errorf("pinned with the reason %.20q", reason)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir)
	pins, err := s.Files().Pins()
	if err != nil || len(pins) != 1 || pins[0].Snapshot != id || pins[0].Reason != "before the kernel change" || time.Since(pins[0].Time) > time.Hour {
		t.Errorf("the pins are %v (%v)", pins, err)
	}

	overwrite(t, s, pinName(id), "nonsense")
	if pins, err := s.Files().Pins(); err != nil || len(pins) != 1 || pins[0] != (Pin{Snapshot: id}) {
		t.Errorf("of a damaged pin: %v (%v)", pins, err)
	}
	if err := s.Drop(t.Context(), "stable"); !errors.Is(err, ErrPinned) {
		t.Errorf("dropped a stream with a pinned snapshot: %v", err)
	}
	if err := s.Unpin(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := s.Unpin(t.Context(), id); !errors.Is(err, ErrMiss) {
		t.Errorf("unpinned a second time: %v", err)
	}
	if pins, err := s.Files().Pins(); err != nil || len(pins) != 0 {
		t.Errorf("the pins are %v (%v)", pins, err)
	}
}
