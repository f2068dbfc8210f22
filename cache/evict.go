package cache

import (
	"errors"
	"io/fs"
)

// evictAtOnce is how many blobs are removed while what has landed waits to be named: large files take some milliseconds each.
const evictAtOnce = 20

// credit lists blobs as pulled. The index says so already.
func (s *Store) credit(pulls map[Digest]pullFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulled.add(pulls)
	if s.overLimit() {
		s.callEvictor()
	}
}

// incoming returns what the running pulls may bring, but for those that are too large to make room for, and those that have just
// brought it. The caller holds mu.
func (s *Store) incoming() (n int64) {
	for _, in := range s.running {
		if size := in.want.bound(); in.pull && !s.pulled.tooLarge(size) && s.pulled.get(in.want.SHA256) == nil {
			n += size
		}
	}
	return n
}

// overLimit reports whether anything should be evicted. The caller holds mu.
func (s *Store) overLimit() bool {
	return s.pulled.limit > 0 && s.pulled.bytes+s.incoming() > s.pulled.limit
}

// evictable returns how many bytes of pulled blobs nobody uses.
func (s *Store) evictable() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.pulled.all {
		if p := s.pulled.get(d); s.mayGo(p) {
			n += p.size
		}
	}
	return n
}

// mayGo holds mu.
func (s *Store) mayGo(p *pulled) bool {
	return !p.withheld && !s.leaving[p.digest] && !s.inUse(p.digest)
}

// evictOrWarn is evict for who goes on without.
func (s *Store) evictOrWarn(need int64) {
	if err := s.evict(need); err != nil {
		s.log.Warn("cannot evict pulled files", "store", s.dir, "reason", err)
	}
}

// evict removes pulled blobs that nobody uses, the least recently used first, until the rest and what is on its way are within
// the limit, and need bytes are gone. Those that are too large go in any case.
func (s *Store) evict(need int64) error {
	for {
		s.mu.Lock()
		idle := need <= 0 && !s.overLimit()
		s.mu.Unlock()
		if idle {
			return nil
		}
		n, bytes, err := s.evictSome(need)
		if n > 0 {
			s.log.Info("pulled files were evicted", "store", s.dir, "files", n, "bytes", bytes)
		}
		if err != nil || n == 0 {
			return err
		}
		need -= bytes
	}
}

func (s *Store) evictSome(need int64) (n int, bytes int64, err error) {
	s.landing.Lock()
	defer s.landing.Unlock()
	victims := s.victims(need)
	if len(victims) == 0 {
		return 0, 0, nil
	}
	defer s.step(stepEvict, "blobs", len(victims))()
	err = s.removeLeaving(victims)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range victims {
		if s.pulled.get(p.digest) == nil {
			n++
			bytes += p.size
		}
	}
	s.pulled.stats.Evicted += n
	s.pulled.stats.EvictedBytes += bytes
	return n, bytes, err
}

// victims chooses the next to be evicted. They are leaving from then on.
func (s *Store) victims(need int64) (victims []*pulled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	over := int64(0)
	if s.pulled.limit > 0 {
		over = s.pulled.fitting() + s.incoming() - s.pulled.limit
	}
	for e := s.pulled.order.Front(); e != nil && len(victims) < evictAtOnce; e = e.Next() {
		p := e.Value.(*pulled)
		tooLarge := s.pulled.tooLarge(p.size)
		if !tooLarge && over <= 0 && need <= 0 || !s.mayGo(p) {
			continue
		}
		s.leaving[p.digest] = true
		victims = append(victims, p)
		need -= p.size
		if !tooLarge {
			over -= p.size
		}
	}
	return victims
}

// leave marks a blob as leaving if nobody uses it, and returns what the account says of it.
func (s *Store) leave(d Digest) (p *pulled, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = s.pulled.get(d)
	if s.inUse(d) || s.leaving[d] {
		return nil, false
	}
	s.leaving[d] = true
	if p == nil {
		p = &pulled{digest: d}
	}
	return p, true
}

// removeLeaving removes blobs that are marked as leaving. It holds landing alone, so that none of them lands meanwhile.
//
// The order is: unknown to the index, and noted there as leaving if it is pulled; file gone; note gone. The index comes first,
// because what it knows is promised to be there: a crash before its write leaves the blob, one after it a file that the note has
// the next owner remove.
func (s *Store) removeLeaving(blobs []*pulled) error {
	defer s.stay(blobs)
	pulls := make(map[Digest]pullFacts)
	digests := make([]Digest, len(blobs))
	s.mu.Lock()
	for i, p := range blobs {
		digests[i] = p.digest
		if s.pulled.get(p.digest) != nil {
			pulls[p.digest] = pullFacts{State: pullLeaving, Size: p.size, Used: p.used}
		}
	}
	s.mu.Unlock()
	if err := s.index.leave(pulls, digests...); err != nil {
		return err
	}
	s.mu.Lock()
	for _, d := range digests {
		s.pulled.remove(d)
	}
	s.mu.Unlock()
	return s.removeFiles(pulls, digests)
}

// removeFiles removes the files of blobs that are unknown to the index, and then the notes of those that are pulled. A file that
// cannot be removed keeps its note.
func (s *Store) removeFiles(pulls map[Digest]pullFacts, blobs []Digest) error {
	var errs []error
	var gone []Digest
	for _, d := range blobs {
		s.log.Debug("disk", "op", "remove", "name", blobName(d))
		err := s.root.Remove(blobName(d))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		if _, ok := pulls[d]; ok {
			gone = append(gone, d)
		}
	}
	if len(gone) > 0 {
		errs = append(errs, s.index.dropPulls(gone...))
	}
	return errors.Join(errs...)
}

// stay ends the leaving of blobs: they are gone, or could not go. What the index says of the latter may be either.
func (s *Store) stay(blobs []*pulled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range blobs {
		p.saved = false
		delete(s.leaving, p.digest)
	}
}

func (s *Store) isPulled(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pulled.get(d) != nil
}
