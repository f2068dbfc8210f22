package mirror

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// publish makes the plan's lists the current snapshot: upstream's documents as
// evidence, our own rewritten and signed ones, and every item. All of it is
// durable before the switch. When all is as it was, nothing is written.
func (r *run) publish(ctx context.Context, p *planner, plan *Plan) (*Result, error) {
	r.t.phase(PhasePublishing)
	m := r.m
	key, err := m.Key()
	if err != nil {
		return nil, err
	}
	site, err := m.render(p, plan, key)
	if err != nil {
		return nil, err
	}
	man := &cache.Manifest{Stream: plan.Stream, Parent: p.prev.id, Created: m.now().UTC().Truncate(time.Second), Reason: "sync"}
	if err := r.addUpstream(ctx, man, p.c, plan.evidence); err != nil {
		return nil, err
	}
	for _, d := range site {
		if err := r.addDocument(ctx, man, cache.KindSite, string(d.Path), d.Bytes); err != nil {
			return nil, err
		}
	}
	for path, f := range plan.byPath {
		man.Entries = append(man.Entries, cache.Entry{Kind: cache.KindItem, Digest: f.digest, Size: f.want.Size, Path: string(path)})
	}
	man.Sort()
	res := &Result{Stream: plan.Stream, Snapshot: p.prev.id.String(), Products: plan.Products, Versions: plan.Versions, Items: plan.Items,
		Fetched: r.fetched, LeftOut: plan.LeftOut, Warnings: plan.Warnings}
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
	if err := m.accept(p, plan, key); err != nil {
		return res, fmt.Errorf("snapshot %s is published, but cannot be recorded as the stream's state: %w", res.Snapshot, err)
	}
	return res, nil
}

// render makes the site's own documents. They give the SHA-256 of every file,
// also where upstream gave another sum only.
func (m *Mirror) render(p *planner, plan *Plan, key *streams.SigningKey) ([]streams.Document, error) {
	var lists []*streams.Products
	for _, l := range plan.lists {
		lists = append(lists, l.WithSHA256(func(it *streams.Item) []byte { return plan.byPath[it.Path].digest[:] }))
	}
	updated := m.now().UTC().Truncate(time.Second)
	if p.prev.index != nil {
		last, err := streams.ParseTime(p.prev.index.Updated)
		if err == nil && !updated.After(last) {
			updated = last.Add(time.Second)
		}
	}
	x := *p.c.index
	x.Entries = plan.entries
	site := streams.Site{Updated: updated, Profile: plan.profile, Key: key, Previous: p.prev.document}
	docs, findings, err := site.Render(&x, lists)
	for _, f := range findings {
		plan.Warnings = append(plan.Warnings, f.String())
	}
	return docs, err
}

// addUpstream adds upstream's documents, byte for byte: those of now, and the
// older ones that vouch for versions kept from before.
func (r *run) addUpstream(ctx context.Context, man *cache.Manifest, c *catalog, evidence []document) error {
	upstream := []document{c.indexDoc}
	for _, li := range c.lists {
		upstream = append(upstream, li.document)
	}
	for _, doc := range upstream {
		if err := r.addDocument(ctx, man, cache.KindUpstream, string(doc.path), doc.bytes); err != nil {
			return err
		}
	}
	for _, doc := range evidence {
		if err := r.addDocument(ctx, man, cache.KindEvidence, evidencePath(doc), doc.bytes); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) addDocument(ctx context.Context, man *cache.Manifest, kind cache.Kind, path string, data []byte) error {
	r.lease.Add(cache.Sum(data))
	d, err := r.m.store.Put(ctx, data)
	if err != nil {
		return fmt.Errorf("cannot store %s: %w", path, err)
	}
	man.Entries = append(man.Entries, cache.Entry{Kind: kind, Digest: d, Size: int64(len(data)), Path: path})
	return nil
}

// accept records the upstream state that is published now, so that the next
// sync can tell what is new and what is older.
func (m *Mirror) accept(p *planner, plan *Plan, key *streams.SigningKey) error {
	index, lists := p.c.dates()
	last := &Last{Time: m.now().UTC().Truncate(time.Second), Outcome: OutcomeDone}
	if len(plan.LeftOut) > 0 {
		last.Outcome = OutcomePartial
		last.Reason = leftOut(plan.LeftOut)
	}
	whole := !p.c.unsettled && !curable(plan.LeftOut)
	return m.update(plan.Stream, func(st *state) {
		st.Last = last
		if !related(st.Stream, p.s) {
			return // the configuration has given the stream another upstream meanwhile
		}
		if st.Accepted.Lists == nil {
			st.Accepted.Lists = map[string]time.Time{}
		}
		maps.Copy(st.Accepted.Lists, lists)
		st.Accepted.Index = index
		st.Accepted.Wants, st.Accepted.Key = p.s.wants(), key.Fingerprint()
		st.Accepted.Whole, st.Accepted.Digest = whole, p.c.indexDoc.digest.String()
	})
}

// leftOut says in a line what a sync left out.
func leftOut(all []Omission) string {
	return fmt.Sprintf("%d versions left out; the first: %s", len(all), all[0])
}
