package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// A Digest is the SHA-256 of a blob's bytes, and so the blob's name. The zero Digest names nothing.
type Digest [32]byte

// ParseDigest accepts only what [Digest.String] prints: 64 lower-case hexadecimal digits, not all zero.
func ParseDigest(s string) (d Digest, err error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(d) {
		copy(d[:], b)
	}
	if d.IsZero() || d.String() != s {
		return Digest{}, fmt.Errorf("malformed digest %q: want 64 lower-case hexadecimal digits", s)
	}
	return d, nil
}

// String returns d as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns what [Digest.String] does, and nothing for the zero Digest.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText accepts only what [Digest.MarshalText] returns.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	if *d = (Digest{}); len(text) > 0 {
		*d, err = ParseDigest(string(text))
	}
	return err
}

// Compare orders digests by their bytes, as their texts are ordered: -1, 0 or 1.
func (d Digest) Compare(other Digest) int { return bytes.Compare(d[:], other[:]) }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// blobName returns the path of blob d, relative to the store.
func blobName(d Digest) string {
	s := d.String()
	return blobsDir + "/" + s[:2] + "/" + s
}

// Sum returns the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }
