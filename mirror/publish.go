package mirror

import (
	"context"
	"fmt"
	"slices"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// publish makes the plan's lists the current snapshot: upstream's documents as
// evidence, our own rewritten and signed ones, and every item. All of it is
// durable before the switch. When all is as it was, nothing is written.
func (run *run) publish(ctx context.Context, p *planner, plan *Plan) (*Result, error) {
	run.t.phase(PhasePublishing)
	m := run.m
	site, err := m.render(p, plan)
	if err != nil {
		return nil, err
	}
	man := &cache.Manifest{Stream: plan.Stream, Parent: p.prev.id, Created: m.now().UTC().Truncate(time.Second), Reason: "sync"}
	if err := run.addUpstream(ctx, man, p.c, plan.evidence); err != nil {
		return nil, err
	}
	for _, d := range site {
		if err := run.addDocument(ctx, man, cache.KindSite, string(d.Path), d.Bytes); err != nil {
			return nil, err
		}
	}
	for path, f := range plan.byPath {
		man.Entries = append(man.Entries, cache.Entry{Kind: cache.KindItem, Digest: f.digest, Size: f.want.Size, Path: string(path)})
	}
	man.Sort()
	res := &Result{Stream: plan.Stream, Snapshot: p.prev.id.String(), Products: plan.Products, Versions: plan.Versions, Items: plan.Items,
		Fetched: run.fetched, LeftOut: plan.LeftOut, Warnings: plan.Warnings}
	if p.prev.manifest == nil || !slices.Equal(man.Entries, p.prev.manifest.Entries) {
		if err := m.store.Flush(ctx); err != nil {
			return nil, err
		}
		id, err := m.store.Publish(ctx, man)
		if err != nil {
			return nil, err
		}
		res.Snapshot, res.Changed = id.String(), true
	}
	return res, m.accept(p, plan)
}

// render makes the site's own documents.
func (m *Mirror) render(p *planner, plan *Plan) ([]streams.Document, error) {
	key, err := m.Key()
	if err != nil {
		return nil, err
	}
	updated := m.now().UTC().Truncate(time.Second)
	if p.prev.index != nil {
		last, err := streams.ParseTime(p.prev.index.Updated)
		if err == nil && !updated.After(last) {
			updated = last.Add(time.Second)
		}
	}
	x := *p.c.x
	x.Entries = plan.entries
	site := streams.Site{Updated: updated, Profile: plan.profile, Key: key, Previous: p.prev.document}
	docs, findings, err := site.Render(&x, plan.lists)
	for _, f := range findings {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s %s: %s", f.ContentID, f.Pedigree, f.Problem))
	}
	return docs, err
}

// document returns a published document of the site, or nil.
func (p *published) document(path streams.Path) []byte { return p.documents[string(path)] }

// addUpstream adds upstream's documents, byte for byte: those of now, and the
// older ones that vouch for versions kept from before.
func (run *run) addUpstream(ctx context.Context, man *cache.Manifest, c *catalog, evidence []list) error {
	if err := run.addDocument(ctx, man, cache.KindUpstream, string(c.index.path), c.index.bytes); err != nil {
		return err
	}
	for _, li := range c.lists {
		if err := run.addDocument(ctx, man, cache.KindUpstream, string(li.path), li.bytes); err != nil {
			return err
		}
	}
	for _, li := range evidence {
		if err := run.addDocument(ctx, man, cache.KindEvidence, evidencePath(li), li.bytes); err != nil {
			return err
		}
	}
	return nil
}

func (run *run) addDocument(ctx context.Context, man *cache.Manifest, kind cache.Kind, path string, data []byte) error {
	d, err := run.m.store.Put(ctx, data)
	if err != nil {
		return fmt.Errorf("cannot store %s: %w", path, err)
	}
	run.lease.Add(d)
	man.Entries = append(man.Entries, cache.Entry{Kind: kind, Digest: d, Size: int64(len(data)), Path: path})
	return nil
}

// accept records the upstream state that is published now, so that the next
// sync can tell what is new and what is older.
func (m *Mirror) accept(p *planner, plan *Plan) error {
	key, err := m.Key()
	if err != nil {
		return err
	}
	index, lists := p.c.dates()
	last := &Last{Time: m.now().UTC().Truncate(time.Second), Outcome: "done"}
	if len(plan.LeftOut) > 0 {
		last.Outcome = "partial"
		last.Reason = fmt.Sprintf("%d versions left out; the first: %s", len(plan.LeftOut), plan.LeftOut[0])
	}
	return m.update(plan.Stream, func(st *state) {
		st.Accepted = accepted{Index: index, Lists: lists, Wants: st.Stream.wants(), Whole: len(plan.LeftOut) == 0, Key: key.Fingerprint(), Digest: p.c.index.digest.String()}
		st.Last = last
	})
}
