package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/mirror"
)

func bundleCommand() *cli.Command {
	return &cli.Command{Name: "bundle", Usage: "carry snapshots to a site that sees no upstream", Subcommands: []*cli.Command{
		bundleExportCommand(), bundleImportCommand(), bundleInspectCommand(), bundleVerifyCommand(), bundleHaveCommand(),
	}}
}

// bundleInput is what commands that read bundles are given.
type bundleInput struct {
	trust   string // fingerprint of the key that counts; "": none was named
	keyring []byte // of upstream; nil: none was given
	volumes []*os.File
}

// readBundleInput reads flags and opens volumes, which the caller closes.
func readBundleInput(c *cli.Context) (in bundleInput, err error) {
	if c.NArg() == 0 {
		return in, usagef(c, "want the volumes of a bundle: files, a directory, or `-`")
	}
	if in.keyring, err = keyringFlag(c); err != nil {
		return in, err
	}
	if in.trust, err = fingerprintFlag(c); err != nil {
		return in, err
	}
	in.volumes, err = openVolumes(c.Args().Slice())
	return in, err
}

// fingerprintFlag returns --trust-fingerprint as keys have it, of what people copy: with spaces, in lower case, behind 0x.
func fingerprintFlag(c *cli.Context) (string, error) {
	given := c.String("trust-fingerprint")
	s := strings.TrimPrefix(strings.ToUpper(strings.ReplaceAll(given, " ", "")), "0X")
	if c.IsSet("trust-fingerprint") && (len(s) != 40 || strings.Trim(s, "0123456789ABCDEF") != "") {
		return "", usagef(c, "--trust-fingerprint is %q; want all 40 hexadecimal digits, as `oxbow key show` prints them", given)
	}
	return s, nil
}

// volumeSuffix is how the names of volumes in a directory end.
const volumeSuffix = ".tar"

// openVolumes opens the volumes that arguments name: files, all volumes of directories, or "-" for standard input, which has to be
// alone. Nothing else is a volume.
func openVolumes(args []string) (volumes []*os.File, err error) {
	if slices.Contains(args, "-") {
		if len(args) > 1 {
			return nil, errors.New("`-`, standard input, is one volume and has to be alone")
		}
		return []*os.File{os.Stdin}, nil
	}
	defer func() {
		if err != nil {
			closeAll(volumes)
		}
	}()
	for _, arg := range args {
		names, err := volumesIn(arg)
		if err != nil {
			return volumes, err
		}
		for _, name := range names {
			if len(volumes) == filesAtOnce {
				return volumes, fmt.Errorf("more than %d volumes at once: import them in parts, in any order", filesAtOnce)
			}
			f, err := os.Open(name)
			if err != nil {
				return volumes, fmt.Errorf("cannot read a volume: %w", err)
			}
			volumes = append(volumes, f)
		}
	}
	return volumes, nil
}

// volumesIn returns the volumes of a directory, or the file itself.
func volumesIn(arg string) ([]string, error) {
	info, err := os.Stat(arg)
	if err != nil {
		return nil, fmt.Errorf("cannot read a volume: %w", err)
	}
	if !info.IsDir() {
		return []string{arg}, nil
	}
	list, err := os.ReadDir(arg)
	if err != nil {
		return nil, fmt.Errorf("cannot look for volumes: %w", err)
	}
	var names []string
	for _, e := range list {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), volumeSuffix) {
			names = append(names, filepath.Join(arg, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, noVolume(arg, list)
	}
	return names, nil
}

// noVolume says what was looked for in a directory, and where it may be instead.
func noVolume(dir string, list []os.DirEntry) error {
	err := fmt.Errorf("%s has no volume of a bundle: none of the %s right in it is a file whose name ends with %s, as in oxbow-STREAM-0123456789ab-001-of-003%[3]s", dir, counted(len(list), "name"), volumeSuffix)
	for _, e := range list {
		below, _ := filepath.Glob(filepath.Join(dir, e.Name(), "*"+volumeSuffix))
		if e.IsDir() && len(below) > 0 {
			return &hinted{err, fmt.Sprintf("%s has one: name that directory", filepath.Join(dir, e.Name()))}
		}
	}
	return err
}

// volumesOf returns the files as volumes, of which reading ends with ctx.
func volumesOf(ctx context.Context, files []*os.File) (volumes []mirror.Volume) {
	for _, f := range files {
		v := mirror.Volume{Name: f.Name(), Reader: f}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			v.Reader = &waiting{ctx: ctx, r: f}
		}
		volumes = append(volumes, v)
	}
	return volumes
}

// A waiting reader reads from a pipe that may be quiet for ever, until ctx ends: what it then waits for is left behind.
type waiting struct {
	ctx context.Context
	r   io.Reader
	buf []byte
}

func (w *waiting) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	if len(w.buf) < len(p) {
		w.buf = make([]byte, len(p))
	}
	buf, done := w.buf[:len(p)], make(chan result, 1)
	go func() {
		n, err := w.r.Read(buf)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, buf[:r.n]), r.err
	case <-w.ctx.Done():
		w.buf = nil // the one left behind has it
		return 0, context.Cause(w.ctx)
	}
}

func closeAll[C io.Closer](all []C) {
	for _, c := range all {
		c.Close()
	}
}
