package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"oxbow/streams"
)

// distKeyrings are where Ubuntu's packages keep the keyring that signs
// images.maas.io: the ubuntu-keyring package, and inside the MAAS snap.
var distKeyrings = []string{
	"/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",
	"/snap/maas/current/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",
}

// IsDistKeyring reports whether a file is one that is read at each sync of a
// stream without a keyring of its own.
func IsDistKeyring(file string) bool { return slices.Contains(distKeyrings, file) }

// trust decides whether a document may be believed.
type trust struct {
	keyring       *streams.Keyring // nil: none at hand, only with allowUnsigned
	allowUnsigned bool
}

func (s Stream) trust() (trust, error) {
	t := trust{allowUnsigned: s.AllowUnsigned}
	data := s.Keyring
	if len(data) == 0 {
		if t.allowUnsigned {
			return t, nil
		}
		var err error
		if data, err = readDistKeyring(); err != nil {
			return t, fmt.Errorf("cannot verify stream %s: %w", s.Name, err)
		}
	}
	k, err := streams.ReadKeyring(data)
	if err != nil {
		return t, fmt.Errorf("cannot verify stream %s: cannot use its keyring: %w", s.Name, err)
	}
	t.keyring = k
	return t, nil
}

// CheckKeyring says why what upstream signs could not be verified now, if that is so.
func (s Stream) CheckKeyring() error {
	_, err := s.trust()
	return err
}

// Keys returns the public keys that upstream may sign with now, as a binary keyring; it
// is empty where none are asked for.
func (s Stream) Keys() ([]byte, error) {
	t, err := s.trust()
	if err != nil || t.keyring == nil {
		return nil, err
	}
	return t.keyring.Public()
}

func readDistKeyring() ([]byte, error) {
	for _, name := range distKeyrings {
		data, err := os.ReadFile(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, fmt.Errorf("no keyring: %s is absent; install the package ubuntu-keyring or give one with --keyring or, in the configuration, `keyring:` (Canonical's image key is 4A3CE3CD565D7EB5C810E2B97FF3F408476CF100)", distKeyrings[0])
}

// open returns the text of a document that may be believed.
func (t trust) open(doc []byte, now time.Time) ([]byte, error) {
	if t.keyring != nil {
		signed, err := t.keyring.Verify(doc, now)
		if err == nil {
			return signed.Text, nil
		}
		if !t.allowUnsigned || !errors.Is(err, streams.ErrUnsigned) {
			return nil, err
		}
	}
	return textOf(doc)
}

// A Signature says who signed a document of upstream's.
type Signature struct {
	Fingerprint string    `json:"fingerprint"` // of the primary key, upper-case hex
	UserID      string    `json:"user_id"`     // the primary one
	Date        time.Time `json:"date"`        // UTC, as the signature says
	Expired     bool      `json:"expired"`     // the key has, since
}

// signature returns who signed a document that was read before, in one piece or apart; nil: nobody, and none is asked for. The key is
// judged at the date of the signature: one that has expired since was good when it signed.
func (t trust) signature(doc, apart []byte, now time.Time) (*Signature, error) {
	if t.keyring == nil {
		return nil, nil
	}
	verify := func(at time.Time) (*streams.Signed, error) {
		if apart != nil && !streams.IsClearsigned(doc) {
			return t.keyring.VerifyDetached(doc, apart, at)
		}
		return t.keyring.Verify(doc, at)
	}
	signed, err := verify(now)
	expired := errors.Is(err, streams.ErrKeyExpired)
	if expired {
		signed, err = verify(time.Time{})
	}
	switch {
	case t.allowUnsigned && errors.Is(err, streams.ErrUnsigned):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &Signature{signed.Fingerprint, signed.SignedBy, signed.Created, expired}, nil
}

// textOf returns the text of a document whose signature, if it has one, was
// verified before, or need not be.
func textOf(doc []byte) ([]byte, error) {
	if streams.IsClearsigned(doc) {
		return streams.ClearText(doc)
	}
	return doc, nil
}
