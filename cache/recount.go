package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// openAccount makes the account what x says. It ends what a crash interrupted: evictions, and publications of which only the
// manifests tell whether they need a blob. They tell it too of one that was to go and that the index knows: it did not get to
// the removal of the file, or the blob has come again since, maybe to be needed.
func (s *Store) openAccount(ctx context.Context, x *index) error {
	all, err := x.pulls(ctx)
	if err != nil {
		return err
	}
	leaving, doubtful := make(map[Digest]pullFacts), make(map[Digest]pullFacts)
	for d, f := range all {
		_, err := x.blob(d)
		switch {
		case f.State == pullLeaving && errors.Is(err, ErrMiss):
			leaving[d] = f
		case f.State != pullKept || s.recount:
			doubtful[d] = f
		default:
			continue
		}
		delete(all, d)
	}
	s.endEvictions(leaving)
	sure, err := s.resolve(ctx, doubtful)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulled.add(all)
	s.pulled.add(sure)
	return nil
}

// endEvictions removes the files of blobs that are unknown already.
func (s *Store) endEvictions(leaving map[Digest]pullFacts) {
	digests := slices.Collect(maps.Keys(leaving))
	if err := s.removeFiles(leaving, digests); err != nil {
		s.log.Warn("cannot remove files that were evicted; the next start tries again", "store", s.dir, "reason", err)
	}
}

// resolve returns those blobs that are here and that no kept snapshot needs; the others leave the account. While that cannot be
// told, they stay in doubt, and are not evicted.
func (s *Store) resolve(ctx context.Context, doubtful map[Digest]pullFacts) (sure map[Digest]pullFacts, err error) {
	if len(doubtful) == 0 {
		return nil, nil
	}
	sure = make(map[Digest]pullFacts)
	keep, err := s.keep(ctx, nil)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		s.log.Warn("pulled files are not evicted, since a snapshot may need them", "store", s.dir, "files", len(doubtful), "reason", err)
		for d, f := range doubtful {
			f.State = pullNamed
			doubtful[d] = f
		}
		return nil, s.index.setPulls(doubtful)
	}
	var drop []Digest
	wrong := 0
	for d, f := range doubtful {
		if keep.blobs[d] || !s.disk.Exists(blobName(d)) {
			drop = append(drop, d)
			if keep.blobs[d] && f.State == pullKept {
				wrong++
			}
			continue
		}
		f.State = pullKept
		sure[d] = f
	}
	if wrong > 0 {
		s.log.Warn("the index had files that a snapshot needs as ones that may be evicted", "store", s.dir, "files", wrong)
	}
	if len(drop) > 0 {
		if err := s.index.dropPulls(drop...); err != nil {
			return nil, err
		}
	}
	if len(sure) > 0 {
		err = s.index.setPulls(sure)
	}
	return sure, err
}

// recredit makes the account what a rebuild has found, while no publication, eviction or landing writes.
func (s *Store) recredit(ctx context.Context, x *index) error {
	all, err := x.pulls(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.pulled.all {
		if _, ok := all[d]; !ok && !s.leaving[d] {
			s.pulled.remove(d)
		}
	}
	for d := range all {
		if s.leaving[d] {
			delete(all, d)
		}
	}
	s.pulled.add(all)
	return nil
}
