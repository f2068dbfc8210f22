package streams

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const packetSignature = 2 // RFC 9580, section 5

// signature is one parsed OpenPGP signature.
type signature struct {
	*packet.Signature
	packet []byte // as read
	digest string // name of the message digest, never a weak one
}

// parseSignature reads data, which must be one signature packet and nothing
// else. The library would skip packets that it does not know or whose key is
// unknown, and it accepts SHA-1: so the frame and the digest are looked at here.
func parseSignature(data []byte) (*signature, error) {
	tag, body, rest, err := cutPacket(data)
	if err != nil || tag != packetSignature {
		return nil, fmt.Errorf("%w: no signature packet", ErrBadSignature)
	}
	if len(rest) > 0 {
		if tag, _, _, err := cutPacket(rest); err == nil && tag == packetSignature {
			return nil, ErrManySignatures
		}
		return nil, fmt.Errorf("%w: %d bytes follow it", ErrBadSignature, len(rest))
	}
	if len(body) < 4 || body[0] < 4 {
		return nil, fmt.Errorf("%w: of a version before 4", ErrBadSignature)
	}
	digest, known := digestNames[body[3]]
	switch {
	case !known:
		return nil, fmt.Errorf("%w: unknown message digest %d", ErrBadSignature, body[3])
	case weakDigest(body[3]):
		return nil, fmt.Errorf("%w: %s", ErrWeakDigest, digest)
	}
	p, err := packet.Read(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBadSignature, err)
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.IssuerKeyId == nil {
		return nil, fmt.Errorf("%w: it does not name its key", ErrBadSignature)
	}
	return &signature{Signature: sig, packet: data, digest: digest}, nil
}

// issuer names the key as closely as the signature does.
func (sig *signature) issuer() string {
	if len(sig.IssuerFingerprint) > 0 {
		return fmt.Sprintf("%X", sig.IssuerFingerprint)
	}
	return fmt.Sprintf("%016X", *sig.IssuerKeyId)
}

// cutPacket takes the first OpenPGP packet off data (RFC 9580, section 4.2).
// Lengths that are not known in advance are refused: signatures have none.
func cutPacket(data []byte) (tag byte, body, rest []byte, err error) {
	malformed := errors.New("malformed packet")
	if len(data) < 2 || data[0]&0x80 == 0 {
		return 0, nil, nil, malformed
	}
	var size, header int
	if first := data[0]; first&0x40 != 0 {
		tag = first & 0x3f
		size, header = newLength(data[1:])
	} else {
		tag = first >> 2 & 0xf
		size, header = oldLength(first&3, data[1:])
	}
	if header == 0 || size > len(data)-1-header {
		return 0, nil, nil, malformed
	}
	data = data[1+header:]
	return tag, data[:size], data[size:], nil
}

// newLength returns a length and the bytes that it takes, none if it is malformed or partial.
func newLength(b []byte) (size, n int) {
	switch first := b[0]; {
	case first < 192:
		return int(first), 1
	case first < 224 && len(b) >= 2:
		return (int(first)-192)<<8 + int(b[1]) + 192, 2
	case first == 255 && len(b) >= 5:
		return int(binary.BigEndian.Uint32(b[1:])), 5
	}
	return 0, 0
}

// oldLength is newLength for the old packet format.
func oldLength(kind byte, b []byte) (size, n int) {
	switch {
	case kind == 0:
		return int(b[0]), 1
	case kind == 1 && len(b) >= 2:
		return int(binary.BigEndian.Uint16(b)), 2
	case kind == 2 && len(b) >= 4:
		return int(binary.BigEndian.Uint32(b)), 4
	}
	return 0, 0
}
