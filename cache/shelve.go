package cache

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"syscall"
)

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
		if s.mayPass(x, err) {
			return err
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
		if s.mayPass(x, err) {
			return err
		}
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

// mayPass reports whether an error tells of this process and not of the file that it could not read, and x is made beside another
// index: that one goes on serving what x would lack.
func (s *Store) mayPass(x *index, err error) bool {
	return x != s.index && slices.ContainsFunc([]error{fs.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM},
		func(passing error) bool { return errors.Is(err, passing) })
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
		if _, err := x.blob(e.Digest); !errors.Is(err, ErrMiss) || s.unknownBeside(x, e.Digest) {
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
