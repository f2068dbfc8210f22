package cache

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// settle brings the index in line with the files when the store is opened.
// What is wrong with single snapshots is logged: it must not keep the others
// from being served.
func (s *Store) settle(ctx context.Context) error {
	whole, err := s.index.isWhole()
	if err != nil {
		return err
	}
	if !whole {
		if err := s.learnBlobs(ctx, s.index, nil); err != nil {
			return fmt.Errorf("cannot make the index from the files: %w", err)
		}
	}
	if s.died {
		s.recount = true
		if err := s.dropGone(ctx); err != nil {
			return err
		}
	}
	if err := s.shelve(ctx, s.index); err != nil {
		return err
	}
	return s.openAccount(ctx, s.index)
}

// Rebuild makes the index anew from the files of the store, while the old one
// goes on answering. Blobs that a manifest names are taken as they are, since
// they were proven before it was written, but for those that were set aside: these
// stay unknown unless they are sound. Others are proven by their SHA-256,
// and removed if they are damaged or the disk cannot read them. What is lost are notes, and fingerprints
// until the next check.
func (s *Store) Rebuild(ctx context.Context) error {
	if err := s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer s.index.endTurn()
	defer s.step(stepRebuild)()
	var damaged []Digest
	prove := func(d Digest) (facts blobFacts, sound bool, err error) {
		facts, err = s.prove(ctx, d)
		switch {
		case ctx.Err() != nil:
			return blobFacts{}, false, context.Cause(ctx)
		case errors.Is(err, ErrCorrupt) || badDisk(err):
			damaged = append(damaged, d)
		case err != nil:
			s.log.Error("a blob that nothing names cannot be read, and counts as missing", "digest", d.String(), "reason", err)
		}
		return facts, err == nil, nil
	}
	err := s.index.replace(func(new *index) error {
		// A blob that nothing names may have got its name by a rename that no sync followed.
		if err := s.disk.SyncFS(); err != nil {
			return err
		}
		if err := s.learnBlobs(ctx, new, prove); err != nil {
			return err
		}
		if err := s.shelve(ctx, new); err != nil {
			return err
		}
		return s.recredit(ctx, new)
	})
	if err != nil {
		return fmt.Errorf("cannot rebuild the index: %w", err)
	}
	s.removeDamaged(damaged) // of which the old index may have known
	return nil
}

// badDisk tells what reading a bad file comes to from what is wrong with the system.
func badDisk(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EUCLEAN) || errors.Is(err, syscall.EBADMSG)
}

// removeDamaged removes files that are not what their names say, but for those whose blobs have come again.
func (s *Store) removeDamaged(blobs []Digest) {
	s.landing.Lock()
	defer s.landing.Unlock()
	for _, d := range blobs {
		if s.Has(d) {
			continue
		}
		if err := s.disk.Remove(blobName(d)); err != nil {
			s.log.Error("a damaged blob that nothing names cannot be removed", "digest", d.String(), "reason", err)
			continue
		}
		s.log.Warn("a damaged blob that nothing names is removed", "digest", d.String())
	}
}
