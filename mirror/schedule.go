package mirror

import "time"

// A Schedule says when a stream is synced by itself; the zero Schedule is never.
type Schedule struct {
	Every, Jitter time.Duration
	At            string // "HH:MM", local time; exclusive with Every
}
