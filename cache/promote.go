package cache

import (
	"context"
	"fmt"
)

// withhold keeps those pulled blobs from being evicted that m needs, and returns them: they are about to leave the account. The
// index is told before the switch, since after a crash the manifests have to tell which of them it needs.
func (s *Store) withhold(m *Manifest) ([]*pulled, error) {
	s.landing.Lock()
	defer s.landing.Unlock()
	s.mu.Lock()
	var held []*pulled
	for _, e := range m.Entries {
		if p := s.pulled.get(e.Digest); p != nil && e.Kind != KindKnown && !p.withheld {
			p.withheld = true
			held = append(held, p)
		}
	}
	s.mu.Unlock()
	if len(held) == 0 {
		return nil, nil
	}
	named := make(map[Digest]pullFacts, len(held))
	for _, p := range held {
		f := p.facts()
		f.State = pullNamed
		named[p.digest] = f
	}
	if err := s.index.setPulls(named); err != nil {
		s.giveBack(held)
		return nil, fmt.Errorf("cannot write the index: %w", err)
	}
	return held, nil
}

// giveBack puts blobs back into the account, which a snapshot would have needed that was not published.
func (s *Store) giveBack(held []*pulled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range held {
		p.withheld, p.saved = false, false
	}
}

// promote takes blobs out of the account that a published snapshot needs. A failure leaves them to the recount of the next owner.
func (s *Store) promote(held []*pulled) {
	if len(held) == 0 {
		return
	}
	s.landing.RLock()
	defer s.landing.RUnlock()
	digests := make([]Digest, len(held))
	s.mu.Lock()
	for i, p := range held {
		digests[i] = p.digest
		s.pulled.remove(p.digest)
	}
	s.mu.Unlock()
	if err := s.index.dropPulls(digests...); err != nil {
		s.log.Warn("cannot note that pulled files are needed now; the next start does", "store", s.dir, "files", len(digests), "reason", err)
	}
}

// demote makes blobs pulled that kept snapshots only know, no more need. They were used last when they were written, as far as
// anybody can tell.
func (s *Store) demote(blobs []Digest, keep *keepers) error {
	s.landing.RLock()
	defer s.landing.RUnlock()
	pulls := make(map[Digest]pullFacts)
	for _, d := range blobs {
		if keep.blobs[d] || !keep.known[d] || s.isPulled(d) {
			continue
		}
		if f, ok := s.found(d); ok {
			pulls[d] = f
		}
	}
	if len(pulls) == 0 {
		return nil
	}
	if err := s.index.setPulls(pulls); err != nil {
		return err
	}
	s.credit(pulls)
	return nil
}

// found returns what the file of a blob says of it as a pulled one.
func (s *Store) found(d Digest) (pullFacts, bool) {
	st, err := s.root.Stat(blobName(d))
	if err != nil {
		return pullFacts{}, false
	}
	return pullFacts{Size: st.Size(), Used: st.ModTime()}, true
}

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
