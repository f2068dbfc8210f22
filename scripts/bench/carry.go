package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// carry exports 3 GiB as a bundle, and imports it, each beside cp of the same files to the same disk, and openssl dgst of the copies.
func carry(ctx context.Context, b *bench) error {
	t, err := makeTree(b, imageSizes())
	if err != nil {
		return err
	}
	defer t.remove()
	base, stop, err := nginx(ctx, b, t.dir, "")
	if err != nil {
		return err
	}
	defer stop()
	home := filepath.Join(b.dir, "carry")
	defer os.RemoveAll(home)
	store, volume := filepath.Join(home, "store"), filepath.Join(home, "bundle.tar")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	if _, err := execute(ctx, b.oxbow, b.syncArgs(t, base, store)...); err != nil {
		return err
	}
	copied := func() (usage, error) {
		to := filepath.Join(home, "copy")
		u, err := measure(ctx, "sh", "-c", `cp -r "$1" "$2" && find "$2" -type f -exec openssl dgst -sha256 {} +`, "sh", filepath.Join(t.dir, "files"), to)
		return u, errors.Join(err, os.RemoveAll(to))
	}
	out, err := compare(b.runs, func() (usage, error) {
		if err := os.RemoveAll(volume); err != nil {
			return usage{}, err
		}
		return measure(ctx, b.oxbow, "bundle", "export", "--store", store, "--out", volume)
	}, copied)
	if err != nil {
		return err
	}
	out.print(fmt.Sprintf("export of %d MiB", t.bytes/mib), "cp and openssl dgst", t.bytes)
	fingerprint, err := fingerprintOf(ctx, b, store)
	if err != nil {
		return err
	}
	in, err := compare(b.runs, func() (usage, error) {
		far := filepath.Join(home, "far")
		u, err := measure(ctx, b.oxbow, "bundle", "import", volume, "--store", far, "--trust-fingerprint", fingerprint)
		return u, errors.Join(err, os.RemoveAll(far))
	}, copied)
	if err != nil {
		return err
	}
	in.print(fmt.Sprintf("import of %d MiB", t.bytes/mib), "cp and openssl dgst", t.bytes)
	return nil
}

// fingerprintOf returns the fingerprint of the key of a store.
func fingerprintOf(ctx context.Context, b *bench, store string) (string, error) {
	text, err := exec.CommandContext(ctx, b.oxbow, "key", "show", "--json", "--store", store).Output()
	if err != nil {
		return "", err
	}
	var key struct {
		Fingerprint string `json:"fingerprint"`
	}
	err = json.Unmarshal(text, &key)
	return key.Fingerprint, err
}
