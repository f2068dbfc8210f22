package cache

import (
	"context"
	"errors"
	"fmt"
	"path"
)

// proven is a blob whose bytes were read and found to be what its digest says.
type proven struct {
	Blob
	key    string // of the ingest that it came by
	xxh64  uint64 // computed by the reading that proved it
	pulled bool   // it is to be in the account of pulled blobs, unless it was here already
}

// staged is a small blob that is proven but not durable: its file is still in ingest/, or it moved and nothing more is certain.
type staged struct {
	proven
	moved bool // the file has its final name; only the one that flushes touches this
}

// Commit proves that the bytes are what was wanted, and makes them a blob. A large one is durable on return; a small one after
// the next Flush.
//
// It fails with [ErrIncomplete] while bytes are missing, and with a [*MismatchError] when the content is another: then the
// bytes are dropped, and the ingest can be Reset. Where ctx ends it, or the bytes cannot be read, the ingest is as it was. After any
// other error, and after success, it has ended.
func (in *Ingest) Commit(ctx context.Context) (Blob, error) {
	in.hashing.Lock()
	defer in.hashing.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	b, err := in.commit(ctx)
	if err != nil {
		return Blob{}, fmt.Errorf("cannot commit %s: %w", in.key, err)
	}
	return b.Blob, nil
}

// commit holds hashing and mu, during I/O as well: whoever commits is done writing.
func (in *Ingest) commit(ctx context.Context) (proven, error) {
	switch {
	case in.ended:
		return proven{}, errEnded
	case in.f == nil:
		return proven{}, errDropped
	case len(in.writing) > 0:
		return proven{}, errors.New("bytes are still being written")
	case in.have.total() != in.prefix.Load() || in.want.Size > in.prefix.Load():
		return proven{}, fmt.Errorf("%w: %d of %d bytes are there", ErrIncomplete, in.have.total(), in.want.Size)
	}
	in.whole.Store(true)
	b, err := in.prove(ctx)
	in.whole.Store(err == nil)
	if errors.Is(err, ErrCorrupt) {
		return proven{}, errors.Join(err, in.drop())
	}
	if err != nil {
		return proven{}, err
	}
	if in.whenProven != nil {
		in.whenProven()
	}
	if b.Size < smallSize {
		err = in.stage(b)
	} else {
		err = in.land(b)
	}
	in.closeFiles()
	in.end()
	return b, err
}

// prove computes the sums of all bytes and compares them with those that were wanted.
func (in *Ingest) prove(ctx context.Context) (proven, error) {
	const step = 64 * bufferSize
	end := in.prefix.Load()
	for in.sums.n < end {
		if ctx.Err() != nil {
			return proven{}, context.Cause(ctx)
		}
		if err := in.hashTo(min(end, in.sums.n+step)); err != nil {
			return proven{}, err
		}
	}
	if err := in.sums.check(in.want); err != nil {
		return proven{}, err
	}
	b := Blob{in.sums.digest(), in.sums.n}
	return proven{Blob: b, key: in.key, xxh64: in.sums.xxh64.Sum64(), pulled: in.pull}, nil
}

// finish makes the file of a blob immutable, where openSmall did not do so.
func (in *Ingest) finish(size int64) error {
	if in.record == nil {
		return nil
	}
	if !in.sizeIs(size) {
		if err := in.f.Truncate(size); err != nil {
			return err
		}
	}
	return in.f.Chmod(0o444)
}

// stage leaves a small blob to the next Flush.
func (in *Ingest) stage(b proven) error {
	if err := in.finish(b.Size); err != nil {
		return err
	}
	if in.record != nil {
		if err := ignoreMissing(in.s.parts.Remove(in.key + recordSuffix)); err != nil {
			return err
		}
	}
	in.s.mu.Lock()
	synced := in.epoch == in.s.epoch
	first := in.s.staged[b.Digest] == nil
	if synced && first {
		in.s.staged[b.Digest] = &staged{proven: b}
	}
	in.s.mu.Unlock()
	switch {
	case !synced:
		return errors.Join(errSyncFailed, in.drop())
	case !first: // the same content came by another sum
		return in.s.removeParts(in.key)
	}
	return nil
}

var errSyncFailed = errors.New("a sync failed while it was written; its bytes were dropped and have to be fetched again")

// land makes a large blob durable and known, in this order: sync its bytes, rename, sync the directory, index.
func (in *Ingest) land(b proven) error {
	defer in.s.step(stepDurable, "digest", b.Digest.String())()
	if err := in.finish(b.Size); err != nil {
		return err
	}
	if err := in.s.disk.Sync(in.f); err != nil {
		return fmt.Errorf("cannot make it durable: %w; its bytes were dropped and have to be fetched again", errors.Join(err, in.drop()))
	}
	in.s.landing.RLock()
	defer in.s.landing.RUnlock()
	if err := in.s.disk.Rename(ingestDir+"/"+in.key+partSuffix, blobName(b.Digest)); err != nil {
		return in.s.full(err)
	}
	if err := ignoreMissing(in.s.parts.Remove(in.key + recordSuffix)); err != nil {
		return err
	}
	if err := in.s.disk.SyncDir(blobDir(b.Digest)); err != nil {
		return fmt.Errorf("cannot make it durable: %w; its bytes were dropped and have to be fetched again",
			errors.Join(err, in.s.root.Remove(blobName(b.Digest))))
	}
	return in.s.makeKnown(b)
}

// makeKnown puts durable blobs into the index, and those that are pulled into the account. A pulled one that came meanwhile by
// another sum is not, nor one that came again: a snapshot may need it. It holds landing.
func (s *Store) makeKnown(blobs ...proven) error {
	defer s.step(stepIndex, "blobs", len(blobs))()
	facts, pulls := make(map[Digest]blobFacts, len(blobs)), make(map[Digest]pullFacts)
	for _, b := range blobs {
		facts[b.Digest] = blobFacts{Size: b.Size, XXH64: b.xxh64, Proven: s.opts.Now()}
		if !b.pulled || s.isDoubted(b.Digest) {
			continue
		}
		if _, err := s.index.blob(b.Digest); errors.Is(err, ErrMiss) {
			pulls[b.Digest] = pullFacts{Size: b.Size, Used: s.opts.Now()}
		}
	}
	if err := s.index.putPulled(facts, pulls); err != nil {
		return err
	}
	s.credit(pulls)
	aliases := make(map[string][]byte)
	for _, b := range blobs {
		s.believe(b.Digest)
		if b.key != (Want{SHA256: b.Digest}).key() {
			aliases[aliasNote(b.key)] = b.Digest[:]
		}
	}
	if len(aliases) == 0 {
		return nil
	}
	return s.index.setNotes(aliases)
}

func blobDir(d Digest) string { return path.Dir(blobName(d)) }
