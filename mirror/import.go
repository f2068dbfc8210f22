package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"oxbow/cache"
	"oxbow/mirror/bundle"
)

// ImportOptions are the wishes of one [Mirror.Import].
type ImportOptions struct {
	// TrustFingerprint is that of a key which may sign bundles from now on, and which comes with them.
	TrustFingerprint string

	// Keyring, if not nil, holds the keys that upstream signs with: everything that a bundle brings has to be vouched for by a
	// document that one of them signed.
	Keyring []byte

	// AllowOlder accepts what is older than what is here.
	AllowOlder bool

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
	There     map[string]string `json:"there,omitempty"`     // those that came before
	Current   map[string]string `json:"current,omitempty"`   // the current ones of the streams of which something else came before
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

// A Volume is a volume of a bundle, to be read from its beginning to its end.
type Volume struct {
	Name   string    // for reports: that of its file
	Reader io.Reader // an [io.Seeker] too, if several are imported at once
}

var (
	// ErrGap: a bundle continues what this site does not have. Import what brings that, or have a bundle made for what is here.
	ErrGap = errors.New("a bundle is missing before this one")

	// ErrOlder: what a bundle brings is older than what is here.
	ErrOlder = errors.New("older than what is here")

	// ErrVouched: what a bundle brings is not vouched for by upstream's signature.
	ErrVouched = errors.New("not vouched for by upstream")

	// ErrUnfit: clients could not read what a bundle brings, or not believe it, or it cannot be served.
	ErrUnfit = errors.New("not fit for clients")

	// ErrNotImported: a stream of that name does not come by bundles here.
	ErrNotImported = errors.New("the stream is synced from its upstream here")
)

// Import reads volumes of bundles, in any order, and makes the snapshots of each bundle current of which all is here by then. What
// was read stays until the rest comes; nothing of it is served before. Of several bundles the older one comes first. A volume that is
// damaged costs no other: all are read, and the error names those.
//
// What clients will read is proven as soon as the metadata of a volume was read, before any file of it, and so is what else metadata
// tells; and once more as it is published.
//
// Errors are those of package bundle, ErrGap, ErrOlder, ErrVouched, ErrUnfit, ErrNotImported, and the store's. What came before the
// error is kept; of a bundle that is refused, only if files of it came by an import before.
func (m *Mirror) Import(ctx context.Context, volumes []Volume, o ImportOptions) ([]*BundleResult, error) {
	results, err := m.importAll(ctx, volumes, o)
	if ctx.Err() != nil {
		return results, context.Cause(ctx)
	}
	for _, refused := range []error{bundle.ErrForeign, bundle.ErrDamaged, bundle.ErrContents, bundle.ErrNotBundle, ErrGap, ErrOlder, ErrVouched, ErrUnfit} {
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

// A damagedVolumes names all volumes that are damaged.
type damagedVolumes []error

func (d damagedVolumes) Error() string {
	return fmt.Sprintf("%v; carry it anew: what the others brought is kept", errors.Join(d...))
}

func (d damagedVolumes) Unwrap() []error { return d }

func (m *Mirror) importAll(ctx context.Context, volumes []Volume, o ImportOptions) (results []*BundleResult, err error) {
	im := &importing{m: m, o: o, lease: m.store.Lease()}
	defer im.end()
	ordered, err := im.inOrder(volumes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.store.Flush(context.WithoutCancel(ctx))) }() // what came is kept
	for i, v := range ordered {
		err := im.volume(ctx, v.Volume)
		if err != nil {
			err = fmt.Errorf("cannot import %s: %w", v.Name, err)
		}
		if errors.Is(err, bundle.ErrDamaged) && im.in != nil {
			im.damaged = append(im.damaged, err)
		} else if err != nil {
			return results, im.beside(err)
		}
		if i+1 < len(ordered) && ordered[i+1].bundle == im.in.id {
			continue // more of the same
		}
		res, err := im.finish(ctx, im.in)
		if err != nil {
			return results, im.beside(fmt.Errorf("cannot publish bundle %.12s: %w", im.in.id, im.withdrawn(im.in, err)))
		}
		results = append(results, res)
	}
	return results, im.beside(nil)
}

// beside returns an error together with that of the volumes that are damaged.
func (im *importing) beside(err error) error {
	if len(im.damaged) == 0 {
		return err
	}
	return errors.Join(im.damaged, err)
}

// An importing is an Import under way.
type importing struct {
	m  *Mirror
	o  ImportOptions
	in *incoming // of the volume that was read last

	damaged damagedVolumes
	lease   *cache.Lease // on all that the bundles bring and need

	commits *errgroup.Group // of the files of a volume
	ended   []func()        // to be called at the end, of each bundle
}

func (im *importing) end() {
	im.lease.Release()
	for _, end := range im.ended {
		end()
	}
}

// An incoming is a bundle of which a volume was read.
type incoming struct {
	id        cache.Digest
	contents  *bundle.Contents
	manifests map[cache.Digest]*cache.Manifest
	text      int64             // bytes of the manifests
	aside     map[string][]byte // small members by path
	signers   map[string][]byte // binary keyrings of those who sign what clients read, by stream
	proven    bool              // the metadata
	earlier   bool              // files of it came by an import before, and are kept
}

// state returns what there is of a stream; an empty state, if nothing is. One of which the first snapshot never was published by a
// bundle does not come by bundles yet.
func (im *importing) state(stream string) (*state, error) {
	st, err := readState(im.m.store.Files(), stream)
	if errors.Is(err, ErrNoStream) {
		return &state{}, nil
	}
	if err == nil && !st.comes(im.m.store.Files()) {
		st.Imported = nil
	}
	return st, err
}

func (im *importing) keeps(stream string, id cache.Digest) bool {
	kept, err := im.m.store.Snapshots(stream)
	return err == nil && slices.ContainsFunc(kept, func(s cache.Snapshot) bool { return s.ID == id })
}
