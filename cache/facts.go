package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// blobFacts is what is known of a blob beside its digest.
type blobFacts struct {
	Size int64

	// XXH64 is the fingerprint of the content as it was read by the same
	// reading that proved the digest, at the time Proven. After a rebuild
	// Proven is zero, and there is no fingerprint until the next check.
	XXH64  uint64
	Proven time.Time
}

func blobKey(d Digest) []byte { return append([]byte{prefixBlob}, d[:]...) }

func (f blobFacts) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(f.Size))
	if f.Proven.IsZero() {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, f.XXH64)
	return binary.AppendVarint(b, f.Proven.Unix())
}

var errIndexValue = errors.New("malformed value in the index")

func decodeFacts(b []byte) (f blobFacts, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || int64(size) < 0 {
		return blobFacts{}, errIndexValue
	}
	f.Size = int64(size)
	if b = b[n:]; len(b) == 0 {
		return f, nil
	}
	if len(b) < 9 {
		return blobFacts{}, errIndexValue
	}
	f.XXH64 = binary.BigEndian.Uint64(b)
	proven, n := binary.Varint(b[8:])
	if n != len(b)-8 {
		return blobFacts{}, errIndexValue
	}
	f.Proven = time.Unix(proven, 0).UTC()
	return f, nil
}

// blob returns what is known of the blob d; ErrMiss if there is no such blob.
func (x *index) blob(d Digest) (blobFacts, error) {
	value, err := x.get(blobKey(d))
	if err != nil {
		return blobFacts{}, err
	}
	return decodeFacts(value)
}

// putBlobs makes blobs known, durably. They must be durable themselves.
func (x *index) putBlobs(blobs map[Digest]blobFacts) error {
	return x.putPulled(blobs, nil)
}

// dropBlob makes a blob unknown, durably. It costs a write only if the blob was known.
func (x *index) dropBlob(d Digest) error {
	x.changing.RLock()
	defer x.changing.RUnlock()
	if _, err := x.blob(d); errors.Is(err, ErrMiss) {
		return nil
	}
	return x.write(func(b *batch) error { return b.delete(blobKey(d)) })
}

// dropBlobs makes blobs unknown, durably.
func (x *index) dropBlobs(blobs ...Digest) error { return x.leave(nil, blobs...) }

func noteKey(key string) []byte { return append([]byte{prefixNote}, key...) }

// note returns ErrMiss if there is none.
func (x *index) note(key string) ([]byte, error) { return x.get(noteKey(key)) }

// setNote replaces a note; a nil value removes it.
func (x *index) setNote(key string, value []byte) error {
	return x.setNotes(map[string][]byte{key: value})
}

// setNotes is setNote for many at the price of one.
func (x *index) setNotes(notes map[string][]byte) error {
	x.changing.RLock()
	defer x.changing.RUnlock()
	return x.write(func(b *batch) error {
		for key, value := range notes {
			if err := b.setNote(key, value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *batch) setNote(key string, value []byte) error {
	if value == nil {
		return b.delete(noteKey(key))
	}
	if len(value) > maxNote {
		return fmt.Errorf("cannot note %q: %d bytes are more than %d", key, len(value), maxNote)
	}
	return b.set(noteKey(key), value)
}
