package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
)

// volumeNames returns the files of the volumes.
func volumeNames(e *mirror.Export, out string) ([]string, error) {
	info, err := os.Stat(out)
	if out == "-" || err != nil || !info.IsDir() {
		switch {
		case out != "-" && !strings.HasSuffix(out, volumeSuffix):
			return nil, fmt.Errorf("cannot write a bundle: there is no directory %s, and a file's name has to end with %s", out, volumeSuffix)
		case e.Contents.Volumes > 1:
			return nil, fmt.Errorf("cannot write %d volumes to %s: --out has to be a directory", e.Contents.Volumes, out)
		}
		return []string{out}, nil
	}
	what := "streams"
	if s := e.Contents.Snapshots; len(s) == 1 {
		what = s[0].Stream
	}
	var names []string
	for n := 1; n <= e.Contents.Volumes; n++ {
		names = append(names, filepath.Join(out, fmt.Sprintf("oxbow-%s-%.12s-%03d-of-%03d%s", what, e.Contents.ID(), n, e.Contents.Volumes, volumeSuffix)))
	}
	return names, nil
}

// A begunVolume is a file that a volume is written to.
type begunVolume struct {
	file *os.File
	from int // the first member that is missing; -1: none is
}

// beginVolume opens a file to write a volume to, or to go on with it behind the last member that is whole.
func beginVolume(name string, v *bundle.Volume, id cache.Digest) (*begunVolume, error) {
	if name == "-" {
		return &begunVolume{file: os.Stdout}, nil
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write a volume: %w", err)
	}
	b := &begunVolume{file: file}
	if err := b.goOn(v, id); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot go on with %s: %w", name, err)
	}
	return b, nil
}

// end closes the file, and takes one away that is empty: a name without a byte says more than there is.
func (b *begunVolume) end() {
	if info, err := b.file.Stat(); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		os.Remove(b.file.Name())
	}
	b.file.Close()
}

// lacks returns how many of the volume's bytes are not there yet.
func (b *begunVolume) lacks(size int64) int64 {
	info, err := b.file.Stat()
	if err != nil || b.from < 0 || !info.Mode().IsRegular() {
		return 0
	}
	return max(size-info.Size(), 0)
}

// errOther: a file is not the beginning of the volume that is meant.
var errOther = errors.New("it is something else than the bundle that is meant: remove it, or choose another --out")

// goOn finds out how much of the volume is there, and cuts off the rest.
func (b *begunVolume) goOn(v *bundle.Volume, id cache.Digest) error {
	info, err := b.file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return err
	}
	whole, err := bundle.Whole(b.file, id)
	if err == nil && whole == 0 && !begins(b.file) {
		err = bundle.ErrNotBundle
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", errOther, err)
	}
	if whole == v.Members() && info.Size() == v.Size() {
		b.from = -1
		return nil
	}
	b.from = min(whole, v.Members())
	if err := b.file.Truncate(v.Offset(b.from)); err != nil {
		return err
	}
	_, err = b.file.Seek(v.Offset(b.from), io.SeekStart)
	return err
}

// begins reports whether a file may be the beginning of a volume, of which not even the first member is whole.
func begins(f *os.File) bool {
	name := bundle.SitePath()
	buf := make([]byte, len(name))
	n, _ := f.ReadAt(buf, 0)
	return strings.HasPrefix(name, string(buf[:n]))
}

// roomFor refuses to begin what a medium has no room for.
func roomFor(dir string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil // it shows
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("cannot write a bundle: %s more are needed, and %s has %s free: make room, or carry it in parts by --split and several media", iec(need), dir, iec(free))
	}
	return nil
}
