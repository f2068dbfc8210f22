package cache

import (
	"context"
	"log/slog"
)

// The steps by which content comes and goes. What else is done to a store, above this package, may have steps of its own.
const (
	stepOpen     = "open"     // the store is opened, and put in order after a crash
	stepDurable  = "durable"  // proven bytes are synced and get their names
	stepIndex    = "index"    // the index learns of blobs, or of a snapshot's entries
	stepManifest = "manifest" // a manifest is written
	stepSwitch   = "switch"   // a snapshot is made current
	stepSweep    = "sweep"    // snapshots, blobs and partial downloads are removed
	stepEvict    = "evict"    // pulled blobs are removed
	stepRebuild  = "rebuild"  // the index is made anew from the files
)

// Step tells log, at level debug, that something begins which changes a store, and done that it has ended. So the last lines of a
// process that died say in the midst of what it did.
func Step(log *slog.Logger, name string, attrs ...any) (done func()) {
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return func() {}
	}
	attrs = append([]any{"step", name}, attrs...)
	log.Debug("step begins", attrs...)
	return func() { log.Debug("step ends", attrs...) }
}

func (s *Store) step(name string, attrs ...any) (done func()) { return Step(s.log, name, attrs...) }
