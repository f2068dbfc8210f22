package streams

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// KeyType names an algorithm of signing keys. Both are among those that every
// gpgv in the field accepts (2.2 knows neither version 6 keys nor Ed25519 under
// its new number).
type KeyType string

const (
	Ed25519 KeyType = "ed25519"
	RSA4096 KeyType = "rsa4096"
)

// keyAge is how far back a new key is dated: a key from a verifier's future is
// refused, and the clocks of isolated sites are off.
const keyAge = 48 * time.Hour

// A SigningKey signs the documents of a site. It does not change and may be
// used by several goroutines. Its secret is not encrypted.
type SigningKey struct {
	entity         *openpgp.Entity
	public, secret []byte // serialised, binary
}

// GenerateSigningKey makes a key that does not expire, with one user id, dated
// two days before now. The name must not contain any of "()<>". An RSA key takes
// seconds.
func GenerateSigningKey(t KeyType, name string, now time.Time) (*SigningKey, error) {
	config := signingConfig(now.Add(-keyAge))
	entity := &openpgp.Entity{Identities: make(map[string]*openpgp.Identity)}
	switch t {
	case Ed25519:
		config.Algorithm = packet.PubKeyAlgoEdDSA
		made, err := openpgp.NewEntity("", "", "", config)
		if err != nil {
			return nil, fmt.Errorf("cannot generate signing key: %w", err)
		}
		entity.PrivateKey = made.PrivateKey
	case RSA4096:
		made, err := rsa.GenerateKey(rand.Reader, 4096)
		if err != nil {
			return nil, fmt.Errorf("cannot generate signing key: %w", err)
		}
		entity.PrivateKey = packet.NewSignerPrivateKey(config.Now(), made)
	default:
		return nil, fmt.Errorf("cannot generate signing key of type %q: it must be %s or %s", t, Ed25519, RSA4096)
	}
	entity.PrimaryKey = &entity.PrivateKey.PublicKey
	if err := entity.AddUserId(name, "", "", config); err != nil {
		return nil, fmt.Errorf("cannot generate signing key named %q: %w", name, err)
	}
	return newSigningKey(entity)
}

// ReadSigningKey reads one OpenPGP secret key, binary or armored. The secret
// must not be encrypted, and the key must be of a kind that gpgv 2.2 accepts. Of
// its user ids the primary one is kept.
func ReadSigningKey(secret []byte) (*SigningKey, error) {
	entities, err := readEntities(secret)
	if err != nil {
		return nil, fmt.Errorf("cannot read signing key: %w", err)
	}
	if len(entities) > 1 {
		return nil, fmt.Errorf("cannot read signing key: there are %d keys, export the one to sign with", len(entities))
	}
	entity := entities[0]
	if entity.PrivateKey == nil {
		return nil, errors.New("cannot read signing key: it is a public key; export the secret one with: gpg --armor --export-secret-keys")
	}
	if id := entity.PrimaryIdentity(); id != nil {
		id.Signatures = []*packet.Signature{id.SelfSignature}
		entity.Identities = map[string]*openpgp.Identity{id.Name: id}
	}
	// Subkeys for encryption have no part in signing.
	entity.Subkeys = slices.DeleteFunc(entity.Subkeys, func(s openpgp.Subkey) bool {
		return !s.Sig.FlagSign || s.PrivateKey == nil
	})
	k, err := newSigningKey(entity)
	if err != nil {
		return nil, fmt.Errorf("cannot read signing key: %w", err)
	}
	return k, nil
}

// HasSecret reports whether data is an OpenPGP key, binary or armored, with a secret part.
func HasSecret(data []byte) bool {
	entities, err := readEntities(data)
	return err == nil && slices.ContainsFunc(entities, func(e *openpgp.Entity) bool { return e.PrivateKey != nil })
}

// newSigningKey checks that some part of e can sign, and serialises e.
func newSigningKey(e *openpgp.Entity) (*SigningKey, error) {
	keys := []*packet.PrivateKey{e.PrivateKey}
	for _, s := range e.Subkeys {
		keys = append(keys, s.PrivateKey)
	}
	for _, key := range keys {
		switch {
		case key == nil || key.Dummy():
		case key.Encrypted:
			return nil, errors.New("its secret is encrypted; take the passphrase off with: gpg --change-passphrase")
		default:
			if err := acceptable(&key.PublicKey); err != nil {
				return nil, err
			}
		}
	}
	k := &SigningKey{entity: e}
	var public, secret bytes.Buffer
	if err := e.Serialize(&public); err != nil {
		return nil, err
	}
	if err := e.SerializePrivateWithoutSigning(&secret, nil); err != nil {
		return nil, err
	}
	k.public, k.secret = public.Bytes(), secret.Bytes()
	return k, nil
}

// acceptable says why gpgv 2.2 would not verify by key.
func acceptable(key *packet.PublicKey) error {
	if key.Version != 4 {
		return fmt.Errorf("it has version %d, clients' gpgv knows 4", key.Version)
	}
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoECDSA:
		return nil
	case packet.PubKeyAlgoEdDSA:
		if curve, err := key.Curve(); err == nil && curve == packet.Curve25519 {
			return nil
		}
	case packet.PubKeyAlgoRSA:
		if bits, err := key.BitLength(); err == nil && bits >= 2048 {
			return nil
		}
	}
	return fmt.Errorf("its algorithm (number %d) is not one for this: take EdDSA on Curve25519, or RSA of 2048 bits or more", key.PubKeyAlgo)
}

// signingConfig makes signatures that depend on nothing but key, text and time.
func signingConfig(at time.Time) *packet.Config {
	return &packet.Config{
		Time:                                  func() time.Time { return at },
		DefaultHash:                           crypto.SHA512,
		NonDeterministicSignaturesViaNotation: packet.BoolPointer(false),
	}
}

// Clearsign returns text as a clearsigned document with one signature dated at.
// White space at the ends of lines is left out, line ends become "\n", and the
// text is ended by one if it is not: what [Keyring.Verify] then returns is
// exactly what was signed. The same key, text and date give the same bytes.
//
// A line of over 19,000 bytes is an error, because gpgv would refuse the document,
// and so is a document of over [MaxDocument] bytes.
func (k *SigningKey) Clearsign(text []byte, at time.Time) ([]byte, error) {
	if len(text) > MaxDocument {
		return nil, fmt.Errorf("cannot sign: text of %d bytes is larger than %d", len(text), MaxDocument)
	}
	body, signed, err := escape(text)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	var doc bytes.Buffer
	doc.Grow(len(body) + 2048)
	fmt.Fprintf(&doc, "%s\nHash: SHA512\n\n", clearHeader)
	doc.Write(body)
	if err := k.sign(&doc, signed, at, openpgp.DetachSignText); err != nil {
		return nil, err
	}
	if doc.Len() > MaxDocument {
		return nil, fmt.Errorf("cannot sign: document of %d bytes is larger than %d", doc.Len(), MaxDocument)
	}
	return doc.Bytes(), nil
}

// Detach returns an armored detached signature over every byte of text, dated at.
func (k *SigningKey) Detach(text []byte, at time.Time) ([]byte, error) {
	var sig bytes.Buffer
	if err := k.sign(&sig, text, at, openpgp.DetachSign); err != nil {
		return nil, err
	}
	return sig.Bytes(), nil
}

type signFunc func(w io.Writer, signer *openpgp.Entity, message io.Reader, config *packet.Config) error

// sign writes an armored signature, a newline at its end. The armor has a
// checksum: without one gpgv 2.2 calls the signature good and fails all the same.
func (k *SigningKey) sign(w *bytes.Buffer, text []byte, at time.Time, sign signFunc) error {
	block, err := armor.EncodeWithChecksumOption(w, armorSignature, nil, true)
	if err != nil {
		return fmt.Errorf("cannot sign: %w", err)
	}
	if err := sign(block, k.entity, bytes.NewReader(text), signingConfig(at)); err != nil {
		return fmt.Errorf("cannot sign with key %s at %s: %w", k.Fingerprint(), at.UTC().Format(time.RFC3339), err)
	}
	if err := block.Close(); err != nil {
		return fmt.Errorf("cannot sign: %w", err)
	}
	w.WriteByte('\n')
	return nil
}

// Public returns the public key as a binary keyring, the only form that gpgv reads.
func (k *SigningKey) Public() []byte { return slices.Clone(k.public) }

// Secret returns the secret key armored and unencrypted, as [ReadSigningKey] reads it.
func (k *SigningKey) Secret() []byte { return enarmor(armorSecret, k.secret) }

// Fingerprint returns the fingerprint of the primary key in upper-case hex.
func (k *SigningKey) Fingerprint() string { return fingerprint(k.entity) }

// Created returns the date of the primary key, before which it cannot sign.
func (k *SigningKey) Created() time.Time { return k.entity.PrimaryKey.CreationTime.UTC() }

// ArmorKeyring returns a binary keyring as text.
func ArmorKeyring(keyring []byte) []byte { return enarmor(armorPublic, keyring) }

func enarmor(kind string, body []byte) []byte {
	var b bytes.Buffer
	w, err := armor.EncodeWithChecksumOption(&b, kind, nil, true)
	if err == nil {
		w.Write(body)
		err = w.Close()
	}
	if err != nil {
		panic("internal error: armor into memory: " + err.Error())
	}
	b.WriteByte('\n')
	return b.Bytes()
}
