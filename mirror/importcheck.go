package mirror

import (
	"context"
	"fmt"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// admit refuses a bundle that could not be published, by its table of contents.
func (im *importing) admit(in *incoming) error {
	for _, s := range in.contents.Snapshots {
		st, err := im.state(s.Stream)
		if err == nil {
			err = im.admitted(st, in, s)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
	}
	return nil
}

// admitted refuses a snapshot of a stream that may not come by that bundle.
func (im *importing) admitted(st *state, in *incoming, s bundle.Snapshot) error {
	switch {
	case st.Held != nil:
		return fmt.Errorf("held since %s by a rollback to %.12s: `oxbow snapshot rollback %s --resume`, and import it again", st.Held.Since.UTC().Format(time.RFC3339), st.Held.To, s.Stream)
	case st.Imported == nil && st.Stream.Name != "" && !st.Stream.Offline:
		return fmt.Errorf("%w, and would go on to be: `oxbow mirror drop %s` before, or `offline: true` in its configuration", ErrNotImported, s.Stream)
	case st.Imported != nil && st.Imported.Site != in.contents.Site && in.contents.Site != im.o.TrustFingerprint:
		return fmt.Errorf("%w: its bundles come from %s, and this one from %s; `--trust-fingerprint %[3]s` says that this is right", bundle.ErrForeign, st.Imported.Site, in.contents.Site)
	}
	return im.follows(st, s)
}

// follows refuses a snapshot that continues what is not here.
func (im *importing) follows(st *state, s bundle.Snapshot) error {
	if im.keeps(s.Stream, s.ID) || s.Since.IsZero() || im.keeps(s.Stream, s.Since) {
		return nil
	}
	have := "has nothing of it"
	if st.Imported != nil && st.Imported.Snapshot != "" {
		have = fmt.Sprintf("has %.12s", st.Imported.Snapshot)
	}
	return fmt.Errorf("%w: it continues snapshot %.12s, and this site %s; import the bundle that brings %[2]s, or give what `oxbow bundle have` prints here to `oxbow bundle export --have`", ErrGap, s.Since, have)
}

// prove refuses a bundle that could not be published, as far as its metadata tells.
func (im *importing) prove(ctx context.Context, in *incoming) error {
	for _, s := range in.contents.Snapshots {
		if in.manifests[s.ID] == nil {
			return fmt.Errorf("%w: it has no manifest of snapshot %v", bundle.ErrContents, s.ID)
		}
		ring, err := streams.ReadKeyring(in.aside[bundle.SiteKeysPath(s.Stream)])
		if err == nil {
			in.signers[s.Stream], err = ring.Public() // which becomes a part of the keyring of every client
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", bundle.ErrContents, bundle.SiteKeysPath(s.Stream), err)
		}
	}
	if err := in.complete(); err != nil {
		return err
	}
	if err := im.m.store.Flush(ctx); err != nil { // documents are read now
		return err
	}
	for _, s := range in.contents.Snapshots {
		if im.keeps(s.Stream, s.ID) {
			continue
		}
		if err := im.check(ctx, in, s, withoutFiles{im.m.store.Files()}); err != nil {
			return fmt.Errorf("stream %s: %w", s.Stream, err)
		}
	}
	return nil
}

// complete refuses a bundle that does not bring what its snapshots name, nor says that it is there already, or that brings more.
func (in *incoming) complete() error {
	brings := map[cache.Digest]int64{}
	for _, m := range in.contents.Members {
		switch m.Kind() {
		case bundle.KindFile:
			brings[m.Digest] = m.Size
		case bundle.KindDocument:
			brings[m.Content()] = -1
		}
	}
	for _, n := range in.contents.Needs {
		brings[n.Digest] = n.Size
	}
	named := map[cache.Digest]bool{}
	for _, man := range in.manifests {
		for _, e := range man.Entries {
			size, ok := brings[e.Digest]
			if e.Kind == cache.KindKnown || !ok || size >= 0 && size != e.Size {
				return fmt.Errorf("%w: it does not bring %s of stream %s (%v)", bundle.ErrContents, e.Path, man.Stream, e.Digest)
			}
			named[e.Digest] = true
		}
	}
	for d := range brings {
		if !named[d] {
			return fmt.Errorf("%w: it brings %v, which no snapshot of it names", bundle.ErrContents, d)
		}
	}
	return nil
}

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
	if index := upstreamIndexTime(im.m.store.Files(), man); index.Before(accepted) {
		is := "has no date"
		if !index.IsZero() {
			is = "is of " + streams.FormatTime(index)
		}
		return fmt.Errorf("%w: upstream's index in it %s, and the one that was accepted last, as the stream was synced here, of %s: %s", ErrOlder, is, streams.FormatTime(accepted), remedy)
	}
	return nil
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

func (withoutFiles) Prove(cache.Digest, cache.Want) error { return nil }
