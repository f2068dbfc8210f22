package cache

import "sync"

// A Lease keeps blobs from being swept and evicted while a plan counts on them, or somebody reads them. It lives in memory: a
// plan ends with its process.
//
// Add a digest before asking whether the store has it. Then either the removal comes first and the answer is no, or the lease comes
// first and the blob stays.
type Lease struct {
	s  *Store
	mu sync.Mutex // guards digests, which is nil once released
	// digests are those that this lease counts on.
	digests map[Digest]struct{}
}

// Lease returns a lease that covers nothing yet.
func (s *Store) Lease() *Lease {
	return &Lease{s: s, digests: make(map[Digest]struct{})}
}

// Add makes the lease cover more blobs, whether the store has them already or not. A released lease covers nothing more.
func (l *Lease) Add(digests ...Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.digests == nil {
		return
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, d := range digests {
		if _, ok := l.digests[d]; !ok {
			l.digests[d] = struct{}{}
			l.s.leases[d]++
		}
	}
}

// Release ends the lease. Releasing it again does nothing.
func (l *Lease) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for d := range l.digests {
		if l.s.leases[d]--; l.s.leases[d] == 0 {
			delete(l.s.leases, d)
		}
	}
	l.digests = nil
	if l.s.overLimit() {
		l.s.callEvictor() // what was leased may go now
	}
}

// leased reports whether a sweep must leave blob d alone: a lease covers it, or it is on its way in.
func (s *Store) leased(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse(d)
}

// inUse is leased for who holds mu.
func (s *Store) inUse(d Digest) bool {
	if s.leases[d] > 0 {
		return true
	}
	if _, ok := s.staged[d]; ok {
		return true
	}
	_, ok := s.running[Want{SHA256: d}.key()]
	return ok
}
