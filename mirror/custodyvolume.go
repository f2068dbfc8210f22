package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// A custody volume is a bundle of one snapshot that brings no file: its documents, upstream's keys, and who handed it over, signed by
// the site that has the snapshot. A site that syncs from that one keeps it among its evidence, byte for byte.

// MaxCustody bounds a custody volume in bytes, since it is held in memory. The whole of images.maas.io has less than a tenth of that.
const MaxCustody = streams.MaxDocument

// maxCustodyText bounds what the documents of custody volumes have in bytes once they are decompressed, all together.
const maxCustodyText = 256 << 20

// custodyDir is where custody volumes are among the evidence of a manifest. Documents are in folders named by 16 digits.
const custodyDir = "custody/"

func custodyPath(d cache.Digest) string { return custodyDir + d.String()[:16] + ".tar" }

// isCustody reports whether an entry is a custody volume, and no document of upstream's.
func isCustody(e cache.Entry) bool {
	return e.Kind == cache.KindEvidence && strings.HasPrefix(e.Path, custodyDir)
}

// An openedCustody is one that was read. Its documents are proven as they are asked for.
type openedCustody struct {
	*bundleMetadata
	contents  *bundle.Contents
	signer    *streams.Signed
	snapshot  bundle.Snapshot
	manifest  *cache.Manifest
	handovers []*HandoverView // by the signer last
}

// errNotCustody: it is a bundle, and no custody volume.
var errNotCustody = errors.New("it is no custody volume: a bundle of one snapshot without files, that its maker hands over")

// openCustody reads a custody volume that one of the keys which trust returns has signed. Its manifest has up to room bytes, which it
// takes off that, with an error too.
func openCustody(data []byte, room *int64, trust bundle.Trust, now time.Time) (*openedCustody, error) {
	r, err := bundle.NewReader(bytes.NewReader(data), trust, now)
	if err != nil {
		return nil, err
	}
	c := r.Contents
	files, _ := c.Files()
	if len(c.Snapshots) != 1 || c.Volumes != 1 || files > 0 || !c.Snapshots[0].Since.IsZero() {
		return nil, errNotCustody
	}
	v := &openedCustody{bundleMetadata: newBundleMetadata(*room), contents: c, signer: r.Signer, snapshot: c.Snapshots[0]}
	v.members[bundle.SitePath()] = r.Keyring
	defer func() { *room -= v.text }()
	for {
		m, member, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = v.add(m, member)
		}
		if err != nil {
			return nil, err
		}
	}
	if v.manifest = v.manifests[v.snapshot.ID]; v.manifest == nil || v.manifest.Stream != v.snapshot.Stream {
		return nil, fmt.Errorf("%w: it has no manifest of snapshot %v", bundle.ErrContents, v.snapshot.ID)
	}
	if v.handovers, err = v.bundleMetadata.handovers(v.snapshot); err != nil {
		return nil, err
	}
	if n := len(v.handovers); n == 0 || !v.handovers[n-1].Proven || v.handovers[n-1].Site != v.signer.Fingerprint {
		return nil, errNotCustody
	}
	return v, nil
}

// about returns the digests of the documents of which the volume has the custody: those that clients of the site are served.
func (v *openedCustody) about() map[cache.Digest]bool {
	about := map[cache.Digest]bool{}
	for _, e := range v.manifest.Entries {
		if e.Kind == cache.KindSite {
			about[e.Digest] = true
		}
	}
	return about
}

// prove reports a document that the manifest names and the volume does not have as it should be.
func (v *openedCustody) prove() error {
	left := int64(maxCustodyText)
	for _, e := range v.manifest.Entries {
		if e.Kind == cache.KindItem || e.Kind == cache.KindKnown {
			continue
		}
		data, err := v.ReadFile(e.Digest, min(left, streams.MaxDocument))
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		if int64(len(data)) != e.Size {
			return fmt.Errorf("%w: %s has %d bytes, and its manifest says %d", bundle.ErrDamaged, e.Path, len(data), e.Size)
		}
		left -= e.Size
	}
	return nil
}

// expired reports whether the key that signed the volume has expired by a time, long after it did.
func (v *openedCustody) expired(now time.Time) bool {
	ring, err := streams.ReadKeyring(v.members[bundle.SitePath()])
	return err == nil && slices.ContainsFunc(ring.Keys(), func(k streams.KeyInfo) bool {
		return k.Fingerprint == v.signer.Fingerprint && !k.Expires.IsZero() && k.Expires.Before(now)
	})
}

// A keptVolume is a custody volume that a snapshot has, or gets.
type keptVolume struct {
	cache.Entry
	about   map[cache.Digest]bool
	created time.Time // the snapshot of which it is
}

func newKeptVolume(e cache.Entry, v *openedCustody) keptVolume {
	return keptVolume{e, v.about(), v.manifest.Created}
}

// covers reports whether the volume is about all of upstream's documents, but for unsigned forms of these.
func (v keptVolume) covers(c *catalog) bool {
	return v.about[c.indexDoc.digest] && !slices.ContainsFunc(c.lists, func(li list) bool { return !v.about[li.digest] })
}
