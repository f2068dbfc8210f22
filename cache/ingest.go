package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// bufferSize is how many bytes are read at once to be hashed.
const bufferSize = 256 << 10

// catchUp bounds how many bytes one WriteAt hashes beside its own, so that no writer waits long for the others' sake.
const catchUp = 4 << 20

// An Ingest takes in the bytes of one blob. They are untrusted until Commit has proven them.
//
// The sums are computed while the bytes land, along the frontier up to which nothing is missing. What lands there is hashed
// from the writer's buffer; what landed beyond it is read back, from memory as a rule, once the frontier gets there. So writers
// that share a file should take neighbouring extents in order: what is far ahead of the frontier has to be hashed in the end.
type Ingest struct {
	s     *Store
	want  Want
	key   string
	pull  bool          // what it brings is pulled
	lease *Lease        // of a pull: on what it brings, until it is closed
	epoch int           // s.epoch before the first write
	done  chan struct{} // closed when the next may begin

	whenProven func()      // called by Commit before the content is durable
	whole      atomic.Bool // all bytes are there, and Commit has begun

	prefix atomic.Int64 // the frontier: bytes from the first on that are there. It only grows, but for Reset.
	owed   atomic.Int64 // this ingest's share of s.promised

	// hashing is held by whoever hashes, and guards sums.
	hashing sync.Mutex
	sums    *sums
	hashed  atomic.Int64 // sums.n, for those who do not hold it

	// mu guards what follows; it is not held during I/O on the bytes.
	mu         sync.Mutex
	f          *os.File // nil when the bytes were dropped, and after the end
	record     *os.File // KEY.have; nil for a small file
	have       extents  // what is there
	writing    extents  // what is being written
	unrecorded extents  // what is there and not in record yet
	ended      bool
}

// A Blob is a content that the store has.
type Blob struct {
	Digest Digest
	Size   int64
}

// An ExistsError says which blob has the wanted content. It Is [ErrExists].
type ExistsError struct{ Blob Blob }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("blob %v is already in the store", e.Blob.Digest)
}

// Is reports whether target is ErrExists.
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// Begin starts to take in the wanted content, or goes on with what an earlier run left. Where another ingest of the same content
// is open, it waits for its end. It fails with an [*ExistsError] when the store has the content by then, and with a
// [*NoSpaceError] when there is no room for what is missing. The ingest must be closed.
func (s *Store) Begin(ctx context.Context, w Want) (*Ingest, error) {
	return s.beginIngest(ctx, &Ingest{want: w})
}

func (s *Store) beginIngest(ctx context.Context, in *Ingest) (*Ingest, error) {
	if err := in.want.validate(); err != nil {
		return nil, fmt.Errorf("cannot begin ingest: %w", err)
	}
	in.s, in.key, in.done, in.sums = s, in.want.key(), make(chan struct{}), newSums(in.want)
	if err := s.wait(ctx, in); err != nil {
		return nil, fmt.Errorf("cannot begin ingest of %s: %w", in.key, err)
	}
	if err := in.begin(ctx); err != nil {
		in.end()
		return nil, fmt.Errorf("cannot begin ingest of %s: %w", in.key, err)
	}
	return in, nil
}

// wait returns when in is the only ingest of its content.
func (s *Store) wait(ctx context.Context, in *Ingest) error {
	for {
		s.mu.Lock()
		other := s.running[in.key]
		if other == nil {
			s.running[in.key] = in
			in.epoch = s.epoch
		}
		s.mu.Unlock()
		if other == nil {
			return nil
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// claim is wait without waiting.
func (s *Store) claim(key string, in *Ingest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[key] != nil {
		return false
	}
	s.running[key] = in
	return true
}

// unclaim lets the next one begin.
func (s *Store) unclaim(key string) {
	s.mu.Lock()
	in := s.running[key]
	delete(s.running, key)
	s.mu.Unlock()
	close(in.done)
}

func (in *Ingest) begin(ctx context.Context) error {
	if err := in.s.find(ctx, in.want, in.pull); err != nil {
		return err
	}
	if in.pull {
		in.s.evictOrWarn(0)
	}
	if err := in.openPart(); err != nil {
		return in.s.full(err)
	}
	need := max(in.want.bound()-in.have.total(), 0)
	if err := in.s.promise(need); err != nil {
		if len(in.have) == 0 {
			in.drop()
		}
		in.closeFiles()
		return err
	}
	in.owed.Store(need)
	return nil
}

// Size returns the wanted size in bytes, or -1 where it is not known.
func (in *Ingest) Size() int64 { return in.want.Size }

// Missing returns the extents that are still to be written, in order. Where the size is not known it is one extent of length -1.
// What is there at the beginning came by an earlier run. If the content then does not match, it may be to blame: Reset the ingest,
// and fetch the content whole before blaming who sent it.
func (in *Ingest) Missing() []Extent {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.want.Size < 0 {
		return []Extent{{in.have.prefix(), -1}}
	}
	return in.have.missing(in.want.Size)
}

// WriteAt writes bytes that are missing. It may be called concurrently and in any order, but writes each byte once: what is there
// or being written cannot be overwritten, nor anything be written beyond the size or limit. An error is a [*NoSpaceError] when
// the disk is full; the bytes that came before are kept.
func (in *Ingest) WriteAt(p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if n, err = in.write(p, off); err == nil {
		in.follow(p, off)
	}
	return n, err
}

// write is WriteAt without the hashing.
func (in *Ingest) write(p []byte, off int64) (n int, err error) {
	e := Extent{off, int64(len(p))}
	f, err := in.enter(e)
	if err != nil {
		return 0, fmt.Errorf("cannot write %d bytes at %d of %s: %w", e.Len, off, in.key, err)
	}
	n, err = f.WriteAt(p, off)
	if err == nil {
		in.settle(e.Len)
	}
	if err = errors.Join(err, in.leave(e, err == nil)); err != nil {
		return n, fmt.Errorf("cannot write %d bytes at %d of %s: %w", e.Len, off, in.key, in.s.full(err))
	}
	return n, nil
}

// settle takes n bytes that were written, or are not needed, from what was promised.
func (in *Ingest) settle(n int64) {
	in.owed.Add(-n)
	in.s.promised.Add(-n)
}

var (
	errEnded   = errors.New("the ingest has ended")
	errDropped = errors.New("its bytes were dropped")
	errOverlap = errors.New("some of these bytes are there already")
)

// enter admits a write of e.
func (in *Ingest) enter(e Extent) (*os.File, error) {
	if e.Off < 0 || e.end() > in.want.bound() {
		return nil, fmt.Errorf("it may have %d bytes at most", in.want.bound())
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.ended:
		return nil, errEnded
	case in.f == nil:
		return nil, errDropped
	case in.have.overlaps(e) || in.writing.overlaps(e):
		return nil, errOverlap
	}
	in.writing = in.writing.insert(e)
	return in.f, nil
}

// leave notes the end of a write of e, and records what has been written since when that is worth it.
func (in *Ingest) leave(e Extent, written bool) error {
	in.mu.Lock()
	in.writing = in.writing.remove(e)
	var due Extent
	record := in.record
	if written {
		in.have = in.have.add(e)
		in.prefix.Store(in.have.prefix())
		if record != nil {
			due = in.note(e)
		}
	}
	in.mu.Unlock()
	if due.Len == 0 {
		return nil
	}
	return writeRecord(record, due)
}

// note adds e to what is unrecorded, and takes out the run that it belongs to when that has grown long enough. It holds mu.
func (in *Ingest) note(e Extent) Extent {
	in.unrecorded = in.unrecorded.add(e)
	i, ok := in.unrecorded.search(e.Off)
	if !ok {
		i--
	}
	run := in.unrecorded[i]
	if run.Len < recordEvery {
		return Extent{}
	}
	in.unrecorded = in.unrecorded.remove(run)
	return run
}

// writeRecord appends one line, in one write: writers do not get in each other's way.
func writeRecord(record *os.File, e Extent) error {
	_, err := fmt.Fprintf(record, "%d %d\n", e.Off, e.Len)
	return err
}

// follow hashes p, which was written at off, if the frontier is there, and some of what lies behind it. It leaves that to
// another writer who is at it. Errors of reading wait for Commit, which reads the same bytes again.
func (in *Ingest) follow(p []byte, off int64) {
	budget := int64(len(p)) + catchUp
	for budget > 0 && in.hashed.Load() < in.prefix.Load() {
		if !in.hashing.TryLock() {
			return
		}
		before := in.sums.n
		in.hash(p, off)
		err := in.hashTo(min(in.prefix.Load(), before+budget))
		budget -= in.sums.n - before
		in.hashing.Unlock()
		if err != nil {
			return
		}
	}
}

// hash hashes p, which is there at off, if the sums have come so far. It holds hashing.
func (in *Ingest) hash(p []byte, off int64) {
	if in.sums.n == off {
		in.sums.Write(p)
		in.hashed.Store(in.sums.n)
	}
}

// hashTo reads and hashes what is there up to end. It holds hashing, or nobody else has in yet.
func (in *Ingest) hashTo(end int64) error {
	buf := in.s.buffers.Get().(*[]byte)
	defer in.s.buffers.Put(buf)
	for in.sums.n < end {
		n, err := in.f.ReadAt((*buf)[:min(bufferSize, end-in.sums.n)], in.sums.n)
		in.sums.Write((*buf)[:n])
		in.hashed.Store(in.sums.n)
		if err != nil {
			return err
		}
	}
	return nil
}

// Reset drops all bytes and starts anew from nothing.
func (in *Ingest) Reset() error {
	in.hashing.Lock()
	defer in.hashing.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return fmt.Errorf("cannot reset ingest of %s: %w", in.key, errEnded)
	}
	if err := in.drop(); err != nil {
		return fmt.Errorf("cannot reset ingest of %s: %w", in.key, err)
	}
	if err := in.openPart(); err != nil {
		return fmt.Errorf("cannot reset ingest of %s: %w", in.key, in.s.full(err))
	}
	in.settle(in.owed.Load() - in.want.bound())
	in.epoch = in.s.syncEpoch()
	return nil
}

// drop deletes the partial download. It holds hashing and mu.
func (in *Ingest) drop() error {
	in.closeFiles()
	in.forget()
	return in.s.removeParts(in.key)
}

// forget makes nothing known of any bytes.
func (in *Ingest) forget() {
	in.have, in.unrecorded = nil, nil
	in.sums = newSums(in.want)
	in.hashed.Store(0)
	in.prefix.Store(0)
}

func (in *Ingest) closeFiles() {
	if in.f != nil {
		in.f.Close()
	}
	if in.record != nil {
		in.record.Close()
	}
	in.f, in.record = nil, nil
}

// Close ends the ingest. Without a Commit before, the partial download is kept for the next. After one it does nothing.
func (in *Ingest) Close() error {
	if in.lease != nil {
		defer in.lease.Release()
	}
	in.hashing.Lock()
	defer in.hashing.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended {
		return nil
	}
	var err error
	if in.record != nil {
		for _, e := range in.unrecorded {
			err = errors.Join(err, writeRecord(in.record, e))
		}
	}
	if len(in.have) == 0 || in.record == nil && in.have.total() < in.want.Size {
		err = errors.Join(err, in.drop())
	}
	in.closeFiles()
	in.end()
	if err != nil {
		return fmt.Errorf("cannot keep the partial download %s: %w", in.key, in.s.full(err))
	}
	return nil
}

// end gives up what was promised to the ingest, and lets the next one begin.
func (in *Ingest) end() {
	in.ended = true
	in.settle(in.owed.Load())
	in.s.unclaim(in.key)
}
