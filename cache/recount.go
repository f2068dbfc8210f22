package cache

import "context"

// openAccount makes the account what x says. It ends what a crash interrupted: evictions, and publications of which only the
// manifests tell whether they need a blob.
func (s *Store) openAccount(ctx context.Context, x *index) error {
	all, err := x.pulls(ctx)
	if err != nil {
		return err
	}
	leaving, doubtful := make(map[Digest]pullFacts), make(map[Digest]pullFacts)
	for d, f := range all {
		switch {
		case f.State == pullLeaving:
			leaving[d] = f
			delete(all, d)
		case f.State == pullNamed || s.recount:
			doubtful[d] = f
			delete(all, d)
		}
	}
	if err := s.endEvictions(leaving); err != nil {
		return err
	}
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

func (s *Store) endEvictions(leaving map[Digest]pullFacts) error {
	if len(leaving) == 0 {
		return nil
	}
	digests := make([]Digest, 0, len(leaving))
	for d := range leaving {
		digests = append(digests, d)
	}
	if err := s.index.dropBlobs(digests...); err != nil {
		return err
	}
	if err := s.removeFiles(leaving, digests); err != nil {
		s.log.Warn("cannot remove files that were evicted; the next start tries again", "store", s.dir, "reason", err)
	}
	return nil
}

// resolve returns those blobs that no kept snapshot needs, and makes the others mirrored. While that cannot be told, they stay in
// doubt, and out of the account.
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
	var needed []Digest
	for d, f := range doubtful {
		if keep.blobs[d] {
			needed = append(needed, d)
			continue
		}
		f.State = pullKept
		sure[d] = f
	}
	if len(needed) > 0 {
		if err := s.index.dropPulls(needed...); err != nil {
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
