package cache

import "fmt"

// Doubt makes blob d unknown, because a reader or a check has found that it is missing, damaged or cannot be read: nobody is given
// its bytes any more. Snapshots go on to name it. The next ingest of its content reads what is there; it is known again if that is
// what its name says, and replaced otherwise. A pulled blob, which no snapshot needs, is removed at once. Whoever asks for a damaged
// file doubts it: that costs a write only once.
func (s *Store) Doubt(d Digest) error {
	s.landing.Lock()
	defer s.landing.Unlock()
	s.mu.Lock()
	p := s.pulled.get(d)
	needed := p == nil || p.withheld
	if needed {
		s.doubted[d] = true
	} else {
		s.leaving[d] = true
	}
	s.mu.Unlock()
	var err error
	if needed {
		err = s.index.dropBlob(d)
	} else {
		err = s.removeLeaving([]*pulled{p})
	}
	if err != nil {
		return fmt.Errorf("cannot set blob %v aside: %w", d, err)
	}
	return nil
}

// isDoubted reports whether a blob is unknown by a doubt.
func (s *Store) isDoubted(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubted[d]
}

// believe ends the doubts about a blob that was proven.
func (s *Store) believe(d Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubted, d)
}
