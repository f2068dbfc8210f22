package cache

import (
	"context"
	"fmt"
	"os"
	"time"
)

// BeginPull is [Store.Begin] for content that is fetched because somebody asks for it. Where no kept snapshot needs it, the blob
// that it becomes is pulled: it stays until it is evicted, so that all pulled blobs together keep within [Options].CacheLimit.
// What running pulls may bring counts too. BeginPull makes room for its own by removing the least recently used ones, but never
// one that is leased or on its way in; where these leave too little, the limit is exceeded by what they take, until they end.
//
// Content that is larger than the limit makes no room: it is taken in all the same, and goes with the last lease on it. The
// ingest itself leases what it brings until it is closed, after Commit too; who reads a blob for longer takes a lease of its own.
func (s *Store) BeginPull(ctx context.Context, w Want) (*Ingest, error) {
	lease := s.Lease()
	lease.Add(w.SHA256)
	in, err := s.beginIngest(ctx, &Ingest{want: w, pull: true, lease: lease})
	if err != nil {
		lease.Release()
	}
	return in, err
}

// Follow opens what has landed for reading, beside those who write. Which bytes are there, Ahead tells; none of them is proven.
// A Reset leaves the file as it was then. After the end of the ingest it fails: see [Store.Blob].
func (in *Ingest) Follow() (*os.File, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	err := errEnded
	if in.f == nil && !in.ended {
		err = errDropped
	}
	var f *os.File
	if in.f != nil {
		f, err = in.s.parts.Open(in.key + partSuffix)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot follow ingest of %s: %w", in.key, err)
	}
	return f, nil
}

// WhenProven has Commit call proven once the content is found to be what was wanted, before it is durable: who follows need not
// wait for that. It is called at most once, by the goroutine that commits, and must not call the ingest. Set it before any of the
// bytes is written.
func (in *Ingest) WhenProven(proven func()) { in.whenProven = proven }

// Ahead returns how many bytes have landed from off on without a gap.
func (in *Ingest) Ahead(off int64) int64 {
	if in.whole.Load() { // Commit does not let go of mu until all is durable
		return in.prefix.Load() - off
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.have.ahead(off)
}

// Touch notes that blob d is used now, if it is pulled. It costs no I/O: the times are saved once a minute and by Close, so that
// a crash loses those of the last minute.
func (s *Store) Touch(d Digest) {
	now := s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulled.use(d, now)
}

// SetCacheLimit changes [Options].CacheLimit, of which it takes the same values. What is over the new limit is removed soon
// after.
func (s *Store) SetCacheLimit(limit int64) {
	s.mu.Lock()
	s.pulled.limit = orDefault(limit, DefaultCacheLimit)
	s.mu.Unlock()
	s.callEvictor()
}

// PullStats says what is pulled, and what was evicted since the store was opened.
type PullStats struct {
	Blobs        int
	Bytes        int64
	Limit        int64 // of Bytes; 0 is none
	Evicted      int
	EvictedBytes int64
}

// PullStats returns what is pulled.
func (s *Store) PullStats() PullStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.pulled.stats
	st.Blobs, st.Bytes, st.Limit = len(s.pulled.all), s.pulled.bytes, s.pulled.limit
	return st
}

// saveEvery is how often times of use are saved.
const saveEvery = time.Minute

// tend evicts when it is called for, and saves times of use now and then, until stop is closed.
func (s *Store) tend(stop <-chan struct{}) {
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	for {
		select {
		case <-s.due:
			s.evictOrWarn(0)
		case <-save.C:
			s.saveUses()
		case <-stop:
			return
		}
	}
}

// callEvictor has what is over the limit removed soon.
func (s *Store) callEvictor() {
	select {
	case s.due <- struct{}{}:
	default: // it was called already
	}
}

// saveUses makes the times of use durable that changed. It holds landing, so that none is saved of a blob that goes meanwhile.
func (s *Store) saveUses() {
	s.landing.RLock()
	defer s.landing.RUnlock()
	s.mu.Lock()
	changed := s.pulled.changed()
	s.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	if err := s.index.setPulls(changed); err != nil {
		s.log.Warn("cannot save when pulled files were used last; it is tried again", "store", s.dir, "files", len(changed), "reason", err)
		s.mu.Lock()
		s.pulled.unsaved(changed)
		s.mu.Unlock()
	}
}
