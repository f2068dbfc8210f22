package mirror

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
)

// What stays of a stream's snapshots is what its rule says, whichever part of the rule asks for it.
func TestKeepExpired(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC) // a Wednesday
	every := func(d time.Duration, n int) (ages []time.Duration) {
		for i := range n {
			ages = append(ages, time.Duration(i)*d)
		}
		return ages
	}
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name string
		keep Keep
		ages []time.Duration // of the snapshots, newest first
		stay string          // their numbers
	}{
		{"none", DefaultKeep, nil, ""},
		{"the current one, however old", Keep{}, []time.Duration{1000 * day}, "0"},
		{"the last ones", Keep{Last: 3}, every(time.Hour, 6), "0 1 2"},
		{"one that was superseded within the grace", Keep{Last: 1, Grace: day}, []time.Duration{time.Hour, 100 * day, 101 * day}, "0 1"},
		{"none of those superseded before", Keep{Last: 1, Grace: day}, []time.Duration{day, 2 * day}, "0"},
		{"the newest of a day", Keep{Daily: 2}, []time.Duration{time.Hour, 2 * time.Hour, day, day + time.Hour, 2 * day}, "0 2"},
		{"days without one do not count", Keep{Daily: 3}, []time.Duration{0, 10 * day, 20 * day, 30 * day}, "0 1 2"},
		{"the newest of a week", Keep{Weekly: 2}, []time.Duration{0, day, 2 * day, 3 * day, 4 * day}, "0 3"}, // Wed Tue Mon | Sun Sat
		{"weeks across a year", Keep{Weekly: 9}, []time.Duration{0, 47 * 7 * day, 48 * 7 * day}, "0 1 2"},
		{"by default, of an hour each", DefaultKeep, every(time.Hour, 200), "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 37 61 85 109 133"},
		{"a clock that was set back", Keep{Last: 1, Grace: day}, []time.Duration{-2 * day, -3 * day, -4 * day}, "0 1 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var kept []cache.Snapshot
			for i, age := range tt.ages {
				kept = append(kept, cache.Snapshot{ID: cache.Sum(fmt.Append(nil, i)), Created: now.Add(-age)})
			}
			gone := tt.keep.expired(kept, now)
			var stay []string
			for i, s := range kept {
				if _, ok := gone[s.ID]; !ok {
					stay = append(stay, fmt.Sprint(i))
				}
			}
			if got := strings.Join(stay, " "); got != tt.stay {
				t.Errorf("%v stay, want %v", got, tt.stay)
			}
		})
	}
}
