package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"

	"oxbow/cache"
)

// ErrNoCustody: a snapshot has no custody that could be handed on. Its documents are upstream's own, or what it takes is not here, such
// as a key to sign with, or it would be longer than MaxCustody.
var ErrNoCustody = errors.New("no custody to hand on")

// A Custodian makes the custody volumes of a store's snapshots, for the sites that sync from this one. Those that were asked for last
// stay in memory, MaxCustody bytes of them. Its methods may be called from several goroutines.
type Custodian struct {
	files  *cache.Files
	madeBy string
	limit  int64 // of the recent ones, in bytes

	making singleflight.Group
	turn   sync.Mutex // held while one is made: so that many at once do not take the memory of all

	mu     sync.Mutex     // guards the rest
	recent []recentVolume // the one that was asked for last comes first
}

// A CustodyVolume is the custody of a snapshot, to be handed on: a bundle of one volume without files, of up to MaxCustody bytes.
type CustodyVolume struct {
	Bytes  []byte // which nobody changes
	Digest cache.Digest
}

// A recentVolume is one that stays in memory.
type recentVolume struct {
	of string // its ingredients
	*CustodyVolume
}

// NewCustodian returns one that signs as the program madeBy, such as "oxbow 1.2.0".
func NewCustodian(f *cache.Files, madeBy string) *Custodian {
	return &Custodian{files: f, madeBy: madeBy, limit: MaxCustody}
}

// Offers reports whether snapshots with documents of the site's own have a custody: there is a key to sign it with. It reads one file.
func (c *Custodian) Offers() bool {
	_, err := c.files.ReadKey(siteKey)
	return err == nil
}

// Volume returns the custody volume of a kept snapshot. However many ask for it at once, it is made once, and also if they go away.
// The error is ErrNoCustody or cache.ErrNoSnapshot where there is none.
func (c *Custodian) Volume(ctx context.Context, stream string, id cache.Digest) (*CustodyVolume, error) {
	of, err := c.ingredients(stream, id)
	if err != nil {
		return nil, err
	}
	if v := c.recall(of); v != nil {
		return v, nil
	}
	made := c.making.DoChan(of, func() (any, error) {
		c.turn.Lock()
		defer c.turn.Unlock()
		if v := c.recall(of); v != nil {
			return v, nil
		}
		v, err := c.make(context.WithoutCancel(ctx), stream, id)
		if err != nil {
			return nil, err
		}
		c.remember(recentVolume{of, v})
		return v, nil
	})
	select {
	case res := <-made:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*CustodyVolume), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ingredients names all that a volume is made of: the same ingredients give the same bytes.
func (c *Custodian) ingredients(stream string, id cache.Digest) (string, error) {
	key, err := SiteKey(c.files)
	if errors.Is(err, cache.ErrMiss) {
		return "", fmt.Errorf("%w: the site has no key to sign it with", ErrNoCustody)
	}
	if err != nil {
		return "", err
	}
	st, err := readState(c.files, stream)
	if err != nil {
		return "", err
	}
	own, err := ownKeyring(c.files)
	if err != nil {
		return "", err
	}
	upstream, err := st.Stream.Keys()
	if err != nil {
		return "", fmt.Errorf("%w: upstream's keys have to go with it: %w", ErrNoCustody, err)
	}
	parts, err := json.Marshal([]any{stream, id, key.Fingerprint(), own, upstream, st.Stream, st.Imported})
	return cache.Sum(parts).String(), err
}

// make makes a volume, which takes as much memory as it has bytes.
func (c *Custodian) make(ctx context.Context, stream string, id cache.Digest) (*CustodyVolume, error) {
	man, err := c.files.Manifest(stream, id)
	if err != nil {
		return nil, err
	}
	if shownKind(man) != cache.KindSite {
		return nil, fmt.Errorf("%w: clients of the snapshot read upstream's own documents", ErrNoCustody)
	}
	snap := cache.Snapshot{Stream: stream, ID: id, Created: man.Created, Reason: man.Reason}
	e, err := PlanExport(ctx, c.files, ExportOptions{Snapshots: []cache.Snapshot{snap}, NoFiles: true, MadeBy: c.madeBy})
	if err != nil {
		return nil, err
	}
	size := e.Volume(1).Size()
	if size > MaxCustody {
		return nil, fmt.Errorf("%w: it would have %d bytes, more than %d", ErrNoCustody, size, MaxCustody)
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	if err := e.Write(ctx, b, 1, 0); err != nil {
		return nil, err
	}
	return &CustodyVolume{b.Bytes(), cache.Sum(b.Bytes())}, nil
}

// recall returns a recent volume; nil: it is none.
func (c *Custodian) recall(of string) *CustodyVolume {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.recent, func(v recentVolume) bool { return v.of == of })
	if i < 0 {
		return nil
	}
	v := c.recent[i]
	c.recent = slices.Insert(slices.Delete(c.recent, i, i+1), 0, v)
	return v.CustodyVolume
}

// remember keeps a volume in memory, and lets go of those that were not asked for for the longest.
func (c *Custodian) remember(v recentVolume) {
	c.mu.Lock()
	defer c.mu.Unlock()
	recent := []recentVolume{v}
	left := c.limit - int64(len(v.Bytes))
	for _, other := range c.recent {
		if left -= int64(len(other.Bytes)); left >= 0 {
			recent = append(recent, other)
		}
	}
	c.recent = recent
}
