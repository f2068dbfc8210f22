package cache

import (
	"context"
	"errors"
	"log/slog"
)

// learnBlobs makes the blobs known to x that manifests name and that are in the store,
// and marks x as whole. Others are believed only if there is a prove that proves them: who
// opens a store does not wait for that, and who asks for their content later
// has them proven then. Blobs that manifests only know are pulled, and were
// used last when the account says, or else when they were written.
func (s *Store) learnBlobs(ctx context.Context, x *index, prove func(Digest) (facts blobFacts, sound bool, err error)) error {
	named, asked, err := s.named(ctx, x)
	if err != nil {
		return err
	}
	l := &learning{s: s, x: x, prove: prove, named: named, asked: asked, blobs: make(map[Digest]blobFacts), pulls: make(map[Digest]pullFacts)}
	err = s.files.eachBlob(ctx, func(d Digest, size int64) error {
		if err := l.blob(ctx, d, size); err != nil {
			return err
		}
		return l.write(batchRoom)
	})
	if err == nil {
		err = l.write(1)
	}
	if err != nil {
		return err
	}
	if l.known+l.others > 0 || len(named) > 0 {
		level := slog.LevelWarn
		if prove != nil { // somebody asked for it
			level = slog.LevelInfo
		}
		s.log.Log(ctx, level, "the index was made again from the files", "blobs", l.known, "unproven", l.others)
	}
	return x.setWhole()
}

// A learning is a learnBlobs under way.
type learning struct {
	s     *Store
	x     *index
	prove func(Digest) (facts blobFacts, sound bool, err error) // nil: what no manifest names stays unknown

	named map[Digest]int64 // sizes of the blobs that manifests name
	asked map[Digest]bool  // those that manifests only know

	// What is to be written to x.
	blobs map[Digest]blobFacts
	pulls map[Digest]pullFacts

	known, others int // files that became known, and that did not
}

// blob learns what a file of the store is that has the name of a blob.
func (l *learning) blob(ctx context.Context, d Digest, size int64) error {
	want, named := l.named[d]
	switch {
	case named && l.s.unknownBeside(l.x, d):
		return l.s.proveUnknown(ctx, d, l.blobs)
	case named && size == want:
		l.blobs[d] = blobFacts{Size: size}
		return nil
	case named:
		l.s.log.Error("a blob has the wrong size and counts as missing", "digest", d.String(), "size", size, "want", want)
		return nil
	case l.prove == nil:
		l.others++
	default:
		facts, sound, err := l.prove(d)
		if err != nil || !sound {
			return err
		}
		l.blobs[d] = facts
	}
	l.s.findPulled(d, l.asked, l.pulls)
	return nil
}

// write writes what was learnt to the index, if that are least facts.
func (l *learning) write(least int) error {
	if len(l.blobs)+len(l.pulls) < least {
		return nil
	}
	l.known += len(l.blobs)
	err := l.x.putPulled(l.blobs, l.pulls)
	clear(l.blobs)
	clear(l.pulls)
	return err
}

// findPulled adds a blob that no manifest needs to pulls, if it is pulled.
func (s *Store) findPulled(d Digest, asked map[Digest]bool, pulls map[Digest]pullFacts) {
	s.mu.Lock()
	p := s.pulled.get(d)
	if p != nil {
		pulls[d] = p.facts()
	}
	s.mu.Unlock()
	if p != nil || !asked[d] {
		return
	}
	if f, ok := s.found(d); ok {
		pulls[d] = f
	}
}

// unknownBeside reports whether blob d is unknown to the index that x is made beside: it was set aside since it is damaged, maybe
// by an owner before this one, and no manifest vouches for its bytes any more.
func (s *Store) unknownBeside(x *index, d Digest) bool {
	if x == s.index {
		return false
	}
	_, err := s.index.blob(d)
	return errors.Is(err, ErrMiss)
}

// proveUnknown adds a blob that a manifest names to blobs if it is sound. A damaged one is left to an ingest, which replaces it.
func (s *Store) proveUnknown(ctx context.Context, d Digest, blobs map[Digest]blobFacts) error {
	facts, err := s.prove(ctx, d)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		s.log.Warn("a blob that was set aside is damaged still", "digest", d.String(), "reason", err)
		return nil
	}
	s.believe(d)
	blobs[d] = facts
	return nil
}

// named returns the blobs that any manifest names, with their sizes, and those
// that one only knows. The former are durable before a manifest that names them
// is, whether it became current or not. A rebuild fails where a manifest cannot be
// read now: it would take what is served well by the old index away.
func (s *Store) named(ctx context.Context, x *index) (sizes map[Digest]int64, known map[Digest]bool, err error) {
	sizes, known = make(map[Digest]int64), make(map[Digest]bool)
	streams, err := s.files.archived()
	if err != nil {
		return nil, nil, err
	}
	for _, stream := range streams {
		ids, err := s.files.manifests(stream)
		if err != nil {
			return nil, nil, err
		}
		for _, id := range ids {
			if err := context.Cause(ctx); err != nil {
				return nil, nil, err
			}
			m, err := s.files.Manifest(stream, id)
			if s.mayPass(x, err) {
				return nil, nil, err
			}
			if err != nil {
				s.log.Error("a snapshot cannot be used", "stream", stream, "snapshot", id.String(), "reason", err)
				continue
			}
			for _, e := range m.Entries {
				if e.Kind == KindKnown {
					known[e.Digest] = true
				} else {
					sizes[e.Digest] = e.Size
				}
			}
		}
	}
	return sizes, known, nil
}
