package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// Has reports whether the store has blob d: proven, and durable.
func (s *Store) Has(d Digest) bool {
	_, err := s.blob(d)
	return err == nil
}

// Holds is Has for who does not trust the disk: the file has to be there, in its size. A blob without is doubted, so that its content
// can be taken in again.
func (s *Store) Holds(d Digest) bool {
	facts, err := s.blob(d)
	if err != nil {
		return false
	}
	if size, err := s.files.blobSize(d); err == nil && size == facts.Size {
		return true
	}
	if err := s.Doubt(d); err != nil {
		s.log.Error("the store fails", "store", s.dir, "reason", err)
	}
	return false
}

// blob is [index.blob], but for blobs that are being removed. So a lease that is taken before this is asked keeps what it finds.
func (s *Store) blob(d Digest) (blobFacts, error) {
	s.mu.Lock()
	leaving := s.leaving[d]
	s.mu.Unlock()
	if leaving {
		return blobFacts{}, ErrMiss
	}
	return s.index.blob(d)
}

// Blob opens blob d for reading. The error is an [ErrMiss] where the store does not have it.
func (s *Store) Blob(d Digest) (*os.File, error) {
	if _, err := s.blob(d); err != nil {
		return nil, fmt.Errorf("cannot open blob %v in store %s: %w", d, s.dir, err)
	}
	return s.files.Blob(d)
}

// Put takes in a document that is in memory. It is durable, and Has knows of it, after the next Flush.
func (s *Store) Put(ctx context.Context, data []byte) (Digest, error) {
	w := Want{Size: int64(len(data)), SHA256: Sum(data)}
	err := s.put(ctx, w, data)
	if err != nil && !errors.Is(err, ErrExists) {
		return Digest{}, fmt.Errorf("cannot put a document of %d bytes: %w", len(data), err)
	}
	return w.SHA256, nil
}

func (s *Store) put(ctx context.Context, w Want, data []byte) error {
	in, err := s.Begin(ctx, w)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := in.writeMissing(data); err != nil {
		return err
	}
	_, err = in.Commit(ctx)
	if errors.Is(err, ErrCorrupt) { // what an earlier run left is not what its record says
		if err := in.Reset(); err != nil {
			return err
		}
		if err := in.writeMissing(data); err != nil {
			return err
		}
		_, err = in.Commit(ctx)
	}
	return err
}

// writeMissing writes what is not there yet, from all of the content.
func (in *Ingest) writeMissing(data []byte) error {
	for _, e := range in.Missing() {
		if _, err := in.WriteAt(data[e.Off:e.end()], e.Off); err != nil {
			return err
		}
	}
	return nil
}

// Take takes in the wanted content from r, whole: what an earlier run left of it is dropped. It is durable, and Has knows of it,
// after the next Flush. Errors are those of Begin, Commit and r.
func (s *Store) Take(ctx context.Context, w Want, r io.Reader) (Blob, error) {
	in, err := s.Receive(ctx, w, r)
	if err != nil {
		return Blob{}, err
	}
	defer in.Close()
	return in.Commit(ctx)
}

// Receive is Take without the Commit, which the caller does, and then closes the ingest: to make one durable may overlap with
// receiving the next.
func (s *Store) Receive(ctx context.Context, w Want, r io.Reader) (*Ingest, error) {
	in, err := s.Begin(ctx, w)
	if err != nil {
		return nil, err
	}
	if err := in.receive(ctx, r); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// receive writes all of r. What is written is hashed beside the writing of the next: either takes about as long as the other.
func (in *Ingest) receive(ctx context.Context, r io.Reader) error {
	in.mu.Lock()
	left := len(in.have) > 0 // by an earlier run
	in.mu.Unlock()
	if left {
		if err := in.Reset(); err != nil {
			return err
		}
	}
	pieces := make(chan piece, 1)
	var hashed sync.WaitGroup
	hashed.Go(func() { in.hashPieces(pieces) })
	defer hashed.Wait()
	defer close(pieces)
	for off := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := piece{buf: in.s.buffers.Get().(*[]byte), off: off}
		var err error
		p.n, err = r.Read(*p.buf)
		if p.n > 0 {
			if _, failed := in.write((*p.buf)[:p.n], off); failed != nil {
				return failed
			}
		}
		off += int64(p.n)
		pieces <- p
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A piece is n bytes that were written at off, in a buffer of the store's.
type piece struct {
	buf *[]byte
	n   int
	off int64
}

func (in *Ingest) hashPieces(pieces <-chan piece) {
	for p := range pieces {
		in.hashing.Lock()
		in.hash((*p.buf)[:p.n], p.off)
		in.hashing.Unlock()
		in.s.buffers.Put(p.buf)
	}
}

// aliasNote is the name of the note that says which blob has a sum that is no SHA-256.
func aliasNote(key string) string { return "sum/" + key }

// find returns an ExistsError if the store has what w wants, proven, be it durable yet or not; and nil if it has to be fetched.
// A blob that is found to be here only now is pulled if a pull asks for it.
func (s *Store) find(ctx context.Context, w Want, pull bool) error {
	d := w.SHA256
	if d.IsZero() {
		var ok bool
		if d, ok = s.alias(w.key()); !ok {
			return nil
		}
	}
	size, ok := s.size(d)
	if !ok && !w.SHA256.IsZero() {
		var err error
		if size, ok, err = s.adopt(ctx, d, pull); err != nil {
			return err
		}
	}
	switch {
	case !ok:
		return nil
	case w.Size >= 0 && w.Size != size:
		return &MismatchError{Sum: "size", Want: fmt.Sprint(w.Size), Got: fmt.Sprint(size), Size: size}
	}
	return &ExistsError{Blob{d, size}}
}

// alias returns the blob that has the sum that key names.
func (s *Store) alias(key string) (d Digest, ok bool) {
	s.mu.Lock()
	for _, b := range s.staged {
		if b.key == key {
			d = b.Digest
		}
	}
	s.mu.Unlock()
	if !d.IsZero() {
		return d, true
	}
	note, err := s.index.note(aliasNote(key))
	if err != nil || len(note) != len(d) {
		return Digest{}, false
	}
	copy(d[:], note)
	return d, true
}

// size returns the size of blob d if the store has it, or will have it after a flush.
func (s *Store) size(d Digest) (int64, bool) {
	s.mu.Lock()
	b := s.staged[d]
	s.mu.Unlock()
	if b != nil {
		return b.Size, true
	}
	facts, err := s.blob(d)
	return facts.Size, err == nil
}

// adopt takes in a file that has the name of blob d but that the index does not know: a crash came between the two, or the index
// is new. It is believed only after it was read whole and synced. What does not match is left for an ingest to replace. The
// caller is the ingest of d, for whose sake nobody removes the file.
func (s *Store) adopt(ctx context.Context, d Digest, pull bool) (size int64, ok bool, err error) {
	f, err := s.openUnknown(d)
	if f == nil || err != nil {
		return 0, false, err
	}
	defer f.Close()
	h := newSums(Want{})
	err = s.hash(ctx, h, f)
	if ctx.Err() != nil {
		return 0, false, context.Cause(ctx)
	}
	if err == nil && h.digest() != d {
		err = ErrCorrupt
	}
	if err != nil {
		level := slog.LevelWarn
		if s.isDoubted(d) { // that is known
			level = slog.LevelInfo
		}
		s.log.Log(ctx, level, "a file in the store is not what its name says, or cannot be read, and will be replaced", "store", s.dir, "blob", d.String(), "reason", err)
		return 0, false, nil
	}
	s.landing.RLock()
	defer s.landing.RUnlock()
	if err := s.disk.Sync(f); err != nil {
		return 0, false, fmt.Errorf("cannot make blob %v durable: %w", d, err)
	}
	if err := s.disk.SyncDir(blobDir(d)); err != nil {
		return 0, false, fmt.Errorf("cannot make blob %v durable: %w", d, err)
	}
	b := proven{Blob: Blob{d, h.n}, key: Want{SHA256: d}.key(), xxh64: h.xxh64.Sum64(), pulled: pull}
	if err := s.makeKnown(b); err != nil {
		return 0, false, err
	}
	return h.n, true, nil
}

// openUnknown returns nil where there is no file that can be read: whatever else has the name, an ingest replaces it, but for a
// directory. It waits for a removal that began before the caller's ingest.
func (s *Store) openUnknown(d Digest) (*os.File, error) {
	s.landing.RLock()
	defer s.landing.RUnlock()
	info, err := s.root.Lstat(blobName(d)) // before Open, which waits for who writes to a pipe
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory, where a file of the store belongs: move it away", blobName(d))
	case !info.Mode().IsRegular():
		return nil, nil
	}
	f, err := s.root.Open(blobName(d))
	if errors.Is(err, fs.ErrPermission) {
		s.log.Warn("a file in the store cannot be read, and will be replaced", "store", s.dir, "blob", d.String(), "reason", err)
		return nil, nil
	}
	return f, err
}

// prove reads the blob d and returns what is to be known of it; ErrMiss if it
// is not there, ErrCorrupt if its content is another.
func (s *Store) prove(ctx context.Context, d Digest) (blobFacts, error) {
	f, err := s.files.Blob(d)
	if err != nil {
		return blobFacts{}, err
	}
	defer f.Close()
	want := Want{Size: -1, SHA256: d}
	h := newSums(want)
	if err := s.hash(ctx, h, f); err != nil {
		return blobFacts{}, fmt.Errorf("cannot read blob %v: %w", d, err)
	}
	if err := h.check(want); err != nil {
		return blobFacts{}, err
	}
	return blobFacts{Size: h.n, XXH64: h.xxh64.Sum64(), Proven: s.opts.Now()}, nil
}

// hash reads all of r into h, which does not fail.
func (s *Store) hash(ctx context.Context, h io.Writer, r io.Reader) error {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(*buf)
		h.Write((*buf)[:n])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
