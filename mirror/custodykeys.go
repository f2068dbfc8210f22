package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// tracedBy says whose signatures count. Keyrings are binary.
type tracedBy struct {
	stream Stream // its keyring counts
	given  bool   // which is the reader's; otherwise it came along
	known  []byte // further keys of sites that the reader knows
	along  []byte // keys of upstream by which to tell who signed what does not count; nil: none
	room   int64  // bytes of custody volumes that may be read, and of what is in them; 0: maxCustodyText
}

// countedHere says whose signatures count where a store is: those that s says, and who is known here besides.
func countedHere(f *cache.Files, stream string, s Stream) (tracedBy, error) {
	by := tracedBy{stream: s, given: true}
	var err error
	if by.known, err = TrustedKeys(f); err != nil {
		return by, err
	}
	if own, err := readState(f, stream); err == nil {
		came := own.Imported != nil && len(own.Stream.Keyring) > 0 // with the first bundle
		by.given = !came || !bytes.Equal(s.Keyring, own.Stream.Keyring)
		if keys, err := own.Stream.Keys(); err == nil { // else there are none to know anybody by
			by.along = keys
			if !came {
				by.known = slices.Concat(by.known, keys)
			}
		}
	}
	return by, nil
}

// know takes down whose keys are known.
func (tr *tracing) know(by tracedBy) error {
	known := by.known
	if by.given && tr.trust.keyring != nil {
		keys, err := tr.trust.keyring.Public()
		if err != nil {
			return err
		}
		known = slices.Concat(known, keys)
	}
	if len(known) > 0 {
		ring, err := streams.ReadKeyring(known)
		if err != nil {
			return err
		}
		for _, k := range ring.Keys() {
			tr.known[k.Fingerprint] = true
		}
	}
	if ring, err := streams.ReadKeyring(by.along); err == nil {
		tr.along = ring
	}
	return nil
}

// upstreamTrust returns who may have signed the documents of the site's upstream, as the volume says.
func (v *openedCustody) upstreamTrust() (trust, error) {
	var d Description
	if err := json.Unmarshal(v.members[bundle.StreamPath(v.snapshot.Stream)], &d); err != nil {
		return trust{}, fmt.Errorf("%s: %w", bundle.StreamPath(v.snapshot.Stream), err)
	}
	t := trust{allowUnsigned: d.Unsigned}
	keys := v.members[bundle.UpstreamKeysPath(v.snapshot.Stream)]
	if len(keys) == 0 {
		if !d.Unsigned {
			return t, errors.New("no keys of upstream came with it")
		}
		return t, nil
	}
	var err error
	if t.keyring, err = streams.ReadKeyring(keys); err != nil {
		return t, fmt.Errorf("%s: %w", bundle.UpstreamKeysPath(v.snapshot.Stream), err)
	}
	return t, nil
}

// trustCustody returns the keys that may have signed a custody volume: those of the stream, and those that were imported to be trusted.
func (r *run) trustCustody(site *streams.Keyring) (*streams.Keyring, error) {
	keys, err := r.m.custodyKeys(r.reader.trust)
	if err != nil {
		return nil, err
	}
	ring, err := keyringOf(site, keys)
	if ring == nil && err == nil {
		by := site.Keys()[0]
		err = fmt.Errorf("%w: it comes from %s (%s)", bundle.ErrForeign, by.UserID, by.Fingerprint)
	}
	return ring, err
}

// custodyKeys returns the keys that may sign custody volumes, a binary keyring.
func (m *Mirror) custodyKeys(t trust) (keys []byte, err error) {
	if t.keyring != nil {
		if keys, err = t.keyring.Public(); err != nil {
			return nil, err
		}
	}
	trusted, err := TrustedKeys(m.store.Files())
	return slices.Concat(keys, trusted), err
}
