package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Flush makes every small blob that was committed so far durable, and known to Has. The order: one sync of the file system, so that
// the bytes of all are durable; the renames; a sync of the directories; one batch of the index.
//
// Where a sync fails, the blobs that it covers are dropped and have to be fetched again: nobody can tell which of their bytes
// are on the disk. After any other error the same blobs wait for the next Flush.
func (s *Store) Flush(ctx context.Context) error {
	select {
	case s.flushing <- struct{}{}:
		defer func() { <-s.flushing }()
	case <-ctx.Done():
		return fmt.Errorf("cannot flush store %s: %w", s.dir, context.Cause(ctx))
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("cannot flush store %s: %w", s.dir, s.full(err))
	}
	return nil
}

func (s *Store) flush() error {
	batch := s.takeStaged()
	if len(batch) == 0 {
		return nil
	}
	defer s.step(stepDurable, "blobs", len(batch))()
	if err := s.disk.SyncFS(); err != nil {
		return s.lost(err)
	}
	s.landing.RLock()
	defer s.landing.RUnlock()
	dirs := make(map[string]bool)
	blobs := make([]proven, 0, len(batch))
	for _, b := range batch {
		if !b.moved {
			if err := s.disk.Rename(ingestDir+"/"+b.key+partSuffix, blobName(b.Digest)); err != nil {
				return err
			}
			b.moved = true
		}
		dirs[blobDir(b.Digest)] = true
		blobs = append(blobs, b.proven)
	}
	if err := s.syncDirs(slices.Sorted(maps.Keys(dirs))); err != nil {
		return s.lost(err)
	}
	if err := s.makeKnown(blobs...); err != nil {
		return err
	}
	s.unstage(batch)
	return nil
}

// takeStaged returns what waits. Only the one that flushes changes what it points to.
func (s *Store) takeStaged() []*staged {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.staged))
}

func (s *Store) unstage(batch []*staged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batch {
		delete(s.staged, b.Digest)
	}
}

// lost drops every staged blob after a sync that failed. Those that are being written are dropped when they are committed: the
// failure may be theirs, and the next sync would not tell.
func (s *Store) lost(cause error) error {
	s.mu.Lock()
	s.epoch++
	s.mu.Unlock()
	batch := s.takeStaged()
	errs := []error{cause}
	for _, b := range batch {
		name := ingestDir + "/" + b.key + partSuffix
		if b.moved {
			name = blobName(b.Digest)
		}
		errs = append(errs, ignoreMissing(s.root.Remove(name)))
	}
	s.unstage(batch)
	return fmt.Errorf("cannot make %d blobs durable: %w; they were dropped and have to be fetched again", len(batch), errors.Join(errs...))
}

// manyDirs is the number of directories from which on one sync of the file system is cheaper than one for each.
const manyDirs = 8

func (s *Store) syncDirs(dirs []string) error {
	if len(dirs) >= manyDirs {
		return s.disk.SyncFS()
	}
	for _, dir := range dirs {
		if err := s.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// waits reports whether the bytes under key wait for Flush.
func (s *Store) waits(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.staged {
		if b.key == key {
			return true
		}
	}
	return false
}

func (s *Store) syncEpoch() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}
