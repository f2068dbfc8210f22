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
)

// finish publishes what a bundle brings, if all of it is here.
func (im *importing) finish(ctx context.Context, in *incoming) (*BundleResult, error) {
	if err := im.m.store.Flush(ctx); err != nil {
		return nil, err
	}
	res := &BundleResult{Bundle: in.id.String(), Site: in.contents.Site, Created: in.contents.Created, Volumes: in.contents.Volumes}
	res.Missing = missingOf(in.contents, func(d cache.Digest, _ int64) bool { return im.m.store.Holds(d) })
	if !res.Whole() || !in.proven { // some of the metadata is to be read yet
		return res, nil
	}
	for _, n := range in.contents.Needs {
		if !im.m.store.Holds(n.Digest) {
			return nil, fmt.Errorf("%w: it counts on a file of %d bytes that is not here (%v); `oxbow store check --repair`, or give what `oxbow bundle have` prints here to `oxbow bundle export --have`", ErrGap, n.Size, n.Digest)
		}
	}
	res.Published, res.There, res.Current = map[string]string{}, map[string]string{}, map[string]string{}
	for _, s := range in.contents.Snapshots {
		now, err := im.publish(ctx, in, s)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", s.Stream, err)
		}
		if now {
			res.Published[s.Stream] = s.ID.String()
		} else {
			res.There[s.Stream] = s.ID.String()
			if now, err := im.m.store.Current(s.Stream); err == nil && now.ID != s.ID {
				res.Current[s.Stream] = now.ID.String()
			}
		}
	}
	return res, im.m.store.Unexpect(in.id)
}

// publish makes a snapshot current; false: it came before.
func (im *importing) publish(ctx context.Context, in *incoming, s bundle.Snapshot) (bool, error) {
	ctx, end, err := im.m.begin(ctx, s.Stream, func() {})
	if err != nil {
		return false, err
	}
	defer end()
	man := in.manifests[s.ID]
	if im.keeps(s.Stream, s.ID) {
		return false, im.complete(in, s, man)
	}
	if err := im.check(ctx, in, s, im.m.store.Files()); err != nil {
		return false, err
	}
	if err := im.define(in, s.Stream); err != nil {
		return false, err
	}
	over := cache.Digest{}
	if now, err := im.m.store.Current(s.Stream); err == nil {
		over = now.ID
	} else if !errors.Is(err, cache.ErrNoSnapshot) {
		return false, err
	}
	if err := im.introduce(in, s); err != nil {
		return false, err
	}
	if _, err := im.m.store.PublishOver(ctx, over, man); err != nil {
		return false, err
	}
	return true, im.record(in, s, man)
}

// introduce has clients be given the keys that sign a snapshot before it is published, beside those that sign what is now.
func (im *importing) introduce(in *incoming, s bundle.Snapshot) error {
	return im.m.update(s.Stream, func(st *state) {
		if !st.comes(im.m.store.Files()) {
			st.Imported = &Imported{Site: in.contents.Site, Publishing: s.ID.String()}
		}
		st.Imported.Signers = st.Imported.signers(in.signers[s.Stream])
	})
}

// record notes how the stream came by what is published now.
func (im *importing) record(in *incoming, s bundle.Snapshot, man *cache.Manifest) error {
	kept, err := im.m.store.Files().Snapshots(s.Stream)
	if err != nil {
		return err
	}
	return im.m.update(s.Stream, func(st *state) {
		before := st.Imported
		st.Imported = im.imported(in, s, man)
		st.Imported.Signers = before.signers(st.Imported.Signers)
		st.Imported.Earlier = before.earlier(st.Imported.Snapshot, kept)
		st.Accepted.Index = upstreamIndexTime(im.m.store.Files(), man)
		st.Last = &Last{Time: im.m.now().UTC().Truncate(time.Second), Outcome: OutcomeDone}
	})
}

// complete notes of a snapshot that came before what an import did not, which was killed as it had published it.
func (im *importing) complete(in *incoming, s bundle.Snapshot, man *cache.Manifest) error {
	st, err := readState(im.m.store.Files(), s.Stream)
	if err != nil {
		return err
	}
	now, err := im.m.store.Current(s.Stream)
	if err != nil {
		return err
	}
	noted := slices.ContainsFunc(st.Imported.arrivals(), func(a Arrival) bool { return a.Snapshot == s.ID.String() })
	if st.Imported == nil || noted || now.ID != s.ID && !man.Created.After(st.Imported.Created) {
		return nil // it is synced here, or something newer came
	}
	return im.record(in, s, man)
}

func (im *importing) imported(in *incoming, s bundle.Snapshot, man *cache.Manifest) *Imported {
	rec := &Imported{Arrival: Arrival{Snapshot: s.ID.String(), Time: im.m.now().UTC().Truncate(time.Second)},
		Site: in.contents.Site, Created: man.Created, Bundle: in.id.String(), Signers: in.signers[s.Stream]}
	for n := 1; in.aside[bundle.HandoverPath(s.Stream, n)] != nil; n++ {
		rec.Handovers = append(rec.Handovers, string(in.aside[bundle.HandoverPath(s.Stream, n)]))
	}
	return rec
}

// define records what a stream is, if that is not known yet.
func (im *importing) define(in *incoming, stream string) error {
	if _, err := readState(im.m.store.Files(), stream); !errors.Is(err, ErrNoStream) {
		return err
	}
	def, err := definition(stream, in.aside)
	if err != nil {
		return err
	}
	return im.m.Define(def)
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
