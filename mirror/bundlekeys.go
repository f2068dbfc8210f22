package mirror

import (
	"fmt"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// TrustedKeys returns the keys that may sign bundles, a binary keyring.
func TrustedKeys(f *cache.Files) ([]byte, error) {
	names, err := f.TrustedKeys()
	if err != nil {
		return nil, err
	}
	var ring []byte
	for _, name := range names {
		key, err := f.ReadKey("trusted/" + name)
		if err != nil {
			return nil, err
		}
		ring = append(ring, key...)
	}
	return ring, nil
}

// TrustKeys has bundles be trusted that one of the public keys signed, armored or binary.
func (m *Mirror) TrustKeys(public []byte) ([]streams.KeyInfo, error) {
	ring, err := streams.ReadKeyring(public)
	if err != nil {
		return nil, err
	}
	for _, k := range ring.Keys() {
		key, err := ring.Only(k.Fingerprint)
		if err == nil {
			err = m.store.WriteKey("trusted/"+k.Fingerprint+".gpg", key)
		}
		if err != nil {
			return nil, err
		}
	}
	return ring.Keys(), nil
}

// trust returns the keys that may have signed a bundle: those that were imported to be trusted, and the one that the operator names now.
func (im *importing) trust(site *streams.Keyring) (*streams.Keyring, error) {
	ring, err := TrustedKeys(im.m.store.Files())
	if err != nil {
		return nil, err
	}
	for _, k := range site.Keys() {
		if k.Fingerprint == im.o.TrustFingerprint {
			key, err := site.Only(k.Fingerprint)
			if err != nil {
				return nil, err
			}
			ring = append(ring, key...)
		}
	}
	if given := im.o.TrustFingerprint; given != "" && !slices.ContainsFunc(site.Keys(), func(k streams.KeyInfo) bool { return k.Fingerprint == given }) {
		return nil, fmt.Errorf("%w: it comes from %s (%s), not from the key that was given, %s", bundle.ErrForeign, site.Keys()[0].UserID, site.Keys()[0].Fingerprint, given)
	}
	if len(ring) == 0 {
		return nil, fmt.Errorf("%w: no key is; %s", bundle.ErrForeign, howToTrust(site))
	}
	keyring, err := keyringOf(site, ring)
	if keyring == nil && err == nil {
		err = fmt.Errorf("%w; %s", bundle.ErrForeign, howToTrust(site))
	}
	return keyring, err
}

// keyringOf returns the keyring of some keys, a binary keyring, if one of the site's is among them; nil: none is.
func keyringOf(site *streams.Keyring, keys []byte) (*streams.Keyring, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ring, err := streams.ReadKeyring(keys)
	if err != nil {
		return nil, err
	}
	for _, k := range ring.Keys() {
		if slices.ContainsFunc(site.Keys(), func(own streams.KeyInfo) bool { return own.Fingerprint == k.Fingerprint }) {
			return ring, nil
		}
	}
	return nil, nil
}

func howToTrust(site *streams.Keyring) string {
	k := site.Keys()[0]
	return fmt.Sprintf("it comes from %s (%s): if `oxbow key show` prints that fingerprint at the site that made it, give `--trust-fingerprint %s`, or `oxbow key import` its public key", k.UserID, k.Fingerprint, k.Fingerprint)
}

// remember trusts the key that the operator named for the bundles to come.
func (im *importing) remember(r *bundle.Reader) error {
	if r.Signer.Fingerprint != im.o.TrustFingerprint {
		return nil
	}
	key, err := r.Site.Only(r.Signer.Fingerprint)
	if err != nil {
		return err
	}
	return im.m.store.WriteKey("trusted/"+r.Signer.Fingerprint+".gpg", key)
}
