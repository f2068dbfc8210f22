package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"syscall"
)

// settle brings the index in line with the files when the store is opened.
// What is wrong with single snapshots is logged: it must not keep the others
// from being served.
func (s *Store) settle(ctx context.Context) error {
	whole, err := s.index.isWhole()
	if err != nil {
		return err
	}
	if !whole {
		if err := s.fill(ctx, s.index, nil); err != nil {
			return fmt.Errorf("cannot make the index from the files: %w", err)
		}
	}
	if s.died {
		s.recount = true
		if err := s.dropGone(ctx); err != nil {
			return err
		}
	}
	if err := s.shelve(ctx, s.index); err != nil {
		return err
	}
	return s.openAccount(ctx, s.index)
}

// Rebuild makes the index anew from the files of the store, while the old one
// goes on answering. Blobs that a manifest names are taken as they are, since
// they were proven before it was written; others are proven by their SHA-256,
// and removed if they are damaged or the disk cannot read them. What is lost are notes, and fingerprints
// until the next check.
func (s *Store) Rebuild(ctx context.Context) error {
	if err := s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer s.index.endTurn()
	var damaged []Digest
	prove := func(d Digest) (facts blobFacts, sound bool, err error) {
		facts, err = s.prove(ctx, d)
		switch {
		case ctx.Err() != nil:
			return blobFacts{}, false, context.Cause(ctx)
		case errors.Is(err, ErrCorrupt) || badDisk(err):
			damaged = append(damaged, d)
		case err != nil:
			s.log.Error("a blob that nothing names cannot be read, and counts as missing", "digest", d.String(), "reason", err)
		}
		return facts, err == nil, nil
	}
	err := s.index.replace(func(new *index) error {
		// A blob that nothing names may have got its name by a rename that no sync followed.
		if err := s.disk.SyncFS(); err != nil {
			return err
		}
		if err := s.fill(ctx, new, prove); err != nil {
			return err
		}
		if err := s.shelve(ctx, new); err != nil {
			return err
		}
		return s.recredit(ctx, new)
	})
	if err != nil {
		return fmt.Errorf("cannot rebuild the index: %w", err)
	}
	s.removeDamaged(damaged) // of which the old index may have known
	return nil
}

// badDisk tells what reading a bad file comes to from what is wrong with the system.
func badDisk(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EUCLEAN) || errors.Is(err, syscall.EBADMSG)
}

// removeDamaged removes files that are not what their names say, but for those whose blobs have come again.
func (s *Store) removeDamaged(blobs []Digest) {
	s.landing.Lock()
	defer s.landing.Unlock()
	for _, d := range blobs {
		if s.Has(d) {
			continue
		}
		if err := s.disk.Remove(blobName(d)); err != nil {
			s.log.Error("a damaged blob that nothing names cannot be removed", "digest", d.String(), "reason", err)
			continue
		}
		s.log.Warn("a damaged blob that nothing names is removed", "digest", d.String())
	}
}

// fill makes the blobs known that manifests name and that are in the store,
// and marks x as whole. Others are believed only if there is a prove that proves them: who
// opens a store does not wait for that, and who asks for their content later
// has them proven then. Blobs that manifests only know are pulled, and were
// used last when the account says, or else when they were written.
func (s *Store) fill(ctx context.Context, x *index, prove func(Digest) (facts blobFacts, sound bool, err error)) error {
	named, asked, err := s.named(ctx)
	if err != nil {
		return err
	}
	blobs, pulls := make(map[Digest]blobFacts), make(map[Digest]pullFacts)
	known, others := 0, 0
	flush := func(least int) error {
		if len(blobs)+len(pulls) < least {
			return nil
		}
		known += len(blobs)
		err := x.putPulled(blobs, pulls)
		clear(blobs)
		clear(pulls)
		return err
	}
	err = s.files.eachBlob(ctx, func(d Digest, size int64) error {
		want, isNamed := named[d]
		switch {
		case isNamed && size == want:
			blobs[d] = blobFacts{Size: size}
		case isNamed:
			s.log.Error("a blob has the wrong size and counts as missing", "digest", d.String(), "size", size, "want", want)
		case prove != nil:
			facts, sound, err := prove(d)
			if err != nil || !sound {
				return err
			}
			blobs[d] = facts
		default:
			others++
		}
		if !isNamed {
			s.findPulled(d, asked, pulls)
		}
		return flush(batchRoom)
	})
	if err == nil {
		err = flush(1)
	}
	if err != nil {
		return err
	}
	if known+others > 0 || len(named) > 0 {
		level := slog.LevelWarn
		if prove != nil { // somebody asked for it
			level = slog.LevelInfo
		}
		s.log.Log(ctx, level, "the index was made again from the files", "blobs", known, "unproven", others)
	}
	return x.setWhole()
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

// named returns the blobs that any manifest names, with their sizes, and those
// that one only knows. The former are durable before a manifest that names them
// is, whether it became current or not.
func (s *Store) named(ctx context.Context) (sizes map[Digest]int64, known map[Digest]bool, err error) {
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

// eachBlob calls visit with every file that is named like a blob, in the order
// of their digests.
func (f *Files) eachBlob(ctx context.Context, visit func(d Digest, size int64) error) error {
	for i := range 256 {
		dir := fmt.Sprintf("%s/%02x", blobsDir, i)
		list, err := f.readDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if !isDigest(e) || e.Name()[:2] != path.Base(dir) {
				continue
			}
			d, _ := ParseDigest(e.Name())
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // swept meanwhile
			}
			if err == nil {
				err = visit(d, info.Size())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
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

// shelve completes x where it is behind the files, removes what they do not
// have, and puts the kept snapshots of every stream on the shelf.
func (s *Store) shelve(ctx context.Context, x *index) error {
	records, err := x.records(ctx)
	if err != nil {
		return err
	}
	published, err := s.files.published()
	if err != nil {
		return err
	}
	unguarded, err := s.files.unguarded()
	if err != nil {
		return err
	}
	for _, stream := range slices.Concat(published, unguarded) {
		ids, err := s.toServe(ctx, stream)
		if errors.Is(err, ErrNoSnapshot) && len(ids) == 0 && slices.Contains(unguarded, stream) {
			err = s.lostCurrent(stream)
		}
		if err != nil {
			s.log.Error("not all snapshots can be served", "stream", stream, "reason", err)
		}
		if err := s.shelveStream(ctx, x, stream, ids, records[stream]); err != nil {
			return err
		}
		delete(records, stream)
	}
	for stream, stale := range records {
		if err := x.dropSnapshots(ctx, stream, stale); err != nil {
			return err
		}
	}
	return nil
}

// shelveStream puts the snapshots ids, newest first, on the shelf.
func (s *Store) shelveStream(ctx context.Context, x *index, stream string, ids []Digest, have map[Digest]record) error {
	stale := make(map[Digest]record)
	for id, r := range have {
		if !r.Whole || !slices.Contains(ids, id) {
			stale[id] = r
		}
	}
	if !inOrder(ids, have) {
		stale = have
	}
	if len(stale) > 0 {
		s.log.Warn("the index held snapshots that were not published, or not to the end", "stream", stream, "snapshots", len(stale))
		if err := x.dropSnapshots(ctx, stream, stale); err != nil {
			return err
		}
	}
	var kept []shelved
	for _, id := range slices.Backward(ids) {
		if r, ok := have[id]; ok && stale[id].Seq == 0 {
			kept = append(kept, r.shelved(stream, id))
			continue
		}
		m, err := s.files.Manifest(stream, id)
		if err != nil {
			s.log.Error("a snapshot cannot be served", "stream", stream, "snapshot", id.String(), "reason", err)
			continue
		}
		if len(have) > 0 {
			s.log.Warn("a snapshot that the index lacked is added", "stream", stream, "snapshot", id.String())
		}
		if err := s.completeFacts(ctx, x, m); err != nil {
			return err
		}
		new, err := x.addSnapshot(ctx, id, m)
		if err != nil {
			return err
		}
		kept = append(kept, new)
	}
	if slices.Reverse(kept); len(kept) > 0 {
		x.setShelf(stream, newShelf(kept))
	}
	return nil
}

// completeFacts makes those blobs of m known again that x has lost together
// with the snapshot: they were durable before it.
func (s *Store) completeFacts(ctx context.Context, x *index, m *Manifest) error {
	lost := make(map[Digest]blobFacts)
	for _, e := range m.Entries {
		if e.Kind == KindKnown {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if _, err := x.blob(e.Digest); !errors.Is(err, ErrMiss) {
			continue
		}
		if size, err := s.files.blobSize(e.Digest); err == nil && size == e.Size {
			lost[e.Digest] = blobFacts{Size: size}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return x.putBlobs(lost)
}

// inOrder says whether those snapshots of ids, newest first, that the index
// has whole are older than those that it lacks, and numbered in their order.
func inOrder(ids []Digest, have map[Digest]record) bool {
	var last uint32
	lacking := false
	for _, id := range slices.Backward(ids) {
		r, ok := have[id]
		if !ok || !r.Whole {
			lacking = true
			continue
		}
		if lacking || r.Seq <= last {
			return false
		}
		last = r.Seq
	}
	return true
}
