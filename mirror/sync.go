package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

	// Wait has a sync of a stream that is being synced already wait for the end of
	// that one, in place of ErrSyncing.
	Wait bool

	// Tree, if not nil, is read in place of the upstreams.
	Tree *Tree

	// Progress, if not nil, is told how the sync goes on: at each change of
	// phase and otherwise up to five times a second, never twice at once.
	Progress func(Progress)
}

const defaultWorkers = 8

// waiting returns what to call before a wait for another sync of the stream; nil:
// there is to be none.
func (o SyncOptions) waiting(name string) func() {
	switch {
	case !o.Wait:
		return nil
	case o.Progress == nil:
		return func() {}
	}
	return func() { o.Progress(Progress{Stream: name, Phase: PhaseWaiting}) }
}

// A Result says what a sync did.
type Result struct {
	Stream   string     `json:"stream"`
	Snapshot string     `json:"snapshot"` // the current one afterwards
	Changed  bool       `json:"changed"`  // whether it is a new one
	Products int        `json:"products"`
	Versions int        `json:"versions"`
	Items    int        `json:"items"`
	Known    int        `json:"known"` // further files, which may be pulled through
	Fetched  Amount     `json:"fetched"`
	LeftOut  []Omission `json:"left_out,omitempty"`
	Held     bool       `json:"held,omitempty"` // by a rollback: upstream was not asked
	Warnings []string   `json:"warnings,omitempty"`
}

// ErrNothing is returned when the selection matches nothing that can be
// published; boot loaders that come with every selection do not count. What was
// published before stays.
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
	_, plan, err := m.planned(ctx, st, o)
	return plan, err
}

// planned returns a plan with its planner, nil where nothing is new.
func (m *Mirror) planned(ctx context.Context, st *state, o SyncOptions) (*planner, *Plan, error) {
	lease := m.store.Lease()
	defer lease.Release()
	c, err := m.read(ctx, st, o)
	if err != nil {
		return nil, nil, err
	}
	if o.Tree == nil && m.nothingNew(st, c) {
		return nil, &Plan{Stream: st.Stream.Name, Upstream: shown(c.base), NothingNew: true}, nil
	}
	p, err := m.planner(st.wanted(), c, lease)
	if err != nil {
		return nil, nil, err
	}
	plan := p.planOf(o.Tree)
	if err := p.empty(plan); err != nil {
		return nil, nil, err
	}
	if st.Held != nil {
		plan.Warnings = append(plan.Warnings, st.Held.warning(st.Stream.Name))
	}
	return p, plan, nil
}

// read returns upstream's metadata; only the index when nothing is new.
func (m *Mirror) read(ctx context.Context, st *state, o SyncOptions) (*catalog, error) {
	r, err := m.reader(st, o)
	if err != nil {
		return nil, err
	}
	return r.read(ctx, func(c *catalog) bool { return o.Tree == nil && m.nothingNew(st, c) })
}

func (m *Mirror) reader(st *state, o SyncOptions) (*reader, error) {
	if o.Tree == nil {
		if err := m.mayAsk(st.Stream); err != nil {
			return nil, err
		}
	} else if st.comes(m.store.Files()) {
		return nil, fmt.Errorf("stream %s: %w", st.Stream.Name, errBundled)
	}
	t, err := st.Stream.trust()
	if err != nil {
		return nil, err
	}
	return &reader{m: m, client: m.client.Limited(st.Stream.Limit), s: st.wanted(), trust: t, accepted: st.Accepted, allowOlder: o.AllowOlder, tree: o.Tree}, nil
}

// nothingNew reports whether what is published is what the last sync published, and no older content that a rollback
// brought back, upstream's index is the one that the last sync accepted, that sync left
// nothing out that could be had now, the same is wanted still under the same signing
// key, the custody that is offered is here or was refused, and the store has all that it publishes.
func (m *Mirror) nothingNew(st *state, c *catalog) bool {
	was := st.Accepted
	if st.Held != nil || !was.Whole || was.Wants != st.wanted().wants() || was.Digest != c.indexDoc.digest.String() {
		return false
	}
	if key, err := SiteKey(m.store.Files()); !st.Stream.all() && (err != nil || key.Fingerprint() != was.Key) {
		return false
	}
	snap, err := m.store.Current(st.Stream.Name)
	if err != nil || was.Snapshot != "" && was.Snapshot != snap.ID.String() {
		return false
	}
	man, err := m.store.Manifest(st.Stream.Name, snap.ID)
	if m.custodyDue(st, c) {
		return false
	}
	return err == nil && !slices.ContainsFunc(man.Entries, func(e cache.Entry) bool {
		return e.Kind != cache.KindKnown && !m.store.Has(e.Digest)
	})
}

// Sync makes the published snapshot of a stream what its upstream has now, as
// far as it is wanted: read and verify the metadata, plan, fetch what the
// store lacks, publish. Until the switch at the end the previous snapshot stays
// in service, and an error before it leaves it there; an error after it comes with
// the result. A version with an item that cannot be had is left out and listed in
// the result; the versions of its product that were published before stay. The
// error is ErrSyncing for a stream that is being synced, ErrOffline for one whose
// upstream must not be asked, and ErrRolledBack after a rollback that came meanwhile.
// A stream that a rollback holds is left as it is.
func (m *Mirror) Sync(ctx context.Context, name string, o SyncOptions) (*Result, error) {
	ctx, end, err := m.begin(ctx, name, o.waiting(name))
	if err != nil {
		return nil, err
	}
	defer end()
	return m.attempt(ctx, name, o)
}

// attempt is Sync for who has begun one.
func (m *Mirror) attempt(ctx context.Context, name string, o SyncOptions) (*Result, error) {
	if res, err := m.held(name); res != nil || err != nil {
		return res, err
	}
	started := m.now()
	res, err := m.sync(ctx, name, o)
	if err != nil && errors.Is(context.Cause(ctx), ErrRolledBack) {
		return res, ErrRolledBack
	}
	if errors.Is(err, ErrNoStream) || errors.Is(err, ErrOffline) {
		return nil, err
	}
	if err != nil && o.Tree != nil {
		return res, err // which tells nothing of the upstream
	}
	if err == nil || ctx.Err() == nil {
		m.asked(name)
		m.ended(name, started, res, err)
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, m.noteLast(name, OutcomeFailed, err.Error()))
	}
	return res, err
}

// ended tells the observer how a sync ended.
func (m *Mirror) ended(name string, started time.Time, res *Result, err error) {
	e := newEvent(name, m.now(), res, err)
	e.Duration = e.Time.Sub(started)
	m.observe(e)
}

func (m *Mirror) noteLast(name string, outcome Outcome, reason string) error {
	return m.update(name, func(st *state) {
		st.Last = &Last{Time: m.now().UTC().Truncate(time.Second), Outcome: outcome, Reason: reason}
	})
}

func (m *Mirror) sync(ctx context.Context, name string, o SyncOptions) (*Result, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return nil, err
	}
	reader, err := m.reader(st, o)
	if err != nil {
		return nil, err
	}
	return m.follow(ctx, st, reader, o, (*run).bring)
}

// follow reads upstream's metadata and, if there is anything new, does what is to be
// done about it.
func (m *Mirror) follow(ctx context.Context, st *state, reader *reader, o SyncOptions, do func(*run, context.Context, *catalog) (*Result, error)) (*Result, error) {
	t := &tracker{report: o.Progress, p: Progress{Stream: st.Stream.Name}}
	t.phase(PhaseReading)
	c, err := reader.read(ctx, func(c *catalog) bool { return m.nothingNew(st, c) })
	if err != nil {
		return nil, err
	}
	if m.nothingNew(st, c) {
		return m.unchanged(st)
	}
	r := &run{m: m, reader: reader, o: o, t: t, lease: m.store.Lease()}
	defer r.lease.Release()
	if err := r.takeCustody(ctx, c); err != nil {
		return nil, err
	}
	return do(r, ctx, c)
}

// unchanged is the result of a sync that finds nothing new.
func (m *Mirror) unchanged(st *state) (*Result, error) {
	name := st.Stream.Name
	if st.Last != nil && st.Last.Outcome == OutcomeFailed {
		if err := m.noteLast(name, OutcomeDone, ""); err != nil {
			return nil, err
		}
	}
	pub, err := m.published(name)
	if err != nil {
		return nil, err
	}
	return pub.result(name), nil
}

// A run is one sync under way.
type run struct {
	m       *Mirror
	reader  *reader
	o       SyncOptions
	t       *tracker
	lease   *cache.Lease
	fetched Amount
}

// bring brings the stream to what c says, or, when upstream moves on meanwhile,
// to what it says then. Every round leaves more out or follows upstream, which is
// done maxMoves times, or finds once that the store has lost what the plan counted on:
// so it ends.
func (r *run) bring(ctx context.Context, c *catalog) (*Result, error) {
	p, err := r.m.planner(r.reader.s, c, r.lease)
	if err != nil {
		return nil, err
	}
	first := &Result{}
	if p.s.all() && p.prev.manifest == nil && len(p.selections) > 0 {
		// Clients need not wait for what is to be here beforehand.
		if first, err = r.show(ctx, c); err != nil {
			return nil, err
		}
		if p, err = r.m.planner(r.reader.s, c, r.lease); err != nil {
			return nil, err
		}
	}
	for moves, lost := 0, false; ; {
		plan := p.plan()
		if err := p.empty(plan); err != nil {
			return nil, err
		}
		failed, err := r.fetch(ctx, plan)
		if err != nil {
			return nil, err
		}
		if len(failed) == 0 {
			res, err := r.publish(ctx, p, plan)
			if !lost && r.lost(res, err) {
				lost = true
				continue
			}
			if res != nil {
				res.Changed = res.Changed || first.Changed
			}
			return res, err
		}
		moved, err := r.moved(ctx, p.c)
		if err != nil {
			return nil, err
		}
		if moved != nil && moves < maxMoves {
			moves++
			r.m.log.Info("upstream published meanwhile: planning again", "stream", r.reader.s.Name)
			if p, err = r.m.planner(r.reader.s, moved, r.lease); err != nil {
				return nil, err
			}
			continue
		}
		for id, reason := range failed {
			p.leaveOut(id, reason)
		}
	}
}

// show publishes all of upstream's as c has it, and fetches nothing: what is wanted
// beforehand and not here may be pulled through until a sync brings it.
func (r *run) show(ctx context.Context, c *catalog) (*Result, error) {
	p, err := r.m.planner(r.reader.s, c, r.lease)
	if err != nil {
		return nil, err
	}
	for lost := false; ; lost = true {
		plan := p.plan()
		if err := p.empty(plan); err != nil {
			return nil, err
		}
		res, err := r.publish(ctx, p, plan)
		if lost || !r.lost(res, err) {
			return res, err
		}
	}
}

// lost reports whether a publication failed since a blob was doubted meanwhile that its plan
// counted on: another plan has it fetched.
func (r *run) lost(res *Result, err error) bool {
	if res != nil || !errors.Is(err, cache.ErrMiss) {
		return false
	}
	r.m.log.Warn("what the store had turned out to be lost or damaged meanwhile: planning again", "stream", r.reader.s.Name, "reason", err)
	return true
}

// moved returns upstream's metadata if it is no longer what c says.
func (r *run) moved(ctx context.Context, c *catalog) (*catalog, error) {
	if r.o.Tree != nil {
		return nil, nil
	}
	fresh, err := r.reader.index(ctx, c.base)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		r.m.log.Warn("upstream's index cannot be read again: going on with what was read", "stream", r.reader.s.Name, "reason", err)
		return nil, nil
	}
	if fresh.sameIndex(c) {
		return nil, nil // it is the files that fail
	}
	if fresh, err = r.reader.complete(ctx, fresh); err != nil {
		return nil, err
	}
	return fresh, r.takeCustody(ctx, fresh)
}
