package mirror

import (
	"context"
	"errors"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/bundle"
)

// expect has what comes of a bundle stay until the rest is there, once all its metadata was read, and refuses what could not be
// published.
func (im *importing) expect(ctx context.Context, in *incoming) error {
	if !in.proven {
		if err := im.prove(ctx, in); err != nil {
			return im.refuse(in, err)
		}
		in.proven = true
	}
	var blobs []cache.Digest
	for _, man := range in.manifests {
		for _, e := range man.Entries {
			blobs = append(blobs, e.Digest)
		}
	}
	slices.SortFunc(blobs, cache.Digest.Compare)
	return im.m.store.Expect(in.contents.Encode(), slices.Compact(blobs))
}

// cameEarlier reports whether files of a bundle came by an import before, and were kept for the rest.
func (im *importing) cameEarlier(in *incoming) bool {
	return im.m.store.Expects(in.id) && slices.ContainsFunc(in.contents.Members, func(m bundle.Member) bool {
		return m.Kind() == bundle.KindFile && im.m.store.Has(m.Digest)
	})
}

// refuse ends what is expected of a bundle that is refused, unless files of it came before, or come by another import: it may be only
// here and now that it is.
func (im *importing) refuse(in *incoming, err error) error {
	im.m.mu.Lock()
	defer im.m.mu.Unlock()
	if in.earlier || im.m.importing[in.id] > 1 {
		return err
	}
	return errors.Join(err, im.m.store.Unexpect(in.id))
}

// withdrawn is refuse for what became of a bundle in the end: what can be put right here is kept.
func (im *importing) withdrawn(in *incoming, err error) error {
	for _, verdict := range []error{bundle.ErrContents, bundle.ErrForeign, ErrOlder, ErrVouched, ErrUnfit, ErrNotImported} {
		if errors.Is(err, verdict) {
			return im.refuse(in, err)
		}
	}
	return err
}

// imports notes that a bundle is being imported, until end is called.
func (m *Mirror) imports(id cache.Digest) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.importing[id]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.importing[id]--; m.importing[id] == 0 {
			delete(m.importing, id)
		}
	}
}
