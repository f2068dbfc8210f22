package mirror

import (
	"errors"
	"fmt"
	"os"

	"oxbow/cache"
	"oxbow/streams"
)

// siteKey is the file of the site's signing key below STORE/keys.
const siteKey = "site.asc"

// retiredKeys is the file of the public keys that signed before, a binary
// keyring: what they signed is published until the next sync, and in older
// snapshots.
const retiredKeys = "retired.gpg"

// Key returns the site's signing key, and makes one the first time.
func (m *Mirror) Key() (*streams.SigningKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key != nil {
		return m.key, nil
	}
	key, err := SiteKey(m.store.Files())
	if errors.Is(err, cache.ErrMiss) {
		key, err = m.makeKey(streams.Ed25519)
	}
	if err != nil {
		return nil, err
	}
	m.key = key
	return key, nil
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
		return nil, fmt.Errorf("cannot use the site's signing key: %w; `oxbow key import FILE` puts a good one in its place", err)
	}
	return key, nil
}

// Keyring returns the keys that sign what the site publishes, as a binary
// keyring: the signing key, and those that it replaced. It is empty while the
// site has no key.
func Keyring(f *cache.Files) ([]byte, error) {
	key, err := SiteKey(f)
	if errors.Is(err, cache.ErrMiss) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	retired, err := f.ReadKey(retiredKeys)
	if err != nil && !errors.Is(err, cache.ErrMiss) {
		return nil, err
	}
	return append(key.Public(), retired...), nil
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

func (m *Mirror) sameKey(key *streams.SigningKey) bool {
	old, err := SiteKey(m.store.Files())
	return err == nil && old.Fingerprint() == key.Fingerprint()
}

// ErrKeyExists is returned when the site has a signing key already.
var ErrKeyExists = errors.New("the site has a signing key already")

// retireKey keeps the public part of the signing key, if there is one, before
// another takes its place: clients go on to accept what it has signed.
func (m *Mirror) retireKey(replace bool) error {
	ring, err := Keyring(m.store.Files())
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
