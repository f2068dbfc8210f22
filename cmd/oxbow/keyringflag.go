package main

import (
	"github.com/urfave/cli/v2"

	"oxbow/streams"
)

// maxKeyring bounds the file of a keyring in bytes.
const maxKeyring = 4 << 20

// keyringFlag returns the keyring in the file that --keyring names, or nil where the flag is not given. The error is one of usage.
func keyringFlag(c *cli.Context) ([]byte, error) {
	if !c.IsSet("keyring") {
		return nil, nil
	}
	file := c.String("keyring")
	keyring, err := readInput(file, maxKeyring)
	if err != nil {
		return nil, usagef(c, "--keyring: %v", err)
	}
	if len(keyring) == 0 { // which would stand for the keys that count without the flag
		return nil, usagef(c, "--keyring: cannot use %s: the file is empty", file)
	}
	if _, err := streams.ReadKeyring(keyring); err != nil {
		return nil, usagef(c, "--keyring: cannot use %s: %v", file, err)
	}
	return keyring, nil
}
