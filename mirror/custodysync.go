package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/mirror/upstream"
)

// syncCustody is what there is of custody volumes at a sync.
type syncCustody struct {
	volumes []keptVolume // the one that is about the catalog's documents, then those of before, the newest first
	settled string       // accepted.Custody
	missing string       // accepted.NoCustody
}

// custodyHere: a volume is here that is about the index and the lists.
const custodyHere = "here"

// takeCustody has c be with the custody of its documents, if its source offers that: the volume that the snapshot of before has or,
// where there is none, the source's. Whatever is wrong with that is a warning: the images are proven all the same, by the signature of
// the site that they come from. The error is the context's.
func (r *run) takeCustody(ctx context.Context, c *catalog) error {
	c.custody.volumes = r.m.keptVolumes(r.reader.s.Name)
	if i := slices.IndexFunc(c.custody.volumes, func(v keptVolume) bool { return v.covers(c) }); i >= 0 {
		now := c.custody.volumes[i] // of all that are about a document this one says what holds now
		c.custody.volumes, c.custody.settled = slices.Insert(slices.Delete(c.custody.volumes, i, i+1), 0, now), custodyHere
		return nil
	}
	o := c.indexDoc.offer
	if o == nil {
		return nil
	}
	v, err := r.fetchCustody(ctx, c, o)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		c.custody.volumes, c.custody.settled = slices.Insert(c.custody.volumes, 0, v), custodyHere
		return nil
	}
	if fetch, ok := errors.AsType[*upstream.FetchError](err); ok {
		err = fetch.Err // which names the URL once more
	}
	if !mayChange(err) {
		c.custody.settled = r.m.circumstances(r.reader.trust, o)
	}
	c.custody.missing = fmt.Sprintf("the chain of custody ends at this stream's upstream, and what that has of its own is left out: %s: %v; %s",
		shown(o.url), oneLine(err.Error()), custodyRemedy(err, o))
	c.warnings = append(c.warnings, c.custody.missing)
	return nil
}

// custodyRemedy says what helps against err.
func custodyRemedy(err error, o *offer) string {
	switch {
	case errors.Is(err, bundle.ErrForeign):
		return "if `oxbow key show` prints that fingerprint at that site, `oxbow key import` its public key, and sync again"
	case errors.Is(err, errElsewhere):
		return "whoever runs that site has to see to its Link header"
	case errors.Is(err, upstream.ErrNotFound):
		return "that site has nothing there any more, and offers another with what it publishes next"
	case mayChange(err):
		return "the next sync tries again"
	}
	return fmt.Sprintf("`curl %s | oxbow bundle verify -` says more", inShell(shown(o.url)))
}

// inShell returns a URL as a word of a command for people to paste: whoever offers it has chosen it.
func inShell(url string) string {
	if strings.Trim(url, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%:/@+,=") == "" {
		return url
	}
	return "'" + strings.ReplaceAll(url, "'", "%27") + "'"
}

// mayChange reports whether another try at the same volume may do better than one that ended with err.
func mayChange(err error) bool {
	_, refused := errors.AsType[unfit](err)
	return !refused && !errors.Is(err, upstream.ErrNotFound) && upstream.WorthRetry(err)
}

// An unfit error is one about what a volume is, or where.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

// errOtherCustody: it does not belong to the documents that were read.
var errOtherCustody = errors.New("it is the custody of other documents than those that were read")

// custodyAttempts is how often a sync asks for custody that does not come. The images wait meanwhile, for the next sync asks again: five
// attempts at a server that takes them and never answers are minutes, each time.
const custodyAttempts = 2

// fetchCustody fetches what is offered, and stores it if it is good.
func (r *run) fetchCustody(ctx context.Context, c *catalog, o *offer) (keptVolume, error) {
	if o.problem != nil {
		return keptVolume{}, unfit{o.problem}
	}
	got, err := r.reader.client.Trying(custodyAttempts).Document(ctx, o.url, upstream.Validators{}, MaxCustody)
	if err != nil {
		return keptVolume{}, err
	}
	room := int64(maxCustodyText)
	v, err := openCustody(got.Bytes, &room, r.trustCustody, r.m.now())
	if err != nil {
		return keptVolume{}, unfit{err}
	}
	d := cache.Sum(got.Bytes)
	kept := newKeptVolume(cache.Entry{Kind: cache.KindEvidence, Digest: d, Size: int64(len(got.Bytes)), Path: custodyPath(d)}, v)
	if !kept.covers(c) {
		return keptVolume{}, unfit{errOtherCustody}
	}
	if err := v.prove(); err != nil {
		return keptVolume{}, unfit{err}
	}
	r.lease.Add(d)
	if _, err := r.m.store.Put(ctx, got.Bytes); err != nil {
		return keptVolume{}, fmt.Errorf("cannot store it: %w", err)
	}
	return kept, nil
}

// circumstances names an offer and the keys by which it is judged: while they are the same, so is the verdict.
func (m *Mirror) circumstances(t trust, o *offer) string {
	keys, err := m.custodyKeys(t)
	return cache.Sum(fmt.Appendf(nil, "%s\n%v\n%s", o.url, err, keys)).String()
}

// custodyDue reports whether custody is offered with the index that is neither here nor was refused.
func (m *Mirror) custodyDue(st *state, c *catalog) bool {
	if c.indexDoc.offer == nil || st.Accepted.Custody == custodyHere {
		return false
	}
	t, err := st.Stream.trust()
	return err == nil && st.Accepted.Custody != m.circumstances(t, c.indexDoc.offer)
}

// keptVolumes returns the custody volumes of a stream's current snapshot that can be read, the newest first.
func (m *Mirror) keptVolumes(stream string) (kept []keptVolume) {
	snap, err := m.store.Current(stream)
	if err != nil {
		return nil
	}
	man, err := m.store.Manifest(stream, snap.ID)
	if err != nil {
		return nil // which is told of where the snapshot is needed
	}
	for _, e := range man.Entries {
		if !isCustody(e) {
			continue
		}
		data, err := readEntry(m.store.Files(), e)
		var v *openedCustody
		if err == nil {
			room := int64(maxCustodyText)
			v, err = openCustody(data, &room, bundle.AnySite, time.Time{})
		} else {
			err = errors.Join(err, m.doubt([]unread{{e, err}}))
		}
		if err != nil {
			m.log.Warn("a custody volume is left out of what is published next", "stream", stream, "snapshot", snap.ID, "path", e.Path, "reason", err)
			continue
		}
		kept = append(kept, newKeptVolume(e, v))
	}
	slices.SortFunc(kept, func(a, b keptVolume) int {
		if order := b.created.Compare(a.created); order != 0 {
			return order
		}
		return strings.Compare(a.Path, b.Path)
	})
	return kept
}

// addCustody adds the custody volumes that are about documents of the manifest, as few as will do: a list that stays as it is for
// months is one of many snapshots of the site that it comes from, and the newest of their volumes says all about it.
func (r *run) addCustody(man *cache.Manifest, c syncCustody) {
	traced := map[cache.Digest]bool{} // documents of upstream's; true: a volume is about it
	for _, e := range man.Entries {
		if e.Kind == cache.KindUpstream || e.Kind == cache.KindEvidence {
			traced[e.Digest] = false
		}
	}
	for _, v := range c.volumes {
		needed := false
		for d := range v.about {
			if done, there := traced[d]; there && !done {
				traced[d], needed = true, true
			}
		}
		if needed {
			r.lease.Add(v.Digest)
			man.Entries = append(man.Entries, v.Entry)
		}
	}
}
