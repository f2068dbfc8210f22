package cache

import (
	"fmt"
	"slices"
)

// withhold keeps those pulled blobs from being evicted that m needs, and returns them: they are about to leave the account. The
// index is told before the switch, since after a crash the manifests have to tell which of them it needs.
func (s *Store) withhold(m *Manifest) ([]*pulled, error) {
	s.landing.Lock()
	defer s.landing.Unlock()
	s.mu.Lock()
	var held []*pulled
	named := make(map[Digest]pullFacts)
	for _, e := range m.Entries {
		if p := s.pulled.get(e.Digest); p != nil && e.Kind != KindKnown && !p.withheld {
			p.withheld = true
			held = append(held, p)
			named[p.digest] = pullFacts{State: pullNamed, Size: p.size, Used: p.used}
		}
	}
	s.mu.Unlock()
	if len(held) == 0 {
		return nil, nil
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

// takeOut takes blobs out of the account that kept snapshots need.
func (s *Store) takeOut(blobs []Digest, keep *keepers) error {
	s.landing.RLock()
	defer s.landing.RUnlock()
	needed := slices.DeleteFunc(blobs, func(d Digest) bool { return !keep.blobs[d] })
	if len(needed) == 0 {
		return nil
	}
	s.mu.Lock()
	for _, d := range needed {
		s.pulled.remove(d)
	}
	s.mu.Unlock()
	return s.index.dropPulls(needed...)
}

// found returns what the file of a blob says of it as a pulled one.
func (s *Store) found(d Digest) (pullFacts, bool) {
	st, err := s.root.Stat(blobName(d))
	if err != nil {
		return pullFacts{}, false
	}
	return pullFacts{Size: st.Size(), Used: st.ModTime()}, true
}
