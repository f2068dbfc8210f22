package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"oxbow/cache"
	"oxbow/streams"
)

// siteKey is the file of the site's signing key below STORE/keys.
const siteKey = "site.asc"

// retiredKeys is the file of the public keys that signed before, a binary
// keyring: what they signed is published until the next sync, and in older
// snapshots.
const retiredKeys = "retired.gpg"

// Key returns the site's signing key, and makes one the first time. One that is
// lost is not replaced: clients would have to get the new one first.
func (m *Mirror) Key() (*streams.SigningKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key != nil {
		return m.key, nil
	}
	key, err := SiteKey(m.store.Files())
	if errors.Is(err, cache.ErrMiss) {
		if err := m.neverSigned(); err != nil {
			return nil, err
		}
		key, err = m.makeKey(streams.Ed25519)
	}
	if err != nil {
		return nil, err
	}
	m.key = key
	return key, nil
}

// ErrKeyLost is returned when the key is gone that signed what is published.
var ErrKeyLost = errors.New("the site's signing key is gone")

// neverSigned reports a stream that was signed before.
func (m *Mirror) neverSigned() error {
	all, _ := Streams(m.store.Files())
	for _, s := range all {
		if st, err := readState(m.store.Files(), s.Name); err == nil && st.Accepted.Key != "" {
			return fmt.Errorf("%w: stream %s was signed with %s; put the copy of keys/%s back (`oxbow key import FILE`), or make another with `oxbow key generate`, which clients do not trust before they get it",
				ErrKeyLost, s.Name, st.Accepted.Key, siteKey)
		}
	}
	return nil
}

// SiteKey reads the site's signing key; the error is cache.ErrMiss when the
// store has none yet.
func SiteKey(f *cache.Files) (*streams.SigningKey, error) {
	secret, err := f.ReadKey(siteKey)
	if err != nil {
		return nil, err
	}
	key, err := streams.ReadSigningKey(secret)
	if err != nil {
		return nil, fmt.Errorf("cannot use the site's signing key: %w; `oxbow key import --replace FILE` puts a good one in its place", err)
	}
	return key, nil
}

// Signs reports whether any stream shows documents of the site's own, or may, where that
// cannot be read. It needs no lock.
func Signs(f *cache.Files) bool {
	names, err := f.Streams()
	if err != nil {
		return true
	}
	for _, name := range names {
		current, err := f.Current(name)
		if errors.Is(err, cache.ErrNoSnapshot) {
			continue
		}
		if err != nil {
			return true
		}
		man, err := f.Manifest(name, current.ID)
		if err == nil {
			if st, failed := readState(f, name); failed == nil && st.comes(f) {
				continue // another site signs it
			}
		}
		if err != nil || shownKind(man) == cache.KindSite {
			return true
		}
	}
	return false
}

// Keyring returns the keys that sign what the site publishes, as a binary
// keyring: the signing key, those that it replaced, and those of other sites
// whose bundles came. It is empty while there is none. With an error it holds
// those that can be read.
func Keyring(f *cache.Files) (ring []byte, err error) {
	own, err := ownKeyring(f)
	imported, unread := importedSigners(f)
	return slices.Concat(own, imported), errors.Join(err, unread)
}

// ownKeyring is Keyring without the keys of other sites.
func ownKeyring(f *cache.Files) (ring []byte, err error) {
	key, err := SiteKey(f)
	switch {
	case err == nil:
		ring = key.Public()
	case errors.Is(err, cache.ErrMiss):
		err = nil
	}
	retired, failed := f.ReadKey(retiredKeys)
	if errors.Is(failed, cache.ErrMiss) {
		failed = nil
	}
	return append(ring, retired...), errors.Join(err, failed)
}

// importedSigners returns the keys of other sites that sign what is published of streams which came by bundles.
func importedSigners(f *cache.Files) (ring []byte, err error) {
	names, err := f.Streams()
	for _, name := range names {
		st, failed := readState(f, name)
		if failed == nil && st.Imported != nil && !bytes.Contains(ring, st.Imported.Signers) {
			ring = append(ring, st.Imported.Signers...)
		}
		if failed != nil && !errors.Is(failed, ErrNoStream) {
			err = errors.Join(err, failed)
		}
	}
	return ring, err
}

// GenerateKey makes a new signing key for the site. An existing one is
// replaced only if replace is set: clients that trust the old one must get
// the new one first.
func (m *Mirror) GenerateKey(t streams.KeyType, replace bool) (*streams.SigningKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.retireKey(replace); err != nil {
		return nil, err
	}
	key, err := m.makeKey(t)
	if err != nil {
		return nil, err
	}
	m.key = key
	return key, nil
}

// ImportKey makes secret, an unencrypted OpenPGP private key, the site's
// signing key.
func (m *Mirror) ImportKey(secret []byte, replace bool) (*streams.SigningKey, error) {
	key, err := streams.ReadSigningKey(secret)
	if err != nil {
		return nil, err
	}
	if err := m.tryKey(key); err != nil {
		return nil, fmt.Errorf("cannot sign with that key: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.sameKey(key) {
		if err := m.retireKey(replace); err != nil {
			return nil, err
		}
	}
	if err := m.store.WriteKey(siteKey, key.Secret()); err != nil {
		return nil, err
	}
	m.key = key
	return key, nil
}

// tryKey proves that what the key signs now is accepted.
func (m *Mirror) tryKey(key *streams.SigningKey) error {
	text := []byte("{}\n")
	signed, err := key.Clearsign(text, m.now())
	if err != nil {
		return err
	}
	ring, err := streams.ReadKeyring(key.Public())
	if err != nil {
		return err
	}
	_, err = ring.Verify(signed, m.now())
	return err
}

func (m *Mirror) sameKey(key *streams.SigningKey) bool {
	old, err := SiteKey(m.store.Files())
	return err == nil && old.Fingerprint() == key.Fingerprint()
}

// ErrKeyExists is returned when the site has a signing key already.
var ErrKeyExists = errors.New("the site has a signing key already")

// retireKey keeps the public part of the signing key, if there is one, before
// another takes its place: clients go on to accept what it has signed.
func (m *Mirror) retireKey(replace bool) error {
	ring, err := ownKeyring(m.store.Files())
	switch {
	case err != nil && !replace:
		return err
	case err != nil || len(ring) == 0: // a key that cannot be read has nothing to keep
		return nil
	case !replace:
		return ErrKeyExists
	}
	return m.store.WriteKey(retiredKeys, ring)
}

func (m *Mirror) makeKey(t streams.KeyType) (*streams.SigningKey, error) {
	name := "oxbow mirror"
	if host, err := os.Hostname(); err == nil {
		name += " at " + host
	}
	key, err := streams.GenerateSigningKey(t, name, m.now())
	if err != nil {
		return nil, err
	}
	if err := m.store.WriteKey(siteKey, key.Secret()); err != nil {
		return nil, err
	}
	m.log.Info("signing key made", "fingerprint", key.Fingerprint())
	return key, nil
}
