package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"oxbow/cache"
)

// SyncOptions are the wishes of one call of [Mirror.Sync] or [Mirror.Plan].
// The zero value is good.
type SyncOptions struct {
	// AllowOlder accepts metadata older than what was accepted before.
	AllowOlder bool

	// Workers bounds the files fetched at once. If zero, it is 8. The
	// connections are bounded by the client.
	Workers int

	// Progress, if not nil, is told how the sync goes on: at each change of
	// phase and otherwise up to five times a second, never twice at once.
	Progress func(Progress)
}

const defaultWorkers = 8

// A Result says what a sync did.
type Result struct {
	Stream   string     `json:"stream"`
	Snapshot string     `json:"snapshot"` // the current one afterwards
	Changed  bool       `json:"changed"`  // whether it is a new one
	Products int        `json:"products"`
	Versions int        `json:"versions"`
	Items    int        `json:"items"`
	Fetched  Amount     `json:"fetched"`
	LeftOut  []Omission `json:"left_out,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
}

// ErrNothing is returned when the selection matches nothing that can be
// published. What was published before stays.
var ErrNothing = errors.New("nothing to publish")

// maxMoves bounds how often one sync starts over because upstream published
// meanwhile.
const maxMoves = 5

// Plan says what Sync would do now. Nothing is changed in the store but
// validators of upstream's documents.
func (m *Mirror) Plan(ctx context.Context, name string, o SyncOptions) (*Plan, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return nil, err
	}
	return m.plan(ctx, st, o)
}

// PlanNew is Plan for the definition s, which is not recorded.
func (m *Mirror) PlanNew(ctx context.Context, s Stream, o SyncOptions) (*Plan, error) {
	st, err := m.stateFor(s)
	if err != nil {
		return nil, err
	}
	st.Stream = s
	return m.plan(ctx, st, o)
}

func (m *Mirror) plan(ctx context.Context, st *state, o SyncOptions) (*Plan, error) {
	r, err := m.reader(st, o)
	if err != nil {
		return nil, err
	}
	c, err := r.indexes(ctx)
	if err != nil {
		return nil, err
	}
	if m.nothingNew(st, c) {
		return &Plan{Stream: st.Stream.Name, Upstream: c.source, NothingNew: true}, nil
	}
	if c, err = r.complete(ctx, c); err != nil {
		return nil, err
	}
	p, err := m.planner(r.s, c)
	if err != nil {
		return nil, err
	}
	return p.plan()
}

func (m *Mirror) reader(st *state, o SyncOptions) (*reader, error) {
	t, err := st.Stream.trust()
	if err != nil {
		return nil, err
	}
	return &reader{m: m, s: st.Stream, trust: t, accepted: st.Accepted, allowOlder: o.AllowOlder}, nil
}

func (m *Mirror) planner(s Stream, c *catalog) (*planner, error) {
	prev, err := m.published(s.Name)
	if err != nil {
		return nil, err
	}
	return &planner{m: m, s: s, c: c, prev: prev, broken: map[pedigree]Omission{}, lost: map[pedigree]Omission{}}, nil
}

// nothingNew reports whether upstream's index is the one that the last sync
// accepted, that sync left nothing out, and the same is wanted still under the
// same signing key.
func (m *Mirror) nothingNew(st *state, c *catalog) bool {
	was := st.Accepted
	if !was.Whole || was.Wants != st.Stream.wants() || was.Digest != c.index.digest.String() {
		return false
	}
	key, err := SiteKey(m.store.Files())
	if err != nil || key.Fingerprint() != was.Key {
		return false
	}
	_, err = m.store.Current(st.Stream.Name)
	return err == nil
}

// Sync makes the published snapshot of a stream what its upstream has now, as
// far as it is wanted: read and verify the metadata, plan, fetch what the
// store lacks, publish. Until the last step the previous snapshot stays in
// service, and any error leaves it there. A version with an item that cannot
// be had is left out and listed in the result; the versions of its product
// that were published before stay.
func (m *Mirror) Sync(ctx context.Context, name string, o SyncOptions) (*Result, error) {
	end, err := m.begin(name)
	if err != nil {
		return nil, err
	}
	defer end()
	started := m.now()
	res, err := m.sync(ctx, name, o)
	if errors.Is(err, ErrNoStream) {
		return nil, err
	}
	if err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, m.noteLast(name, "failed", err.Error()))
		}
		return nil, err
	}
	m.log.Info("synced", "stream", name, "snapshot", res.Snapshot, "changed", res.Changed, "files", res.Fetched.Files,
		"bytes", res.Fetched.Bytes, "left_out", len(res.LeftOut), "seconds", m.now().Sub(started).Seconds())
	return res, nil
}

func (m *Mirror) noteLast(name, outcome, reason string) error {
	return m.update(name, func(st *state) {
		st.Last = &Last{Time: m.now().UTC().Truncate(time.Second), Outcome: outcome, Reason: reason}
	})
}

func (m *Mirror) sync(ctx context.Context, name string, o SyncOptions) (*Result, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return nil, err
	}
	r, err := m.reader(st, o)
	if err != nil {
		return nil, err
	}
	t := &tracker{report: o.Progress, p: Progress{Stream: name}}
	t.phase(PhaseReading)
	c, err := r.indexes(ctx)
	if err != nil {
		return nil, err
	}
	if m.nothingNew(st, c) {
		snap, err := m.store.Current(name)
		return &Result{Stream: name, Snapshot: snap.ID.String()}, err
	}
	if c, err = r.complete(ctx, c); err != nil {
		return nil, err
	}
	run := &run{m: m, r: r, o: o, t: t, lease: m.store.Lease()}
	defer run.lease.Release()
	return run.to(ctx, c)
}

// A run is one sync under way.
type run struct {
	m       *Mirror
	r       *reader
	o       SyncOptions
	t       *tracker
	lease   *cache.Lease
	fetched Amount
}

// to brings the stream to what c says, or, when upstream moves on meanwhile,
// to what it says then.
func (run *run) to(ctx context.Context, c *catalog) (*Result, error) {
	p, err := run.m.planner(run.r.s, c)
	if err != nil {
		return nil, err
	}
	for moves := 0; ; {
		plan, err := p.plan()
		if err != nil {
			return nil, err
		}
		if len(plan.lists) == 0 {
			return nil, nothing(plan)
		}
		failed, err := run.fetch(ctx, plan)
		if err != nil {
			return nil, err
		}
		if len(failed) == 0 {
			return run.publish(ctx, p, plan)
		}
		moved, err := run.moved(ctx, p.c)
		if err != nil {
			return nil, err
		}
		if moved != nil && moves < maxMoves {
			moves++
			run.m.log.Info("upstream published meanwhile: planning again", "stream", run.r.s.Name)
			if p, err = run.m.planner(run.r.s, moved); err != nil {
				return nil, err
			}
			continue
		}
		for ped, reason := range failed {
			p.leaveOut(plan, ped, reason)
		}
	}
}

func nothing(plan *Plan) error {
	if len(plan.LeftOut) > 0 {
		return fmt.Errorf("%w: none of the selected versions could be had; the first: %s", ErrNothing, plan.LeftOut[0])
	}
	if len(plan.Warnings) > 0 {
		return fmt.Errorf("%w: %s", ErrNothing, plan.Warnings[0])
	}
	return fmt.Errorf("%w: the selection matches none of upstream's products", ErrNothing)
}

// moved returns upstream's metadata if it is no longer what c says.
func (run *run) moved(ctx context.Context, c *catalog) (*catalog, error) {
	fresh, err := run.r.index(ctx, c.source)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil || fresh.equal(c) {
		return nil, nil // it is the files that fail
	}
	return run.r.complete(ctx, fresh)
}
