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

// publish makes what is planned the current snapshot: upstream's documents, as
// evidence for our own rewritten and signed ones or, where all of upstream's is
// advertised, as what clients read; every item; and in the latter case all else that
// the documents name, as known. All of it but the known is durable before the switch.
// When all is as it was, nothing is written.
func (r *run) publish(ctx context.Context, p *planner, plan *Plan) (*Result, error) {
	r.t.phase(PhasePublishing)
	m := r.m
	man := &cache.Manifest{Stream: plan.Stream, Parent: p.prev.id, Created: m.now().UTC().Truncate(time.Second), Reason: "sync"}
	if err := r.addUpstream(ctx, man, p.c, plan.evidence); err != nil {
		return nil, err
	}
	r.addCustody(man, p.c.custody)
	here, signer := plan.here(), ""
	var known []cache.Entry
	if p.s.all() {
		known = p.directory.known(here)
	} else {
		var err error
		if signer, err = r.addSite(ctx, man, p, plan); err != nil {
			return nil, err
		}
	}
	man.Entries = append(man.Entries, known...)
	for path := range here {
		f := plan.byPath[path]
		man.Entries = append(man.Entries, cache.Entry{Kind: cache.KindItem, Digest: f.digest, Size: f.want.Size, Path: string(path)})
	}
	man.Sort()
	res := &Result{Stream: plan.Stream, Snapshot: p.prev.id.String(), Products: plan.Products, Versions: plan.Versions, Items: plan.Items, Known: len(known),
		Fetched: r.fetched, LeftOut: plan.LeftOut, Warnings: plan.Warnings}
	// Also where the entries are as they were: a document may have been lost, and made again the same.
	if err := m.store.Flush(ctx); err != nil {
		return nil, err
	}
	if p.prev.manifest == nil || !slices.Equal(man.Entries, p.prev.manifest.Entries) {
		if err := m.gate(ctx, man, plan.profile); err != nil {
			return nil, err
		}
		id, err := m.store.Publish(ctx, man)
		if err != nil {
			return nil, err
		}
		res.Snapshot, res.Changed = id.String(), true
	}
	if err := m.accept(p, plan, signer, len(here) == len(plan.byPath), res.Snapshot); err != nil {
		return res, fmt.Errorf("snapshot %s is published, but cannot be recorded as the stream's state: %w", res.Snapshot, err)
	}
	return res, nil
}

// addSite adds the site's own documents, and returns the fingerprint of their signer.
func (r *run) addSite(ctx context.Context, man *cache.Manifest, p *planner, plan *Plan) (signer string, err error) {
	key, err := r.m.Key()
	if err != nil {
		return "", err
	}
	docs, err := r.m.render(p, plan, key)
	if err != nil {
		return "", err
	}
	for _, d := range docs {
		if err := r.addDocument(ctx, man, cache.KindSite, string(d.Path), d.Bytes); err != nil {
			return "", err
		}
	}
	return key.Fingerprint(), nil
}

// render makes the site's own documents. They give the SHA-256 of every file,
// also where upstream gave another sum only.
func (m *Mirror) render(p *planner, plan *Plan, key *streams.SigningKey) ([]streams.Document, error) {
	var lists []*streams.Products
	for _, l := range plan.lists {
		lists = append(lists, l.WithSHA256(func(it *streams.Item) []byte { return plan.byPath[it.Path].digest[:] }))
	}
	x := *p.c.index
	x.Entries = plan.entries
	site := streams.Site{Updated: m.updatedAfter(p.prev), Profile: plan.profile, Key: key, Previous: p.prev.document}
	docs, findings, err := site.Render(&x, lists)
	for _, f := range findings {
		plan.Warnings = append(plan.Warnings, f.String())
	}
	return docs, err
}

// updatedAfter returns the date of what is published next: now, and later than that of
// what is published.
func (m *Mirror) updatedAfter(prev *published) time.Time {
	updated := m.now().UTC().Truncate(time.Second)
	if prev.index != nil {
		last, err := streams.ParseTime(prev.index.Updated)
		if err == nil && !updated.After(last) {
			updated = last.Add(time.Second)
		}
	}
	return updated
}

// addUpstream adds upstream's documents, byte for byte: those of now, and the
// older ones that vouch for versions kept from before.
func (r *run) addUpstream(ctx context.Context, man *cache.Manifest, c *catalog, evidence []document) error {
	for _, doc := range c.documents() {
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

// accept records the upstream state that is published now as a snapshot, so that the next
// sync can tell what is new and what is older. If not all is here that is wanted, the
// sync that brings it is still to come, and how the last one ended stays.
func (m *Mirror) accept(p *planner, plan *Plan, signer string, here bool, snapshot string) error {
	index, lists := p.c.dates()
	last := &Last{Time: m.now().UTC().Truncate(time.Second), Outcome: OutcomeDone}
	if len(plan.LeftOut) > 0 {
		last.Outcome = OutcomePartial
		last.Reason = leftOut(plan.LeftOut)
	}
	whole := here && !p.c.unsettled && !curable(plan.LeftOut)
	wanted := p.s
	wanted.Dropped = nil // done
	return m.update(plan.Stream, func(st *state) {
		if here {
			st.Last = last
		}
		if !st.comes(m.store.Files()) {
			st.Imported = nil // a bundle was to bring it, and never did
		}
		if !related(st.Stream, p.s) {
			return // the configuration has given the stream another upstream meanwhile
		}
		if st.Accepted.Lists == nil {
			st.Accepted.Lists = map[string]time.Time{}
		}
		maps.Copy(st.Accepted.Lists, lists)
		st.Accepted.Index = index
		st.Accepted.Wants, st.Accepted.Key = wanted.wants(), signer
		st.Dropped = slices.DeleteFunc(st.Dropped, func(product string) bool { return slices.Contains(p.s.Dropped, product) })
		st.Accepted.Whole, st.Accepted.Digest, st.Accepted.Snapshot = whole, p.c.indexDoc.digest.String(), snapshot
		st.Accepted.Custody, st.Accepted.NoCustody = p.c.custody.settled, p.c.custody.missing
	})
}

// leftOut says in a line what a sync left out.
func leftOut(all []Omission) string {
	return fmt.Sprintf("%d versions left out; the first: %s", len(all), all[0])
}
