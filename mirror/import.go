package mirror

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// Imported says how a stream came by bundles.
type Imported struct {
	Site      string    `json:"site"`     // fingerprint of the key that signs its bundles
	Snapshot  string    `json:"snapshot"` // the newest that came
	Created   time.Time `json:"created"`  // of that
	Bundle    string    `json:"bundle"`   // by which it came
	Time      time.Time `json:"time"`     // when
	Signers   []byte    `json:"signers"`  // the public keys that sign what its clients read
	Handovers []string  `json:"handovers,omitempty"`
}

// ImportOptions are the wishes of one [Mirror.Import].
type ImportOptions struct {
	// TrustFingerprint is that of a key which may sign bundles from now on, and which comes with them.
	TrustFingerprint string

	// Keyring, if not nil, holds the keys that upstream signs with: everything that a bundle brings has to be vouched for by a
	// document that one of them signed.
	Keyring []byte

	// Taken, if not nil, is told of each volume that was read, and of the bytes that were new.
	Taken func(t Taken)
}

// A Taken is a volume that was read.
type Taken struct {
	Name   string `json:"name"`
	Bundle string `json:"bundle"`
	Volume int    `json:"volume"`
	Of     int    `json:"of"`
	Files  int    `json:"files"` // that were new here
	Bytes  int64  `json:"bytes"`
}

// A BundleResult says what became of a bundle.
type BundleResult struct {
	Bundle    string            `json:"bundle"`
	Site      string            `json:"site"`
	Created   time.Time         `json:"created"`
	Volumes   int               `json:"volumes"`
	Published map[string]string `json:"published,omitempty"` // the snapshots that are current by it, by stream
	Known     map[string]string `json:"known,omitempty"`     // those that came before
	Missing   []MissingVolume   `json:"missing,omitempty"`   // what is to come before anything is published
}

// Whole reports whether nothing is missing.
func (r *BundleResult) Whole() bool { return len(r.Missing) == 0 }

// A MissingVolume is a volume that was not read yet, with what it has and is not here.
type MissingVolume struct {
	Volume int   `json:"volume"`
	Files  int   `json:"files"`
	Bytes  int64 `json:"bytes"`
}

// A Source is a volume to be read.
type Source struct {
	Name   string
	Reader io.Reader // an [io.Seeker] too, if there are several

	bundle cache.Digest // its id
}

var (
	// ErrGap: a bundle continues what this site does not have. Import what brings that, or have a bundle made for what is here.
	ErrGap = errors.New("a bundle is missing before this one")

	// ErrOlder: what a bundle brings is older than what is here.
	ErrOlder = errors.New("older than what is here")

	// ErrVouched: what a bundle brings is not vouched for by upstream's signature.
	ErrVouched = errors.New("not vouched for by upstream")

	// ErrNotImported: a stream of that name does not come by bundles here.
	ErrNotImported = errors.New("the stream is synced from its upstream here")
)

// Import reads volumes of bundles, in any order, and makes the snapshots of each bundle current of which all is here by then. What
// was read stays until the rest comes; nothing of it is served before. Of several bundles the older one comes first.
//
// Errors are those of package bundle, ErrGap, ErrOlder, ErrVouched, and the store's. What came before the error is kept.
func (m *Mirror) Import(ctx context.Context, sources []Source, o ImportOptions) ([]*BundleResult, error) {
	results, err := m.importAll(ctx, sources, o)
	for _, refused := range []error{bundle.ErrForeign, bundle.ErrDamaged, bundle.ErrContents, bundle.ErrNotBundle, ErrGap, ErrOlder, ErrVouched} {
		if errors.Is(err, refused) {
			return results, unverified{err}
		}
	}
	return results, err
}

// An unverified is an [ErrVerification] that says more by itself.
type unverified struct{ error }

func (u unverified) Unwrap() error { return u.error }

// Is reports whether target is ErrVerification.
func (unverified) Is(target error) bool { return target == ErrVerification }

func (m *Mirror) importAll(ctx context.Context, sources []Source, o ImportOptions) (results []*BundleResult, err error) {
	im := &importing{m: m, o: o}
	sources, err = im.inOrder(sources)
	if err != nil {
		return nil, err
	}
	for i, s := range sources {
		if err := im.volume(ctx, s); err != nil {
			return results, fmt.Errorf("cannot import %s: %w", s.Name, err)
		}
		if i+1 < len(sources) && sources[i+1].bundle == im.in.id {
			continue // more of the same
		}
		res, err := im.finish(ctx, im.in)
		if err != nil {
			return results, fmt.Errorf("cannot publish bundle %.12s: %w", im.in.id, err)
		}
		results = append(results, res)
	}
	return results, nil
}

// inOrder returns the sources with the volumes of a bundle together, those of older bundles first. Each is looked into for that, and
// then begun anew; one that cannot be is left where it is.
func (im *importing) inOrder(sources []Source) ([]Source, error) {
	if len(sources) < 2 {
		return sources, nil
	}
	created := map[cache.Digest]time.Time{}
	for i, s := range sources {
		seeker, ok := s.Reader.(io.Seeker)
		if !ok {
			return nil, fmt.Errorf("cannot import %s beside others: it is no file", s.Name)
		}
		r, err := bundle.NewReader(s.Reader, im.trust, im.m.now())
		if err == nil {
			_, err = seeker.Seek(0, io.SeekStart)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot import %s: %w", s.Name, err)
		}
		sources[i].bundle = r.Contents.ID()
		created[sources[i].bundle] = r.Contents.Created
	}
	slices.SortStableFunc(sources, func(a, b Source) int {
		return cmp.Or(created[a.bundle].Compare(created[b.bundle]), a.bundle.Compare(b.bundle))
	})
	return sources, nil
}

// An importing is an Import under way.
type importing struct {
	m  *Mirror
	o  ImportOptions
	in *incoming // of the volume that was read last

	commits *errgroup.Group // of the files of a volume
}

// An incoming is a bundle of which a volume was read.
type incoming struct {
	id        cache.Digest
	contents  *bundle.Contents
	site      []byte // keyring
	manifests map[cache.Digest]*cache.Manifest
	aside     map[string][]byte // small members by path
}

// volume takes in what a volume has.
func (im *importing) volume(ctx context.Context, s Source) error {
	r, err := bundle.NewReader(s.Reader, im.trust, im.m.now())
	if err != nil {
		return err
	}
	in := im.in
	if in == nil || in.id != r.Contents.ID() {
		in = &incoming{id: r.Contents.ID(), contents: r.Contents, site: r.Keyring, manifests: map[cache.Digest]*cache.Manifest{}, aside: map[string][]byte{}}
		if err := im.admit(in); err != nil {
			return err
		}
		if err := im.remember(r); err != nil {
			return err
		}
		im.in = in
	}
	taken := Taken{Name: s.Name, Bundle: in.id.String(), Of: in.contents.Volumes}
	im.commits = new(errgroup.Group)
	im.commits.SetLimit(committing)
	err = im.members(ctx, in, r, &taken)
	if failed := im.commits.Wait(); err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	if taken.Volume = r.Number(); im.o.Taken != nil {
		im.o.Taken(taken)
	}
	return nil
}

// members takes in all that a volume has.
func (im *importing) members(ctx context.Context, in *incoming, r *bundle.Reader, taken *Taken) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		member, data, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = im.member(ctx, in, r, member, data, taken)
		}
		if err != nil {
			return err
		}
	}
}

// trust returns the keys that may have signed a bundle: those that were imported to be trusted, and the one that the operator names now.
func (im *importing) trust(site *streams.Keyring) (*streams.Keyring, error) {
	ring, err := TrustedKeys(im.m.store.Files())
	if err != nil {
		return nil, err
	}
	for _, k := range site.Keys() {
		if k.Fingerprint == im.o.TrustFingerprint {
			key, err := site.Only(k.Fingerprint)
			if err != nil {
				return nil, err
			}
			ring = append(ring, key...)
		}
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("%w: no key is; %s", bundle.ErrForeign, howToTrust(site))
	}
	keyring, err := streams.ReadKeyring(ring)
	if err != nil {
		return nil, err
	}
	for _, k := range site.Keys() {
		for _, have := range keyring.Keys() {
			if have.Fingerprint == k.Fingerprint {
				return keyring, nil
			}
		}
	}
	return nil, fmt.Errorf("%w; %s", bundle.ErrForeign, howToTrust(site))
}

func howToTrust(site *streams.Keyring) string {
	k := site.Keys()[0]
	return fmt.Sprintf("it comes from %s (%s): if `oxbow key show` prints that fingerprint at the site that made it, give `--trust-fingerprint %s`, or `oxbow key import` its public key", k.UserID, k.Fingerprint, k.Fingerprint)
}

// remember trusts the key that the operator named for the bundles to come.
func (im *importing) remember(r *bundle.Reader) error {
	if r.Signer.Fingerprint != im.o.TrustFingerprint {
		return nil
	}
	key, err := r.Site.Only(r.Signer.Fingerprint)
	if err != nil {
		return err
	}
	return im.m.store.WriteKey("trusted/"+r.Signer.Fingerprint+".gpg", key)
}

// admit refuses a bundle that could not be published, before anything of it is taken in.
func (im *importing) admit(in *incoming) error {
	for _, s := range in.contents.Snapshots {
		st, err := readState(im.m.store.Files(), s.Stream)
		if errors.Is(err, ErrNoStream) {
			st = &state{}
		} else if err != nil {
			return err
		}
		switch {
		case st.Held != nil:
			return fmt.Errorf("stream %s is %w", s.Stream, errors.New(st.Held.warning(s.Stream)))
		case st.Imported == nil && st.Stream.Name != "" && !st.Stream.Offline:
			return fmt.Errorf("stream %s: %w, and would go on to be: `oxbow mirror drop %[1]s` before, or `offline: true` in its configuration", s.Stream, ErrNotImported)
		case st.Imported != nil && st.Imported.Site != in.contents.Site && in.contents.Site != im.o.TrustFingerprint:
			return fmt.Errorf("stream %s: %w: its bundles come from %s, and this one from %s; `--trust-fingerprint %[4]s` says that this is right", s.Stream, bundle.ErrForeign, st.Imported.Site, in.contents.Site)
		}
		if err := im.follows(st, s); err != nil {
			return err
		}
	}
	return nil
}

// follows refuses a snapshot that continues what is not here.
func (im *importing) follows(st *state, s bundle.Snapshot) error {
	if im.keeps(s.Stream, s.ID) || s.Since.IsZero() || im.keeps(s.Stream, s.Since) {
		return nil
	}
	have := "has nothing of it"
	if st.Imported != nil {
		have = fmt.Sprintf("has %.12s", st.Imported.Snapshot)
	}
	return fmt.Errorf("stream %s: %w: it continues snapshot %.12s, and this site %s; import the bundle that brings %[3]s, or give what `oxbow bundle have` prints here to `oxbow bundle export --have`", s.Stream, ErrGap, s.Since, have)
}

func (im *importing) keeps(stream string, id cache.Digest) bool {
	kept, err := im.m.store.Snapshots(stream)
	return err == nil && slices.ContainsFunc(kept, func(s cache.Snapshot) bool { return s.ID == id })
}

// member takes in one member.
func (im *importing) member(ctx context.Context, in *incoming, r *bundle.Reader, m bundle.Member, data io.Reader, taken *Taken) error {
	switch m.Kind() {
	case bundle.KindSnapshot:
		return in.manifest(m, data)
	case bundle.KindDocument:
		return im.document(ctx, m, data)
	case bundle.KindFile:
		return im.file(ctx, r, m, data, taken)
	case bundle.KindVolume:
		return im.expect(in)
	}
	text, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	in.aside[m.Path] = text
	return nil
}

// manifest reads the manifest of a snapshot, once.
func (in *incoming) manifest(m bundle.Member, data io.Reader) error {
	if in.manifests[m.Content()] != nil {
		return nil
	}
	text, err := bundle.Decompress(m, data, cache.MaxManifest)
	if err != nil {
		return err
	}
	man, err := cache.ParseManifest(text)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", bundle.ErrDamaged, m.Path, err)
	}
	if stream, _ := m.Stream(); man.Stream != stream {
		return fmt.Errorf("%w: %s is one of stream %q", bundle.ErrDamaged, m.Path, man.Stream)
	}
	in.manifests[m.Content()] = man
	return nil
}

func (im *importing) document(ctx context.Context, m bundle.Member, data io.Reader) error {
	if im.m.store.Has(m.Content()) {
		return nil
	}
	text, err := bundle.Decompress(m, data, streams.MaxDocument)
	if err != nil {
		return err
	}
	_, err = im.m.store.Put(ctx, text)
	return err
}

// committing is how many files are made durable while the next is read.
const committing = 2

// file takes in a file, whose content the store proves while the next one is read. One that is here is passed over.
func (im *importing) file(ctx context.Context, r *bundle.Reader, m bundle.Member, data io.Reader, taken *Taken) error {
	if im.m.store.Has(m.Digest) {
		r.Skip()
		return nil
	}
	r.Proven()
	in, err := im.m.store.Receive(ctx, cache.Want{SHA256: m.Digest, Size: m.Size}, data)
	if errors.Is(err, cache.ErrExists) {
		r.Skip()
		return nil
	}
	if err != nil {
		return err
	}
	taken.Files++
	taken.Bytes += m.Size
	im.commits.Go(func() error {
		defer in.Close()
		_, err := in.Commit(ctx)
		if errors.Is(err, cache.ErrCorrupt) {
			return fmt.Errorf("%w: %s: %w", bundle.ErrDamaged, m.Path, err)
		}
		return err
	})
	return nil
}

// expect has what comes of a bundle stay until the rest is there, once all its manifests were read.
func (im *importing) expect(in *incoming) error {
	for _, s := range in.contents.Snapshots {
		if in.manifests[s.ID] == nil {
			return fmt.Errorf("%w: it has no manifest of snapshot %v", bundle.ErrContents, s.ID)
		}
	}
	if err := in.complete(); err != nil {
		return err
	}
	var blobs []cache.Digest
	for _, man := range in.manifests {
		for _, e := range man.Entries {
			blobs = append(blobs, e.Digest)
		}
	}
	slices.SortFunc(blobs, cache.Digest.Compare)
	return im.m.store.Expect(in.id, slices.Compact(blobs))
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

// finish publishes what a bundle brings, if all of it is here.
func (im *importing) finish(ctx context.Context, in *incoming) (*BundleResult, error) {
	if err := im.m.store.Flush(ctx); err != nil {
		return nil, err
	}
	res := &BundleResult{Bundle: in.id.String(), Site: in.contents.Site, Created: in.contents.Created, Volumes: in.contents.Volumes}
	missing := map[int]*MissingVolume{}
	for _, m := range in.contents.Members {
		if m.Kind() != bundle.KindFile || im.m.store.Has(m.Digest) {
			continue
		}
		if missing[m.Volume] == nil {
			missing[m.Volume] = &MissingVolume{Volume: m.Volume}
		}
		missing[m.Volume].Files++
		missing[m.Volume].Bytes += m.Size
	}
	for _, n := range slices.Sorted(maps.Keys(missing)) {
		res.Missing = append(res.Missing, *missing[n])
	}
	if !res.Whole() {
		return res, nil
	}
	for _, n := range in.contents.Needs {
		if !im.m.store.Has(n.Digest) {
			return nil, fmt.Errorf("%w: it counts on a file of %d bytes that is not here (%v); `oxbow store check --repair`, or give what `oxbow bundle have` prints here to `oxbow bundle export --have`", ErrGap, n.Size, n.Digest)
		}
	}
	res.Published, res.Known = map[string]string{}, map[string]string{}
	for _, s := range in.contents.Snapshots {
		now, err := im.publish(ctx, in, s)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", s.Stream, err)
		}
		if now {
			res.Published[s.Stream] = s.ID.String()
		} else {
			res.Known[s.Stream] = s.ID.String()
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
	if im.keeps(s.Stream, s.ID) {
		return false, nil
	}
	man := in.manifests[s.ID]
	if err := im.vouched(man); err != nil {
		return false, err
	}
	st, err := im.define(in, s)
	if err != nil {
		return false, err
	}
	if st.Imported != nil && man.Created.Before(st.Imported.Created) {
		return false, fmt.Errorf("%w: it was made %s, and what came last %s", ErrOlder, man.Created.Format(time.RFC3339), st.Imported.Created.Format(time.RFC3339))
	}
	over := cache.Digest{}
	if now, err := im.m.store.Current(s.Stream); err == nil {
		over = now.ID
	} else if !errors.Is(err, cache.ErrNoSnapshot) {
		return false, err
	}
	if _, err := im.m.store.PublishOver(ctx, over, man); err != nil {
		return false, err
	}
	return true, im.m.update(s.Stream, func(st *state) {
		st.Imported = im.imported(in, s, man)
		st.Accepted.Index = im.upstreamIndex(man)
		st.Last = &Last{Time: im.m.now().UTC().Truncate(time.Second), Outcome: OutcomeDone}
	})
}

func (im *importing) imported(in *incoming, s bundle.Snapshot, man *cache.Manifest) *Imported {
	rec := &Imported{Site: in.contents.Site, Snapshot: s.ID.String(), Created: man.Created, Bundle: in.id.String(),
		Time: im.m.now().UTC().Truncate(time.Second), Signers: in.aside[bundle.SiteKeysPath(s.Stream)]}
	for n := 1; in.aside[bundle.HandoverPath(s.Stream, n)] != nil; n++ {
		rec.Handovers = append(rec.Handovers, string(in.aside[bundle.HandoverPath(s.Stream, n)]))
	}
	return rec
}

// upstreamIndex returns the date that upstream's index of a snapshot gives itself; zero if that cannot be told. How old it is shows how
// old the images are, however new the bundle is.
func (im *importing) upstreamIndex(man *cache.Manifest) time.Time {
	for _, e := range man.Entries {
		if e.Kind != cache.KindUpstream {
			continue
		}
		data, err := readEntry(im.m.store.Files(), e)
		if err != nil {
			continue
		}
		text, err := textOf(data)
		if err != nil {
			continue
		}
		if x, err := streams.ParseIndex(text); err == nil {
			at, _ := streams.ParseTime(x.Updated)
			return at
		}
	}
	return time.Time{}
}

// define records what a stream is, if that is not known yet.
func (im *importing) define(in *incoming, s bundle.Snapshot) (*state, error) {
	st, err := readState(im.m.store.Files(), s.Stream)
	if err == nil || !errors.Is(err, ErrNoStream) {
		return st, err
	}
	var d Description
	if err := json.Unmarshal(in.aside[bundle.StreamPath(s.Stream)], &d); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", bundle.ErrDamaged, bundle.StreamPath(s.Stream), err)
	}
	def := Stream{Name: s.Stream, Upstream: d.Upstream, Path: d.Path, Also: d.Also, Kind: d.Kind, Profile: d.Profile,
		AllowUnsigned: d.Unsigned, Keyring: in.aside[bundle.UpstreamKeysPath(s.Stream)], Offline: true}
	if err := im.m.Define(def); err != nil {
		return nil, err
	}
	return readState(im.m.store.Files(), s.Stream)
}

// vouched refuses a snapshot of which something is not vouched for by the keyring that was given.
func (im *importing) vouched(man *cache.Manifest) error {
	if im.o.Keyring == nil {
		return nil
	}
	c, err := TraceCustody(im.m.store.Files(), man, Stream{Name: man.Stream, Keyring: im.o.Keyring}, im.m.now())
	if err != nil {
		return err
	}
	if len(c.Faults) > 0 {
		return fmt.Errorf("%w: %s", ErrVouched, c.Faults[0])
	}
	return nil
}

// TrustedKeys returns the keys that may sign bundles, a binary keyring.
func TrustedKeys(f *cache.Files) ([]byte, error) {
	names, err := f.TrustedKeys()
	if err != nil {
		return nil, err
	}
	var ring []byte
	for _, name := range names {
		key, err := f.ReadKey("trusted/" + name)
		if err != nil {
			return nil, err
		}
		ring = append(ring, key...)
	}
	return ring, nil
}

// TrustKeys has bundles be trusted that one of the public keys signed, armored or binary.
func (m *Mirror) TrustKeys(public []byte) ([]streams.KeyInfo, error) {
	ring, err := streams.ReadKeyring(public)
	if err != nil {
		return nil, err
	}
	for _, k := range ring.Keys() {
		key, err := ring.Only(k.Fingerprint)
		if err == nil {
			err = m.store.WriteKey("trusted/"+k.Fingerprint+".gpg", key)
		}
		if err != nil {
			return nil, err
		}
	}
	return ring.Keys(), nil
}
