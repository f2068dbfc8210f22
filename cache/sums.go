package cache

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/cespare/xxhash/v2"
)

// Want is what content should be. At least one sum must be given; the strongest names the partial download, and all that are
// given must fit.
type Want struct {
	// Size is the size in bytes, or -1 where it is not known.
	Size int64
	// Limit bounds the size in bytes where Size is not known.
	Limit int64
	// SHA256 is zero where it is not known.
	SHA256 Digest
	// SHA512 and MD5 are nil where they are not known.
	SHA512, MD5 []byte
}

// bound returns the size that may not be exceeded.
func (w Want) bound() int64 {
	if w.Size < 0 {
		return w.Limit
	}
	return w.Size
}

// key names the wanted content by one of its sums: SHA-256 before the others, because blobs have that name.
func (w Want) key() string {
	switch {
	case !w.SHA256.IsZero():
		return "sha256-" + w.SHA256.String()
	case len(w.SHA512) > 0:
		return "sha512-" + hex.EncodeToString(w.SHA512)
	default:
		return "md5-" + hex.EncodeToString(w.MD5)
	}
}

func (w Want) validate() error {
	switch {
	case w.SHA256.IsZero() && w.SHA512 == nil && w.MD5 == nil:
		return fmt.Errorf("no sum is known of it")
	case w.SHA512 != nil && len(w.SHA512) != sha512.Size:
		return fmt.Errorf("a SHA-512 has %d bytes, not %d", sha512.Size, len(w.SHA512))
	case w.MD5 != nil && len(w.MD5) != md5.Size:
		return fmt.Errorf("an MD5 has %d bytes, not %d", md5.Size, len(w.MD5))
	case w.Size < -1 || w.Size == -1 && w.Limit <= 0:
		return fmt.Errorf("neither its size nor a limit is known")
	}
	return nil
}

// A MismatchError says how content differs from what was wanted. It Is [ErrCorrupt].
type MismatchError struct {
	Sum  string // "size", "sha512", "sha256" or "md5": the strongest that does not fit
	Want string // in hexadecimal, or a number of bytes
	Got  string
	Size int64 // how many bytes were read
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("content does not match: want %s %s, got %s after %d bytes", e.Sum, e.Want, e.Got, e.Size)
}

// Is reports whether target is ErrCorrupt.
func (e *MismatchError) Is(target error) bool { return target == ErrCorrupt }

// sums computes in one pass all that is to be known of some bytes.
type sums struct {
	n      int64 // bytes so far
	sha256 hash.Hash
	xxh64  *xxhash.Digest
	sha512 hash.Hash // nil unless wanted
	md5    hash.Hash // nil unless wanted
}

func newSums(w Want) *sums {
	h := &sums{sha256: sha256.New(), xxh64: xxhash.New()}
	if w.SHA512 != nil {
		h.sha512 = sha512.New()
	}
	if w.MD5 != nil {
		h.md5 = md5.New()
	}
	return h
}

func (h *sums) Write(p []byte) (int, error) {
	h.sha256.Write(p)
	h.xxh64.Write(p)
	if h.sha512 != nil {
		h.sha512.Write(p)
	}
	if h.md5 != nil {
		h.md5.Write(p)
	}
	h.n += int64(len(p))
	return len(p), nil
}

func (h *sums) digest() (d Digest) {
	h.sha256.Sum(d[:0])
	return d
}

// check returns a MismatchError unless the bytes are what w wants.
func (h *sums) check(w Want) error {
	if w.Size >= 0 && h.n != w.Size {
		return &MismatchError{Sum: "size", Want: fmt.Sprint(w.Size), Got: fmt.Sprint(h.n), Size: h.n}
	}
	compare := func(name string, got hash.Hash, want []byte) error {
		if sum := got.Sum(nil); !bytes.Equal(sum, want) {
			return &MismatchError{Sum: name, Want: hex.EncodeToString(want), Got: hex.EncodeToString(sum), Size: h.n}
		}
		return nil
	}
	if w.SHA512 != nil {
		if err := compare("sha512", h.sha512, w.SHA512); err != nil {
			return err
		}
	}
	if !w.SHA256.IsZero() {
		if err := compare("sha256", h.sha256, w.SHA256[:]); err != nil {
			return err
		}
	}
	if w.MD5 != nil {
		return compare("md5", h.md5, w.MD5)
	}
	return nil
}
