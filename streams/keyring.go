package streams

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Why [Keyring.Verify] refuses a document. None of them is worth another try
// with the same bytes.
var (
	// ErrUnsigned: there is no signature at all.
	ErrUnsigned = errors.New("document is not signed")
	// ErrUnknownKey: whoever signed it, the keyring does not have the key.
	ErrUnknownKey = errors.New("signed by a key that is not in the keyring")
	// ErrKeyExpired: the key was not to be used any more at this time.
	ErrKeyExpired = errors.New("signing key has expired")
	// ErrKeyRevoked: the keyring holds a revocation of the key.
	ErrKeyRevoked = errors.New("signing key is revoked")
	// ErrWeakDigest: MD5, SHA-1 and RIPEMD-160 do not bind a signature to a text.
	ErrWeakDigest = errors.New("signature is made over a weak message digest")
	// ErrManySignatures: clients differ in which of several signatures they trust.
	ErrManySignatures = errors.New("document has more than one signature")
	// ErrTextOutside: there is text that no signature covers and some client may read.
	ErrTextOutside = errors.New("document has text outside its signed part")
	// ErrBadSignature: it is broken, or made over another text.
	ErrBadSignature = errors.New("signature is bad")
)

// A Keyring holds the public keys that may sign a stream. It does not change
// and may be used by several goroutines.
type Keyring struct {
	entities openpgp.EntityList
}

// KeyInfo describes a primary key of a [Keyring].
type KeyInfo struct {
	Fingerprint string    // upper-case hex
	UserID      string    // the primary user id
	Created     time.Time // UTC
	Expires     time.Time // zero if the key does not expire
	Revoked     bool
}

// Signed is the text of a document, proven against a [Keyring].
type Signed struct {
	Text        []byte
	Fingerprint string    // upper-case hex, of the primary key
	SignedBy    string    // primary user id
	Created     time.Time // UTC, as the signature says
}

// ReadKeyring reads OpenPGP public keys, binary or armored; armored blocks and
// binary keys may follow each other. Keys of kinds that it does not know are
// left out as long as one remains. In a secret key only the public part counts.
func ReadKeyring(data []byte) (*Keyring, error) {
	if len(data) > 12 && string(data[8:12]) == "KBXf" {
		return nil, errors.New("cannot read keyring: it is a GnuPG keybox; write a keyring with: gpg --export > FILE")
	}
	entities, err := readEntities(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read keyring: %w", err)
	}
	return &Keyring{entities}, nil
}

// readEntities returns the usable keys of data, at least one.
func readEntities(data []byte) (openpgp.EntityList, error) {
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), MaxDocument)
	}
	if len(data) > 0 && data[0]&0x80 == 0 { // no packet begins so
		var err error
		if data, err = dearmorAll(data, armorPublic, armorSecret); err != nil {
			return nil, err
		}
	}
	entities, err := openpgp.ReadKeyRing(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	// A user id that has nothing but a revocation leaves no self-signature.
	entities = slices.DeleteFunc(entities, func(e *openpgp.Entity) bool {
		self, _ := e.PrimarySelfSignature()
		return self == nil
	})
	if len(entities) == 0 {
		return nil, errors.New("it holds no OpenPGP key")
	}
	return entities, nil
}

// Public returns the keys as a binary keyring, which gpgv reads.
func (k *Keyring) Public() ([]byte, error) {
	var b bytes.Buffer
	for _, e := range k.entities {
		if err := e.Serialize(&b); err != nil {
			return nil, fmt.Errorf("cannot write key %s: %w", fingerprint(e), err)
		}
	}
	return b.Bytes(), nil
}

// Only returns one of the keys, by its fingerprint, as a binary keyring.
func (k *Keyring) Only(fingerprintOf string) ([]byte, error) {
	for _, e := range k.entities {
		if fingerprint(e) == fingerprintOf {
			return (&Keyring{openpgp.EntityList{e}}).Public()
		}
	}
	return nil, fmt.Errorf("the keyring has no key %s", fingerprintOf)
}

// Keys describes the primary keys in the order of the file.
func (k *Keyring) Keys() []KeyInfo {
	var keys []KeyInfo
	for _, e := range k.entities {
		self, _ := e.PrimarySelfSignature()
		keys = append(keys, KeyInfo{
			Fingerprint: fingerprint(e),
			UserID:      userID(e),
			Created:     e.PrimaryKey.CreationTime.UTC(),
			Expires:     expiry(e.PrimaryKey, self),
			Revoked:     len(e.Revocations) > 0,
		})
	}
	return keys
}

// Verify proves a clearsigned document. It wants exactly one signature, by an
// unrevoked and unexpired key of the keyring, over a strong digest, that covers
// every byte but the frame; anything else is refused with one of the errors of
// this package. Documents of more than [MaxDocument] bytes are refused too.
//
// The text is what was signed, as the clients read it: dash escapes undone, and
// every line, the last too, ended by one "\n". Trailing white space is cut off
// each line, because the signature does not cover it; JSON does not need it.
//
// A signature or key that is dated later than now is judged at its own date, so
// a clock that is behind refuses nothing.
func (k *Keyring) Verify(doc []byte, now time.Time) (*Signed, error) {
	c, err := parseClearsigned(doc)
	if err != nil {
		return nil, err
	}
	sig, err := parseSignature(c.signature)
	if err != nil {
		return nil, err
	}
	if sig.SigType != packet.SigTypeText {
		return nil, fmt.Errorf("%w: it is not one over a text", ErrBadSignature)
	}
	if !slices.Contains(c.digests, sig.digest) {
		return nil, fmt.Errorf("%w: it uses %s, the Hash header says %s", ErrBadSignature, sig.digest, strings.Join(c.digests, ", "))
	}
	s, err := k.check(sig, bytes.TrimSuffix(c.text, []byte("\n")), now)
	if err != nil {
		return nil, err
	}
	s.Text = c.text
	return s, nil
}

// VerifyDetached proves text by a detached signature, armored or binary, with
// the rules of [Keyring.Verify]. The returned Text is text.
func (k *Keyring) VerifyDetached(text, sig []byte, now time.Time) (*Signed, error) {
	if len(text) > MaxDocument || len(sig) > MaxDocument {
		return nil, fmt.Errorf("document or signature is larger than %d bytes", MaxDocument)
	}
	if len(bytes.TrimSpace(sig)) == 0 {
		return nil, ErrUnsigned
	}
	if sig[0]&0x80 == 0 {
		body, rest, err := dearmor(sig, armorSignature)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrBadSignature, err)
		}
		if err := nothingAfter(rest); err != nil {
			return nil, err
		}
		sig = body
	}
	p, err := parseSignature(sig)
	if err != nil {
		return nil, err
	}
	s, err := k.check(p, text, now)
	if err != nil {
		return nil, err
	}
	s.Text = text
	return s, nil
}

// check proves that sig is made over text by a key of the ring. If there are
// several copies of the key, one that is revoked refuses for all of them, and
// otherwise one that accepts will do.
func (k *Keyring) check(sig *signature, text []byte, now time.Time) (*Signed, error) {
	var copies openpgp.EntityList
	for _, e := range k.entities {
		if len(openpgp.EntityList{e}.KeysById(*sig.IssuerKeyId)) == 0 {
			continue
		}
		if len(e.Revocations) > 0 { // whatever its date says
			return nil, fmt.Errorf("%w: %s", ErrKeyRevoked, describe(e))
		}
		copies = append(copies, e)
	}
	refusal := fmt.Errorf("%w: key %s; the keyring has %s", ErrUnknownKey, sig.issuer(), k.names())
	for _, e := range copies {
		err := sig.verify(e, text, now)
		if err == nil {
			return &Signed{
				Fingerprint: fingerprint(e),
				SignedBy:    userID(e),
				Created:     sig.CreationTime.UTC(),
			}, nil
		}
		refusal = fmt.Errorf("%w: %s", err, describe(e))
	}
	return nil, refusal
}

// names lists the first keys of the ring for a message.
func (k *Keyring) names() string {
	var names []string
	for _, e := range k.entities {
		if len(names) == 3 {
			names = append(names, fmt.Sprintf("%d more", len(k.entities)-3))
			break
		}
		names = append(names, fingerprint(e))
	}
	return strings.Join(names, ", ")
}

// verify judges sig by the key e alone.
func (sig *signature) verify(e *openpgp.Entity, text []byte, now time.Time) error {
	if sig.CreationTime.After(now) {
		now = sig.CreationTime
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	_, _, err := openpgp.VerifyDetachedSignature(openpgp.EntityList{e}, bytes.NewReader(text), bytes.NewReader(sig.packet), config)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return ErrKeyRevoked
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return ErrKeyExpired
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return fmt.Errorf("%w: made by a key that is not for signing", ErrBadSignature)
	}
	return fmt.Errorf("%w: %v", ErrBadSignature, err)
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// describe names a key for a message.
func describe(e *openpgp.Entity) string {
	self, _ := e.PrimarySelfSignature()
	if end := expiry(e.PrimaryKey, self); !end.IsZero() {
		return fmt.Sprintf("key %s (%s), valid until %s", fingerprint(e), userID(e), end.Format(time.DateOnly))
	}
	return fmt.Sprintf("key %s (%s)", fingerprint(e), userID(e))
}

func userID(e *openpgp.Entity) string {
	if id := e.PrimaryIdentity(); id != nil {
		return id.Name
	}
	return ""
}

// expiry returns when the key ends according to its self-signature; zero is never.
func expiry(key *packet.PublicKey, self *packet.Signature) time.Time {
	if self == nil || self.KeyLifetimeSecs == nil || *self.KeyLifetimeSecs == 0 {
		return time.Time{}
	}
	return key.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs) * time.Second).UTC()
}
