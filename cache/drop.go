package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// ErrPinned: snapshots are pinned. Unpin them first.
var ErrPinned = errors.New("it has pinned snapshots")

// A DropPlan says what goes with a stream.
type DropPlan struct {
	Stream    string
	Snapshots int      // manifests, published or not
	Files     int      // distinct blobs that no other stream names, for a sweep
	Bytes     int64    // of these
	Pinned    []Digest // of the snapshots, those that are pinned: with any there is no drop
}

// PlanDrop finds what [Store.Drop] would remove. It needs no lock. A manifest that cannot be read counts as one without blobs.
func (f *Files) PlanDrop(ctx context.Context, stream string) (*DropPlan, error) {
	plan, err := f.planDrop(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("cannot plan to drop stream %s: %w", stream, err)
	}
	return plan, nil
}

func (f *Files) planDrop(ctx context.Context, stream string) (*DropPlan, error) {
	if err := checkName(stream); err != nil {
		return nil, err
	}
	ids, err := f.manifests(stream)
	if err != nil {
		return nil, err
	}
	plan := &DropPlan{Stream: stream, Snapshots: len(ids)}
	if plan.Pinned, err = f.pinned(ids); err != nil {
		return nil, err
	}
	own, others := make(map[Digest]int64), make(map[Digest]int64)
	streams, err := f.archived()
	if err != nil {
		return nil, err
	}
	for _, name := range streams {
		sizes := others
		if name == stream {
			sizes = own
		}
		if err := f.addSizes(ctx, name, sizes); err != nil {
			return nil, err
		}
	}
	for d := range own {
		if _, shared := others[d]; shared {
			continue
		}
		if size, err := f.blobSize(d); err == nil {
			plan.Files++
			plan.Bytes += size
		}
	}
	return plan, nil
}

// pinned returns those of ids that are pinned.
func (f *Files) pinned(ids []Digest) ([]Digest, error) {
	pins, err := f.pins()
	return slices.DeleteFunc(pins, func(id Digest) bool { return !slices.Contains(ids, id) }), err
}

// addSizes adds the blobs that the readable manifests of a stream name.
func (f *Files) addSizes(ctx context.Context, stream string, sizes map[Digest]int64) error {
	ids, err := f.manifests(stream)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		m, err := f.Manifest(stream, id)
		if err != nil {
			continue
		}
		for _, e := range m.Entries {
			if e.Kind != KindKnown {
				sizes[e.Digest] = e.Size
			}
		}
	}
	return nil
}

// Drop removes all snapshots of a stream; the error is ErrPinned where one is pinned. What is being read goes on being read,
// and blobs are left for a sweep. What [Store.WriteState] wrote stays too: remove it afterwards, and until then Drop can be
// called again.
//
// The order is the opposite of a publication's: current, the shelf, the index, the manifests. These go all at once, by a rename
// of their directory, since the next owner makes the newest of those that it finds current again: so a crash leaves the stream
// as it was, or without snapshots.
func (s *Store) Drop(ctx context.Context, stream string) error {
	if err := s.drop(ctx, stream); err != nil {
		return fmt.Errorf("cannot drop stream %s: %w", stream, err)
	}
	return nil
}

func (s *Store) drop(ctx context.Context, stream string) error {
	if err := checkName(stream); err != nil {
		return err
	}
	if err := s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer s.index.endTurn()
	ids, err := s.files.manifests(stream)
	if err != nil {
		return err
	}
	pinned, err := s.files.pinned(ids)
	if err != nil {
		return err
	}
	if len(pinned) > 0 {
		ids := make([]string, len(pinned))
		for i, id := range pinned {
			ids[i] = id.String()[:12]
		}
		return fmt.Errorf("%w: %s; unpin them first", ErrPinned, strings.Join(ids, " "))
	}
	records, err := s.index.records(ctx)
	if err != nil {
		return err
	}
	if err := s.unpublish(stream); err != nil {
		return err
	}
	// From here on it is done to the end, as far as this process is asked: half a drop is in nobody's interest.
	if err := s.index.dropSnapshots(context.WithoutCancel(ctx), stream, records[stream]); err != nil {
		return err
	}
	return s.removeManifests(stream)
}

// unpublish makes a stream have no current snapshot, and takes it off the shelf.
func (s *Store) unpublish(stream string) error {
	if err := s.disk.Remove(currentName(stream)); err != nil {
		return err
	}
	s.index.dropShelf(stream)
	return nil
}

// removeManifests removes all manifests of a stream in one step. What remains in ingest/ after a crash is waste.
func (s *Store) removeManifests(stream string) error {
	waste := "dropped-" + rand.Text()
	err := s.disk.Rename(path.Join(snapshotsDir, stream), path.Join(ingestDir, waste))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.disk.SyncDir(snapshotsDir); err != nil {
		return err
	}
	if err := s.parts.RemoveAll(waste); err != nil {
		s.log.Warn("cannot remove waste", "store", s.dir, "file", path.Join(ingestDir, waste), "reason", err)
	}
	return nil
}
