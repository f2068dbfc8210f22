package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"
)

// partialAge is how long an unfinished download is kept to go on with.
const partialAge = 24 * time.Hour

// SweepKind says what is to be removed.
type SweepKind string

const (
	SweepSnapshot SweepKind = "snapshot" // a manifest
	SweepBlob     SweepKind = "blob"
	SweepPartial  SweepKind = "partial" // an unfinished download
	SweepBundle   SweepKind = "bundle"  // the note of what a bundle brings that never came whole
)

// A SweepItem is one thing that a sweep removes.
type SweepItem struct {
	Kind   SweepKind
	Digest Digest // of the snapshot or blob; of a bundle its id
	Stream string // of the snapshot
	Key    string // of the unfinished download
	Size   int64  // bytes that it takes
	Why    string

	expired bool // a snapshot that is kept until the sweep
}

func (i SweepItem) String() string {
	name := i.Key
	switch i.Kind {
	case SweepSnapshot:
		name = i.Stream + " " + i.Digest.String()
	case SweepBlob, SweepBundle:
		name = i.Digest.String()
	}
	return fmt.Sprintf("%s %s, %d bytes: %s", i.Kind, name, i.Size, i.Why)
}

// A SweepPlan says what a sweep removes. It is carried out once.
type SweepPlan struct {
	Items []SweepItem // in the order of their removal

	s    *Store
	pull []Digest // blobs that become pulled
	need []Digest // pulled blobs that a snapshot needs: they came again, and nobody knew
	done bool
}

// Bytes returns what the plan frees.
func (p *SweepPlan) Bytes() (n int64) {
	for _, i := range p.Items {
		n += i.Size
	}
	return n
}

// SweepResult says what a sweep did.
type SweepResult struct {
	Removed int   // items
	Spared  int   // items of the plan that something named or used meanwhile
	Bytes   int64 // freed
}

// SweepOptions says what may be given up.
type SweepOptions struct {
	// Expired returns which of a stream's kept snapshots, newest first, need not be kept any longer, and why. The current one and
	// pinned ones stay all the same. If nil, all of them stay.
	Expired func(stream string, kept []Snapshot) map[Digest]string
}

// PlanSweep finds what no kept snapshot, lease or download needs: snapshots
// that expired or never became current, blobs, and downloads that nobody went on with
// for a day. Foreign files are left alone. Blobs that kept snapshots only know
// are left to eviction: those that are not pulled yet become so.
//
// It fails if a kept snapshot cannot be read, or the current one of a stream
// cannot be told, since then nobody knows what they name.
func (s *Store) PlanSweep(ctx context.Context, o SweepOptions) (*SweepPlan, error) {
	plan := &SweepPlan{s: s}
	if err := s.planSweep(ctx, plan, o); err != nil {
		return nil, fmt.Errorf("cannot plan a sweep: %w", err)
	}
	return plan, nil
}

func (s *Store) planSweep(ctx context.Context, plan *SweepPlan, o SweepOptions) error {
	if err := s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer s.index.endTurn()
	expired, err := s.expired(o)
	if err != nil {
		return err
	}
	keep, err := s.keep(ctx, expired)
	if err != nil {
		return fmt.Errorf("%w; `oxbow store check` says more", err)
	}
	if err := s.sweepSnapshots(ctx, plan, keep, expired); err != nil {
		return err
	}
	err = s.files.eachBlob(ctx, func(d Digest, size int64) error {
		switch {
		case keep.blobs[d] && s.isPulled(d):
			plan.need = append(plan.need, d)
		case keep.blobs[d] || s.leased(d):
		case !keep.known[d]:
			plan.Items = append(plan.Items, SweepItem{Kind: SweepBlob, Digest: d, Size: size, Why: "no kept snapshot names it"})
		case !s.isPulled(d):
			plan.pull = append(plan.pull, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.sweepExpected(plan); err != nil {
		return err
	}
	partials, err := s.files.Partials()
	if err != nil {
		return err
	}
	for _, p := range partials {
		if s.stale(p) {
			why := "nobody went on with it since " + p.Modified.UTC().Format(time.RFC3339)
			plan.Items = append(plan.Items, SweepItem{Kind: SweepPartial, Key: p.Key, Size: p.Have, Why: why})
		}
	}
	return nil
}

func (s *Store) stale(p Partial) bool { return s.opts.Now().Sub(p.Modified) > partialAge }

func (s *Store) sweepSnapshots(ctx context.Context, plan *SweepPlan, keep *keepers, expired map[Digest]string) error {
	streams, err := s.files.archived()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		ids, err := s.files.manifests(stream)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if keep.snapshots[id] {
				continue
			}
			info, err := s.root.Stat(manifestName(stream, id))
			if err != nil {
				return err
			}
			why, gone := expired[id]
			if !gone {
				why = "it never became current"
			}
			plan.Items = append(plan.Items, SweepItem{Kind: SweepSnapshot, Digest: id, Stream: stream, Size: info.Size(), Why: why, expired: gone})
		}
	}
	return context.Cause(ctx)
}

// keepers is what a sweep must leave.
type keepers struct {
	snapshots map[Digest]bool
	blobs     map[Digest]bool // which they need
	known     map[Digest]bool // which may be asked for: those that are here are pulled, unless they are needed too
}

// keep finds the snapshots that are kept, by the list of a stream or a pin, and the blobs
// that they name; without are not.
func (s *Store) keep(ctx context.Context, without map[Digest]string) (*keepers, error) {
	k := &keepers{make(map[Digest]bool), make(map[Digest]bool), make(map[Digest]bool)}
	streams, err := s.files.published()
	if err != nil {
		return nil, err
	}
	for _, stream := range streams {
		ids, err := s.files.kept(stream)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if _, gone := without[id]; gone {
				continue
			}
			if err := s.keepSnapshot(ctx, k, stream, id); err != nil {
				return nil, err
			}
		}
	}
	unguarded, err := s.files.unguarded()
	if err != nil {
		return nil, err
	}
	for _, stream := range unguarded {
		if err := s.lostCurrent(stream); err != nil {
			return nil, err
		}
	}
	if err := s.keepExpected(k); err != nil {
		return nil, err
	}
	return k, s.keepPinned(ctx, k)
}

func (s *Store) keepPinned(ctx context.Context, k *keepers) error {
	pins, err := s.files.pins()
	if err != nil || len(pins) == 0 {
		return err
	}
	streams, err := s.files.archived()
	if err != nil {
		return err
	}
	for _, id := range pins {
		for _, stream := range streams {
			err := s.keepSnapshot(ctx, k, stream, id)
			if err != nil && !errors.Is(err, ErrNoSnapshot) {
				return err
			}
		}
	}
	return nil
}

func (s *Store) keepSnapshot(ctx context.Context, k *keepers, stream string, id Digest) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m, err := s.files.Manifest(stream, id)
	if err != nil {
		return err
	}
	k.snapshots[id] = true
	for _, e := range m.Entries {
		if e.Kind == KindKnown {
			k.known[e.Digest] = true
		} else {
			k.blobs[e.Digest] = true
		}
	}
	return nil
}

// Execute removes what the plan lists, but for what is needed by now. It goes
// the opposite way of a publication: what is kept, entries in the index, manifest,
// facts of blobs, blobs. So a crash leaves nothing that names what is gone.
func (p *SweepPlan) Execute(ctx context.Context) (SweepResult, error) {
	var r SweepResult
	if p.done {
		return r, errors.New("cannot sweep: the plan was carried out already; make a new one")
	}
	p.done = true
	defer p.s.step(stepSweep)()
	err := p.execute(ctx, &r)
	p.s.restoreBallast()
	if err != nil {
		return r, fmt.Errorf("cannot sweep: %w", err)
	}
	return r, nil
}

func (p *SweepPlan) execute(ctx context.Context, r *SweepResult) error {
	if err := p.s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer p.s.index.endTurn()
	if err := p.s.forget(p.Items); err != nil {
		return err
	}
	keep, err := p.s.keep(ctx, nil)
	if err != nil {
		return err
	}
	var blobs []SweepItem
	for _, i := range p.Items {
		switch i.Kind {
		case SweepSnapshot:
			err = p.s.removeSnapshot(ctx, i, keep, r)
		case SweepBlob:
			blobs = append(blobs, i)
		case SweepPartial:
			err = p.s.sweepPartial(i, r)
		case SweepBundle:
			err = p.s.sweepExpectation(i, r)
		}
		if err != nil {
			return err
		}
	}
	switch err := p.s.demote(p.pull, keep); {
	case errors.Is(err, ErrNoSpace): // what follows makes some
		p.s.log.Warn("there is no room to note which files may be evicted now; the next sweep does", "store", p.s.dir, "files", len(p.pull), "reason", err)
	case err != nil:
		return err
	}
	if err := p.s.takeOut(p.need, keep); err != nil {
		return err
	}
	const some = 500 // how many blobs are removed while ingest waits
	for len(blobs) > 0 {
		n := min(some, len(blobs))
		if err := p.s.removeBlobs(ctx, blobs[:n], keep, r); err != nil {
			return err
		}
		blobs = blobs[n:]
	}
	return nil
}

func (r *SweepResult) removed(i SweepItem) {
	r.Removed++
	r.Bytes += i.Size
}

func (s *Store) removeSnapshot(ctx context.Context, i SweepItem, keep *keepers, r *SweepResult) error {
	if keep.snapshots[i.Digest] {
		r.Spared++
		return nil
	}
	records, err := s.index.records(ctx)
	if err != nil {
		return err
	}
	if r, ok := records[i.Stream][i.Digest]; ok {
		if err := s.index.dropSnapshots(ctx, i.Stream, map[Digest]record{i.Digest: r}); err != nil {
			return err
		}
	}
	if err := s.disk.Remove(manifestName(i.Stream, i.Digest)); err != nil {
		return err
	}
	r.removed(i)
	return nil
}

// removeBlobs makes blobs unknown before it removes them. No blob can land
// meanwhile, and who leases one after that finds it gone.
func (s *Store) removeBlobs(ctx context.Context, items []SweepItem, keep *keepers, r *SweepResult) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.landing.Lock()
	defer s.landing.Unlock()
	var remove []*pulled
	var removed []SweepItem
	for _, i := range items {
		if !keep.blobs[i.Digest] && !keep.known[i.Digest] {
			if p, ok := s.leave(i.Digest); ok {
				remove, removed = append(remove, p), append(removed, i)
				continue
			}
		}
		r.Spared++
	}
	if len(remove) == 0 {
		return nil
	}
	if err := s.removeLeaving(remove); err != nil {
		return err
	}
	for _, i := range removed {
		r.removed(i)
	}
	return nil
}

func (s *Store) sweepPartial(i SweepItem, r *SweepResult) error {
	info, err := s.root.Stat(path.Join(ingestDir, i.Key+partSuffix))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !s.stale(Partial{Modified: info.ModTime()}) {
		r.Spared++
		return nil
	}
	if err != nil {
		return err
	}
	removed, err := s.removePartial(i.Key)
	if err != nil {
		return err
	}
	if removed {
		r.removed(i)
	} else {
		r.Spared++
	}
	return nil
}
