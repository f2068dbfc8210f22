package upstream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"oxbow/cache"
)

func TestBackoff(t *testing.T) {
	b := Backoff{}.withDefaults()
	for _, tt := range []struct {
		failures int
		err      error
		min, max time.Duration
	}{
		{1, errClosed, 250 * time.Millisecond, 500 * time.Millisecond},
		{2, errClosed, 500 * time.Millisecond, time.Second},
		{4, errClosed, 2 * time.Second, 4 * time.Second},
		{7, errClosed, 15 * time.Second, 30 * time.Second},
		{1000, errClosed, 15 * time.Second, 30 * time.Second},
		{1, &StatusError{Code: 503, RetryAfter: 7 * time.Second}, 7 * time.Second, 7500 * time.Millisecond},
		{7, &StatusError{Code: 503, RetryAfter: time.Second}, 15 * time.Second, 30 * time.Second},
		{1, &StatusError{Code: 429, RetryAfter: time.Hour}, 2 * time.Minute, 2*time.Minute + 500*time.Millisecond},
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			d := b.after(tt.failures, tt.err)
			if seen[d] = true; d < tt.min || d > tt.max {
				t.Errorf("wait %v after %d failures with %v, want %v to %v", d, tt.failures, tt.err, tt.min, tt.max)
			}
		}
		if len(seen) < 100 {
			t.Errorf("after %d failures: only %d different waits of 200", tt.failures, len(seen))
		}
	}
}

func TestErrorsOfSources(t *testing.T) {
	gone := &FetchError{URL: "http://a/x", Attempts: 1, Err: &StatusError{Code: 410}}
	missing := &FetchError{URL: "http://b/x", Attempts: 1, Err: &StatusError{Code: 404}}
	down := &FetchError{URL: "http://c/x", Attempts: 5, Err: &StatusError{Code: 503}}
	corrupt := &FetchError{URL: "http://d/x", Attempts: 1, Err: fmt.Errorf("%w: it is another", cache.ErrCorrupt)}
	for _, tt := range []struct {
		err               error
		notFound, corrupt bool
		text              string
	}{
		{missing, true, false, "cannot fetch http://b/x: HTTP 404 Not Found"},
		{down, false, false, "cannot fetch http://c/x: HTTP 503 Service Unavailable (5 attempts)"},
		{sourcesError{gone, missing}, true, false, "cannot fetch http://a/x: HTTP 410 Gone; cannot fetch http://b/x: HTTP 404 Not Found"},
		{sourcesError{down, missing}, false, false, "cannot fetch http://c/x: HTTP 503 Service Unavailable (5 attempts); cannot fetch http://b/x: HTTP 404 Not Found"},
		{sourcesError{missing, corrupt}, false, true, "cannot fetch http://b/x: HTTP 404 Not Found; cannot fetch http://d/x: " + cache.ErrCorrupt.Error() + ": it is another"},
	} {
		if got := errors.Is(tt.err, ErrNotFound); got != tt.notFound {
			t.Errorf("%v is ErrNotFound: %v", tt.err, got)
		}
		if got := errors.Is(tt.err, cache.ErrCorrupt); got != tt.corrupt {
			t.Errorf("%v is ErrCorrupt: %v", tt.err, got)
		}
		if !errors.Is(tt.err, ErrUpstream) {
			t.Errorf("%v is not ErrUpstream", tt.err)
		}
		if _, ok := errors.AsType[*FetchError](tt.err); !ok {
			t.Errorf("%v is no FetchError", tt.err)
		}
		if tt.err.Error() != tt.text {
			t.Errorf("text %q\nwant %q", tt.err, tt.text)
		}
	}
}
