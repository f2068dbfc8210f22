package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// check refuses a snapshot that is not to be published: what it is of, how old it is, who vouches for it, whether clients could read
// it. It is asked when all metadata was read, before any file comes, and once more before the switch: by then files can be read, and
// the state of the stream may be another.
func (im *importing) check(ctx context.Context, in *incoming, s bundle.Snapshot, f documents) error {
	st, err := im.state(s.Stream)
	if err != nil {
		return err
	}
	if err := im.admitted(st, in, s); err != nil {
		return err
	}
	man := in.manifests[s.ID]
	if err := im.notOlder(st, man); err != nil {
		return err
	}
	def := st.Stream
	if def.Name == "" {
		if def, err = definition(s.Stream, in.aside); err == nil {
			err = im.m.definable(def)
		}
		if err != nil {
			return err
		}
	}
	if err := im.vouched(man, f); err != nil {
		return err
	}
	return im.fit(ctx, st, def, in, man, f)
}

// notOlder refuses what is older than what is here: than the snapshot that came last and, of a stream that was synced here since, than
// upstream's index as it was accepted then. Of bundles alone that one may be older: the site that makes them has gone back.
func (im *importing) notOlder(st *state, man *cache.Manifest) error {
	const remedy = "an old copy may hide security updates; --allow-older accepts it"
	if im.o.AllowOlder {
		return nil
	}
	if st.Imported != nil {
		if last := st.Imported.Created; man.Created.Before(last) {
			return fmt.Errorf("%w: it was made %s, and what came last %s: %s", ErrOlder, man.Created.Format(time.RFC3339), last.Format(time.RFC3339), remedy)
		}
		if now, err := im.m.store.Current(st.Stream.Name); err != nil || now.ID.String() != st.Accepted.Snapshot {
			return nil // no sync made what is published
		}
	}
	accepted := st.Accepted.Index
	if index := im.upstreamIndex(man); index.Before(accepted) {
		is := "has no date"
		if !index.IsZero() {
			is = "is of " + streams.FormatTime(index)
		}
		return fmt.Errorf("%w: upstream's index in it %s, and the one that was accepted last, as the stream was synced here, of %s: %s", ErrOlder, is, streams.FormatTime(accepted), remedy)
	}
	return nil
}

// definition is that of a stream, as the members of a bundle describe it.
func definition(stream string, members map[string][]byte) (Stream, error) {
	var d Description
	if err := json.Unmarshal(members[bundle.StreamPath(stream)], &d); err != nil {
		return Stream{}, unusable(stream, err)
	}
	def := Stream{Name: stream, Upstream: d.Upstream, Path: d.Path, Also: d.Also, Kind: d.Kind, Profile: d.Profile,
		AllowUnsigned: d.Unsigned, Keyring: members[bundle.UpstreamKeysPath(stream)], Offline: true}
	if err := def.Validate(); err != nil {
		return Stream{}, unusable(stream, err)
	}
	return def, nil
}

func unusable(stream string, err error) error {
	return fmt.Errorf("%w: nothing can be served by %s: %w; the bundle has to be made anew where it comes from", ErrUnfit, bundle.StreamPath(stream), err)
}

// definable says why a stream cannot be defined, if that is so.
func (m *Mirror) definable(s Stream) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.stateFor(s)
	return err
}

// vouched refuses a snapshot of which something is not vouched for by the keyring that was given.
func (im *importing) vouched(man *cache.Manifest, f documents) error {
	if im.o.Keyring == nil {
		return nil
	}
	by, err := countedHere(im.m.store.Files(), man.Stream, Stream{Name: man.Stream, Keyring: im.o.Keyring})
	if err != nil {
		return err
	}
	c, err := traceCustody(f, man, by, im.m.now())
	if err != nil {
		return err
	}
	if len(c.Faults) > 0 {
		return fmt.Errorf("%w: %s", ErrVouched, c.Faults[0])
	}
	return nil
}

// fit refuses a snapshot that clients could not read, or not believe, with the keys that they are given here.
func (im *importing) fit(ctx context.Context, st *state, def Stream, in *incoming, man *cache.Manifest, f documents) error {
	t, err := shownTrust(man, def, st.Imported.signers(in.signers[man.Stream]))
	if err != nil {
		return err
	}
	faults, err := shownFaults(ctx, f, man, t, im.m.now())
	if err != nil || len(faults) == 0 {
		return err
	}
	more := ""
	if n := len(faults) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more faults", n)
	}
	return fmt.Errorf("%w: %s%s; `oxbow bundle verify` tells all of the bundle, which has to be made anew where it comes from", ErrUnfit, faults[0], more)
}

// shownTrust returns whose signatures clients of a snapshot can check: those of the sites that sign it or, where it shows upstream's
// documents, of upstream.
func shownTrust(man *cache.Manifest, s Stream, signers []byte) (trust, error) {
	if shownKind(man) == cache.KindUpstream {
		return s.trust()
	}
	ring, err := streams.ReadKeyring(signers)
	return trust{keyring: ring}, err
}

// withoutFiles are documents of a store whose files are still to come: these are taken for what metadata says.
type withoutFiles struct{ documents }

func (withoutFiles) Prove(cache.Digest, cache.Want) error { return nil }

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
