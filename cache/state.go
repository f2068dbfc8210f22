package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// maxName bounds the name of a stream or a key in bytes: with what is added to it, it has to be a file name.
const maxName = 100

// checkName accepts the names that streams and keys may have: ASCII letters, digits, ".", "-" and "_", the first no ".".
func checkName(name string) error {
	bad := strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	})
	if name == "" || len(name) > maxName || name[0] == '.' || bad >= 0 {
		return fmt.Errorf("name %q is not usable: want 1 to %d letters, digits, '-', '_' or '.', not '.' first", name, maxName)
	}
	return nil
}

func stateName(stream string) (string, error) {
	if err := checkName(stream); err != nil {
		return "", err
	}
	return streamsDir + "/" + stream + ".json", nil
}

// WriteState replaces what the store keeps of a stream beside its snapshots: durably, and whole or not at all. Only the owner of
// the store may read it, since it may tell a password.
func (s *Store) WriteState(stream string, data []byte) error {
	name, err := stateName(stream)
	if err == nil {
		err = s.disk.WriteFile(name, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write state of stream %q in store %s: %w", stream, s.dir, s.full(err))
	}
	return nil
}

// RemoveState forgets what WriteState wrote. It is no error if there is nothing.
func (s *Store) RemoveState(stream string) error {
	name, err := stateName(stream)
	if err == nil {
		err = s.disk.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("cannot remove state of stream %q in store %s: %w", stream, s.dir, err)
	}
	return nil
}

// ReadState returns what [Store.WriteState] wrote for the stream, or an [ErrMiss].
func (f *Files) ReadState(stream string) ([]byte, error) {
	name, err := stateName(stream)
	if err != nil {
		return nil, err
	}
	return f.read("state of stream", stream, name)
}

// keyName returns the path of a key: a name, or "trusted/" and a name.
func keyName(name string) (string, error) {
	if err := checkName(strings.TrimPrefix(name, "trusted/")); err != nil {
		return "", err
	}
	return keysDir + "/" + name, nil
}

// WriteKey replaces the key file name, which only the owner of the store may read: durably, and whole or not at all.
// A name that begins with "trusted/" is that of a public key to trust in bundles.
func (s *Store) WriteKey(name string, data []byte) error {
	file, err := keyName(name)
	if err == nil {
		err = s.disk.WriteFile(file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot write key %q in store %s: %w", name, s.dir, s.full(err))
	}
	return nil
}

// ReadKey returns what [Store.WriteKey] wrote, or an [ErrMiss].
func (f *Files) ReadKey(name string) ([]byte, error) {
	file, err := keyName(name)
	if err != nil {
		return nil, err
	}
	return f.read("key", name, file)
}

func (f *Files) read(what, subject, name string) ([]byte, error) {
	data, err := f.root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s %q in store %s: %w", what, subject, f.dir, ErrMiss)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s %q in store %s: %w", what, subject, f.dir, err)
	}
	return data, nil
}

// TrustedKeys returns the names, below "trusted/", of the public keys to trust in bundles, sorted.
func (f *Files) TrustedKeys() (names []string, err error) {
	list, err := f.readDir(trustedDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list keys in store %s: %w", f.dir, err)
	}
	for _, e := range list {
		if checkName(e.Name()) == nil && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
