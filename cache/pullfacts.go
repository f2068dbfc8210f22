package cache

import (
	"context"
	"encoding/binary"
	"time"
)

// A pullState says how sure it is that a pulled blob may be evicted.
type pullState byte

const (
	pullKept    pullState = iota // it may be
	pullNamed                    // a publication was about to name it: whether it did, the manifests tell
	pullLeaving                  // it is being evicted: its file is waste
)

// pullFacts is what the index says of a pulled blob. A blob that is pulled but has no blobFacts is not proven: nobody is served
// with it before [Store.BeginPull] has read it.
type pullFacts struct {
	State pullState
	Size  int64
	Used  time.Time
}

func pullKey(d Digest) []byte { return append([]byte{prefixPull}, d[:]...) }

func (f pullFacts) encode() []byte {
	b := binary.AppendUvarint([]byte{byte(f.State)}, uint64(f.Size))
	return binary.AppendVarint(b, f.Used.UnixNano())
}

func decodePull(b []byte) (f pullFacts, err error) {
	if len(b) == 0 || b[0] > byte(pullLeaving) {
		return pullFacts{}, errIndexValue
	}
	f.State, b = pullState(b[0]), b[1:]
	size, n := binary.Uvarint(b)
	if n <= 0 || int64(size) < 0 {
		return pullFacts{}, errIndexValue
	}
	used, m := binary.Varint(b[n:])
	if m <= 0 || n+m != len(b) {
		return pullFacts{}, errIndexValue
	}
	f.Size, f.Used = int64(size), time.Unix(0, used)
	return f, nil
}

// pulls returns the pulled blobs.
func (x *index) pulls(ctx context.Context) (map[Digest]pullFacts, error) {
	all := make(map[Digest]pullFacts)
	err := x.scan(ctx, []byte{prefixPull}, true, func(key, value []byte) error {
		f, err := decodePull(value)
		if err != nil || len(key) != 1+len(Digest{}) {
			return errIndexValue
		}
		all[Digest(key[1:])] = f
		return nil
	})
	return all, err
}

// setPulls makes blobs pulled, or changes what is known of them.
func (x *index) setPulls(pulls map[Digest]pullFacts) error { return x.putPulled(nil, pulls) }

// putPulled is putBlobs for blobs of which some are pulled. These are noted as such first: a crash between the two leaves them
// in the account.
func (x *index) putPulled(blobs map[Digest]blobFacts, pulls map[Digest]pullFacts) error {
	x.changing.RLock()
	defer x.changing.RUnlock()
	return x.write(func(b *batch) error {
		for d, facts := range pulls {
			if err := b.set(pullKey(d), facts.encode()); err != nil {
				return err
			}
		}
		for d, facts := range blobs {
			if err := b.set(blobKey(d), facts.encode()); err != nil {
				return err
			}
		}
		return nil
	})
}

// leave makes blobs unknown as dropBlobs does. For those that are pulled it notes before, as pulls says, that their files
// are to go.
func (x *index) leave(pulls map[Digest]pullFacts, blobs ...Digest) error {
	x.changing.RLock()
	defer x.changing.RUnlock()
	return x.write(func(b *batch) error {
		for d, facts := range pulls {
			if err := b.mark(pullKey(d), facts.encode()); err != nil {
				return err
			}
		}
		for _, d := range blobs {
			if err := b.delete(blobKey(d)); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropPulls makes blobs no longer pulled.
func (x *index) dropPulls(blobs ...Digest) error {
	x.changing.RLock()
	defer x.changing.RUnlock()
	return x.write(func(b *batch) error {
		for _, d := range blobs {
			if err := b.delete(pullKey(d)); err != nil {
				return err
			}
		}
		return nil
	})
}
