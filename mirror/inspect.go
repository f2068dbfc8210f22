package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// InspectOptions are the wishes of one [InspectBundle].
type InspectOptions struct {
	// Files has every byte of the volumes be read and proven. Otherwise files are passed over.
	Files bool

	// TrustFingerprint, if not empty, is the key that has to have signed the bundle. Otherwise the key that comes with it counts, and
	// whose that is the reader has to judge.
	TrustFingerprint string

	// Keyring, if not nil, holds the keys of upstream that count. Otherwise those that come with the bundle do.
	Keyring []byte
}

// An Inspection is what a bundle has, and who vouches for it: from upstream's signature over each image to the site that handed it
// over last.
type Inspection struct {
	Bundle   string             `json:"bundle"`
	Format   string             `json:"format"`
	MadeBy   string             `json:"made_by"`
	Created  time.Time          `json:"created"`
	Site     Signature          `json:"site"`
	Trusted  bool               `json:"trusted"` // the key is the one that was asked for
	Volumes  int                `json:"volumes"`
	Needs    Amount             `json:"needs"` // what has to be there already
	Read     []InspectedVolume  `json:"read"`
	Streams  []*InspectedStream `json:"streams"`
	Faults   []string           `json:"faults"`
	contents *bundle.Contents
}

// An InspectedVolume is a volume that was read.
type InspectedVolume struct {
	Name   string `json:"name"`
	Volume int    `json:"volume"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"` // of these
	Proven bool   `json:"proven"`
}

// An InspectedStream is a snapshot that the bundle brings.
type InspectedStream struct {
	Stream    string          `json:"stream"`
	Snapshot  string          `json:"snapshot"`
	Since     string          `json:"since,omitempty"`
	Created   time.Time       `json:"created"`
	Reason    string          `json:"reason"`
	Lists     []PlannedList   `json:"lists"`
	Files     int             `json:"files"` // that the snapshot has, those that are there already among them
	Bytes     int64           `json:"bytes"` // of these
	Custody   *Custody        `json:"custody"`
	Given     bool            `json:"upstream_keys_given"` // upstream's keys were given; otherwise they came with the bundle
	Handovers []*HandoverView `json:"handovers"`
}

// InspectBundle reads volumes of one bundle and says what it finds. It needs no store. What is not as it should be is a fault; the
// error says that there is no telling: the first volume is none, or is signed by nobody who counts.
func InspectBundle(ctx context.Context, volumes []Volume, o InspectOptions) (*Inspection, error) {
	in := &inspecting{newBundleMetadata(cache.MaxManifest), o, &Inspection{Faults: []string{}, Streams: []*InspectedStream{}, Read: []InspectedVolume{}}}
	for n, v := range volumes {
		err := in.volume(ctx, v)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && n == 0 && in.res.contents == nil {
			return nil, fmt.Errorf("cannot read %s: %w", v.Name, unverified{err})
		}
		if err != nil {
			in.fault("%s: %v", v.Name, err)
		}
	}
	for _, s := range in.res.contents.Snapshots {
		if err := in.stream(ctx, s); err != nil {
			in.fault("stream %s: %v", s.Stream, err)
		}
	}
	return in.res, nil
}

// InspectBundles is InspectBundle for volumes of several bundles, the older bundle first. The volumes have to be files then. One that
// begins like no bundle is a fault of the first.
func InspectBundles(ctx context.Context, volumes []Volume, o InspectOptions) ([]*Inspection, error) {
	if len(volumes) == 1 {
		i, err := InspectBundle(ctx, volumes, o)
		if err != nil {
			return nil, err
		}
		return []*Inspection{i}, nil
	}
	trust := (&inspecting{o: o}).trust
	byBundle := map[cache.Digest][]Volume{}
	created := map[cache.Digest]time.Time{}
	var odd []error
	for _, v := range volumes {
		r, err := bundle.NewReader(v.Reader, trust, time.Now())
		if seeker, ok := v.Reader.(io.Seeker); ok && err == nil {
			_, err = seeker.Seek(0, io.SeekStart)
		}
		if err != nil {
			odd = append(odd, fmt.Errorf("cannot read %s: %w", v.Name, err))
			continue
		}
		id := r.Contents.ID()
		byBundle[id], created[id] = append(byBundle[id], v), r.Contents.Created
	}
	if len(byBundle) == 0 {
		return nil, unverified{errors.Join(odd...)}
	}
	var all []*Inspection
	for _, id := range slices.SortedFunc(maps.Keys(byBundle), func(a, b cache.Digest) int { return cmp.Or(created[a].Compare(created[b]), a.Compare(b)) }) {
		i, err := InspectBundle(ctx, byBundle[id], o)
		if err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	for _, err := range odd {
		all[0].Faults = append(all[0].Faults, err.Error())
	}
	return all, nil
}

// Missing returns the volumes that were not read.
func (i *Inspection) Missing() (missing []int) {
	for n := 1; n <= i.Volumes; n++ {
		if !slices.ContainsFunc(i.Read, func(v InspectedVolume) bool { return v.Volume == n }) {
			missing = append(missing, n)
		}
	}
	return missing
}

// An inspecting is an inspection under way.
type inspecting struct {
	*bundleMetadata
	o   InspectOptions
	res *Inspection
}

func (in *inspecting) fault(format string, args ...any) {
	in.res.Faults = append(in.res.Faults, fmt.Sprintf(format, args...))
}

func (in *inspecting) trust(site *streams.Keyring) (*streams.Keyring, error) {
	if in.o.TrustFingerprint == "" {
		return site, nil
	}
	key, err := site.Only(in.o.TrustFingerprint)
	if err != nil {
		return nil, fmt.Errorf("%w: it comes from %s, not from %s", bundle.ErrForeign, site.Keys()[0].Fingerprint, in.o.TrustFingerprint)
	}
	return streams.ReadKeyring(key)
}

// volume reads a volume.
func (in *inspecting) volume(ctx context.Context, from Volume) error {
	r, err := bundle.NewReader(from.Reader, in.trust, time.Now())
	if err != nil {
		return err
	}
	if err := in.begin(r); err != nil {
		return err
	}
	v := InspectedVolume{Name: from.Name, Proven: in.o.Files}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, data, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = in.member(r, m, data, &v)
		}
		if err != nil {
			return err
		}
	}
	v.Volume = r.Number()
	in.res.Read = append(in.res.Read, v)
	return nil
}

// begin takes down what the table of contents says.
func (in *inspecting) begin(r *bundle.Reader) error {
	c := r.Contents
	if in.res.contents != nil {
		if c.ID() != in.res.contents.ID() {
			return fmt.Errorf("it is of bundle %.12s, not %.12s", c.ID(), in.res.contents.ID())
		}
		return nil
	}
	in.members[bundle.SitePath()] = r.Keyring
	in.res.contents, in.res.Bundle, in.res.MadeBy, in.res.Created, in.res.Volumes = c, c.ID().String(), c.MadeBy, c.Created, c.Volumes
	in.res.Site = Signature{Fingerprint: r.Signer.Fingerprint, UserID: r.Signer.SignedBy, Date: r.Signer.Created}
	in.res.Trusted = in.o.TrustFingerprint != ""
	for _, n := range c.Needs {
		in.res.Needs.add(n.Size)
	}
	return nil
}

// member reads a member, or passes it over.
func (in *inspecting) member(r *bundle.Reader, m bundle.Member, data io.Reader, v *InspectedVolume) error {
	if m.Kind() == bundle.KindFile {
		v.Files++
		v.Bytes += m.Size
		if !in.o.Files {
			r.Skip()
			return nil
		}
		_, err := io.Copy(io.Discard, data)
		return err
	}
	return in.add(m, data)
}

// Prove fails: files of which upstream gives no SHA-256 are not held.
func (in *inspecting) Prove(d cache.Digest, _ cache.Want) error {
	return fmt.Errorf("upstream gives no SHA-256 of %v, and a bundle is not searched for it", d)
}

// stream says what there is to say of a stream.
func (in *inspecting) stream(ctx context.Context, s bundle.Snapshot) error {
	man := in.manifests[s.ID]
	if man == nil {
		return errors.New("its manifest was not read")
	}
	out := &InspectedStream{Stream: s.Stream, Snapshot: s.ID.String(), Created: man.Created, Reason: man.Reason, Given: in.o.Keyring != nil}
	in.res.Streams = append(in.res.Streams, out)
	if !s.Since.IsZero() {
		out.Since = s.Since.String()
	}
	seen := map[cache.Digest]bool{}
	for _, e := range man.Entries {
		if e.Kind == cache.KindItem && !seen[e.Digest] {
			seen[e.Digest] = true
			out.Files++
			out.Bytes += e.Size
		}
	}
	if err := in.shown(ctx, s, man); err != nil {
		return err
	}
	lists, err := shownLists(in, man)
	if err != nil {
		return err
	}
	shown := Plan{lists: lists}
	shown.count()
	out.Lists = shown.Lists
	along := in.members[bundle.UpstreamKeysPath(s.Stream)]
	keys := in.o.Keyring
	if keys == nil {
		keys = along
	}
	if len(keys) == 0 {
		in.fault("stream %s: no keys of upstream came with it, so nothing vouches for it but the site", s.Stream)
	} else {
		if out.Custody, err = traceCustody(in, man, tracedBy{stream: Stream{Name: s.Stream, Keyring: keys}, given: out.Given, along: along}, time.Now()); err != nil {
			return err
		}
		for _, f := range out.Custody.Faults {
			in.fault("stream %s: %s", s.Stream, f)
		}
	}
	out.Handovers, err = in.handovers(s)
	return err
}

// shown looks for what an import would refuse, by the keys that came with the bundle: those are what clients are given.
func (in *inspecting) shown(ctx context.Context, s bundle.Snapshot, man *cache.Manifest) error {
	def, err := definition(s.Stream, in.members)
	if err != nil {
		return err
	}
	t, err := shownTrust(man, def, in.members[bundle.SiteKeysPath(s.Stream)])
	if err != nil {
		return fmt.Errorf("%s: %w", bundle.SiteKeysPath(s.Stream), err)
	}
	faults, err := shownFaults(ctx, withoutFiles{in}, man, t, time.Now())
	for _, f := range faults {
		in.fault("stream %s: %s", s.Stream, f)
	}
	return err
}
