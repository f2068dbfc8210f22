package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// rollbackReason begins the reason of a snapshot with the content of an older one. The first 12 digits of that one's id follow.
const rollbackReason = "rollback to "

// ErrShown is returned for a rollback to what clients are shown already.
var ErrShown = errors.New("what is published already")

// RolledBack says what a rollback did.
type RolledBack struct {
	Stream   string `json:"stream"`
	Snapshot string `json:"snapshot"` // the new one, which is current
	From     string `json:"from"`     // the one that it took the place of
	To       string `json:"to"`       // the one whose content it has
	Products int    `json:"products"`
	Versions int    `json:"versions"`
	Items    int    `json:"items"`
	Known    int    `json:"known"` // further files, which may be pulled through

	// Warnings are of documents that had to be made out, and of rules that what is published breaks.
	Warnings []string `json:"warnings,omitempty"`
}

// Rollback makes the content of a kept snapshot current again; if to is zero, that of the snapshot before the content that is
// current: so another rollback goes further back. Snapshots that differ in upstream's documents only count as one there.
//
// What is published is a new snapshot that follows the current one, with a date of its own: mirrors of this one take it as progress.
// The rules that MAAS demands today do not hold it back, since clients took it once: what breaks them is warned of. Documents of
// the site's own that are lost or damaged are made from their other forms, or from upstream's documents where these tell enough.
// No file is copied or fetched. The stream is held from before the switch on, so that no sync undoes it, whatever happens; one
// that is under way is interrupted. [Mirror.Resume] ends that. After a crash before the switch, [New] takes the hold back.
func (m *Mirror) Rollback(ctx context.Context, name string, to cache.Digest) (*RolledBack, error) {
	lease := m.store.Lease()
	defer lease.Release()
	target, err := m.rollbackTarget(name, to)
	if err != nil {
		return nil, fmt.Errorf("cannot roll stream %s back: %w", name, err)
	}
	for _, e := range target.manifest.Entries {
		lease.Add(e.Digest)
	}
	_, end, err := m.begin(ctx, name, func() { m.interrupt(name) })
	if err != nil {
		return nil, err
	}
	defer end()
	defer cache.Step(m.log, "rollback", "stream", name, "to", target.id.String())()
	if err := m.holdStream(name, target.id); err != nil {
		return nil, err
	}
	res, err := m.republish(ctx, name, target, lease)
	if res == nil {
		err = errors.Join(err, m.update(name, (*state).undoHold))
	}
	if err != nil {
		err = fmt.Errorf("cannot roll stream %s back to %.12s: %w", name, target.id, err)
	}
	return res, err
}

// rollbackTarget reads the snapshot to go back to.
func (m *Mirror) rollbackTarget(name string, to cache.Digest) (*published, error) {
	kept, err := m.store.Snapshots(name)
	if err != nil {
		return nil, err
	}
	if to.IsZero() {
		if to, err = m.earlier(name, kept); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(kept, func(s cache.Snapshot) bool { return s.ID == to }) {
		return nil, fmt.Errorf("%w: %v", cache.ErrNoSnapshot, to)
	}
	target, err := m.targetAt(name, to)
	if err != nil {
		return nil, err
	}
	now, err := m.store.Manifest(name, kept[0].ID)
	if err == nil && slices.Equal(content(now), content(target.manifest)) {
		return nil, fmt.Errorf("the content of snapshot %.12s is %w", to, ErrShown)
	}
	return target, nil // also in place of a current one that is damaged
}

// targetAt reads a kept snapshot. What it cannot be published anew without is there.
func (m *Mirror) targetAt(name string, id cache.Digest) (*published, error) {
	man, err := m.store.Manifest(name, id)
	if err != nil {
		return nil, err
	}
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return nil, err
	}
	p := &published{id: id, manifest: man, documents: map[string][]byte{}}
	err = p.read(m.store.Files())
	if err != nil && !st.comes(m.store.Files()) { // else another site signs what clients read
		err = p.restore(m.store.Files())
	}
	if err != nil {
		return nil, err
	}
	return p, m.doubt(p.unread)
}

// content returns the entries of a manifest without those that are made anew at a rollback.
func content(m *cache.Manifest) []cache.Entry {
	return slices.DeleteFunc(slices.Clone(m.Entries), func(e cache.Entry) bool { return e.Kind == cache.KindSite })
}

// earlier returns the newest of the kept snapshots, which are given newest first, that is older than the content of the current
// one and has other files.
func (m *Mirror) earlier(name string, kept []cache.Snapshot) (cache.Digest, error) {
	origin := 0
	for {
		id, ok := strings.CutPrefix(kept[origin].Reason, rollbackReason)
		if !ok {
			break
		}
		i := slices.IndexFunc(kept[origin+1:], func(s cache.Snapshot) bool { return strings.HasPrefix(s.ID.String(), id) })
		if i < 0 {
			return cache.Digest{}, fmt.Errorf("snapshot %s, which it was rolled back to, is not kept any more, and so it is not known what came before: give the id of one", id)
		}
		origin += 1 + i
	}
	now, err := m.store.Manifest(name, kept[origin].ID)
	if err != nil {
		return cache.Digest{}, fmt.Errorf("%w; give the id of the snapshot to go back to", err)
	}
	shown := shownFiles(now)
	for _, s := range kept[origin+1:] {
		man, err := m.store.Manifest(name, s.ID)
		if err != nil {
			m.log.Warn("a kept snapshot cannot be read and is passed over", "stream", name, "snapshot", s.ID.String(), "reason", err)
			continue
		}
		if !maps.Equal(shownFiles(man), shown) {
			return s.ID, nil
		}
	}
	return cache.Digest{}, errors.New("no snapshot with other files is kept from before what is published now")
}

// shownFiles returns what a snapshot's clients can get beside documents, here beforehand or not.
func shownFiles(m *cache.Manifest) map[string]cache.Digest {
	files := map[string]cache.Digest{}
	for _, e := range m.Entries {
		if e.Kind == cache.KindItem || e.Kind == cache.KindKnown {
			files[e.Path] = e.Digest
		}
	}
	return files
}

// holdStream records that a stream is held, and what takes that back.
func (m *Mirror) holdStream(name string, to cache.Digest) error {
	now, err := m.store.Current(name)
	if err != nil {
		return err
	}
	return m.update(name, func(st *state) {
		st.Undo = &undo{Current: now.ID.String(), Held: st.Held}
		st.Held = &Held{Since: m.now().UTC().Truncate(time.Second), To: to.String()}
	})
}

// An undo takes back the hold of a rollback that came to nothing.
type undo struct {
	Current string `json:"current"`        // what it was to take the place of: another one is current, and it took place
	Held    *Held  `json:"held,omitempty"` // as it was before
}

func (st *state) undoHold() {
	if st.Undo != nil { // else somebody has resumed the stream meanwhile
		st.Held, st.Undo = st.Undo.Held, nil
	}
}

// undoHolds takes back the holds of rollbacks that a crash ended before the switch: else streams would stay as somebody did not
// want them, and be held there.
func (m *Mirror) undoHolds() {
	all, _ := m.store.Files().Streams()
	for _, name := range all {
		st, err := readState(m.store.Files(), name)
		if err != nil || st.Undo == nil || st.Held == nil {
			continue
		}
		if now, err := m.store.Current(name); err != nil || now.ID.String() != st.Undo.Current {
			continue
		}
		m.log.Warn("a rollback was interrupted before it published anything, and holds nothing", "stream", name, "to", st.Held.To)
		if err := m.update(name, (*state).undoHold); err != nil {
			m.log.Error("a stream stays held by a rollback that did not take place: `oxbow snapshot rollback "+name+" --resume` ends it", "reason", err)
		}
	}
}

// interrupt ends the sync or refresh of a stream that is under way.
func (m *Mirror) interrupt(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.syncing[name]; u != nil {
		u.cancel(ErrRolledBack)
	}
}

// republish publishes the content of target anew. The result is nil only if the old snapshot is still current.
func (m *Mirror) republish(ctx context.Context, name string, target *published, lease *cache.Lease) (*RolledBack, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return nil, err
	}
	now, err := m.published(name)
	if err != nil {
		return nil, err
	}
	man := &cache.Manifest{Stream: name, Parent: now.id, Created: m.now().UTC().Truncate(time.Second),
		Reason: fmt.Sprintf("%s%.12s", rollbackReason, target.id), Entries: content(target.manifest)}
	bundled := st.comes(m.store.Files())
	if bundled { // what its clients read, another site signs
		man.Entries = slices.Clone(target.manifest.Entries)
	}
	was := target.result(name)
	res := &RolledBack{Stream: name, From: now.id.String(), To: target.id.String(),
		Products: was.Products, Versions: was.Versions, Items: was.Items, Known: was.Known}
	x := target.index
	if x == nil { // upstream's own is shown
		if x, err = upstreamIndex(m.store.Files(), man); err != nil {
			return nil, err
		}
	}
	profile := st.Stream.profile(x)
	if shownKind(target.manifest) == cache.KindSite && !bundled {
		if res.Warnings, err = m.addRendered(ctx, man, profile, target, now, lease); err != nil {
			return nil, err
		}
	}
	if err := m.store.Flush(ctx); err != nil {
		return nil, err
	}
	warnings, err := m.refusals(ctx, man, profile)
	if err != nil {
		return nil, err
	}
	res.Warnings = append(res.Warnings, warnings...)
	id, err := m.store.Publish(ctx, man)
	if err != nil {
		snap, failed := m.store.Current(name)
		if failed == nil && snap.ID == now.id {
			return nil, err
		}
		id = snap.ID
	}
	res.Snapshot = id.String()
	return res, err
}

// addRendered adds to a manifest the site's own documents of target, made anew. The warnings are of what was made out for that, and of
// the rules that it breaks.
func (m *Mirror) addRendered(ctx context.Context, man *cache.Manifest, profile streams.Profile, target, now *published, lease *cache.Lease) (warnings []string, err error) {
	docs, findings, err := m.renderAgain(profile, target, now)
	if err != nil {
		return nil, err
	}
	for _, f := range findings {
		if !f.Fatal { // else it is told of with those that it makes refuse everything
			warnings = append(warnings, f.String())
		}
	}
	r := &run{m: m, lease: lease}
	for _, d := range docs {
		if err := r.addDocument(ctx, man, cache.KindSite, string(d.Path), d.Bytes); err != nil {
			return nil, err
		}
	}
	return append(warnings, target.restored...), nil
}

// refusals warns of the clients that refuse a snapshot which is published all the same, and says why.
func (m *Mirror) refusals(ctx context.Context, man *cache.Manifest, profile streams.Profile) (warnings []string, err error) {
	refusing, fatal, err := m.refused(ctx, man, profile)
	if err != nil || len(refusing) == 0 {
		return nil, err
	}
	warnings = append(warnings, fmt.Sprintf("by the rules of %v, as they are today, clients refuse all of what is published now; `maas:` in the stream's configuration says whose rules count", refusing))
	for _, f := range fatal {
		warnings = append(warnings, fmt.Sprintf("refused: %s: %v", f.Index, f.Finding))
	}
	return warnings, nil
}

// renderAgain makes the site's own documents of an older snapshot anew, to follow those of now. The findings are about what it breaks
// of the rules of profile, and has all the same.
func (m *Mirror) renderAgain(profile streams.Profile, target, now *published) ([]streams.Document, []streams.Finding, error) {
	key, err := m.Key()
	if err != nil {
		return nil, nil, err
	}
	x := *target.index
	x.Entries = nil
	for _, e := range target.index.Entries {
		origin := e.Path
		if i := slices.IndexFunc(target.evidence, func(li list) bool { return li.products.ContentID == e.ContentID }); i >= 0 {
			origin = target.evidence[i].path
		}
		x.Entries = append(x.Entries, target.entry(e.ContentID, origin))
	}
	site := streams.Site{Updated: m.updatedAfter(now), Profile: profile, Lenient: true, Key: key, Previous: now.document}
	return site.Render(&x, target.lists)
}
