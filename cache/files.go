package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenFiles opens the read-only view of the store in dir. It fails with [ErrNoStore] or a [*FormatError] as [Open] does.
func OpenFiles(dir string) (*Files, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot open store %s: %w: no such directory; name another with --store, or create one there", dir, ErrNoStore)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open store %s: %w", dir, err)
	}
	f := &Files{dir: dir, root: root, own: true}
	if err := f.checkFormat(); err != nil {
		root.Close()
		return nil, err
	}
	return f, nil
}

// Close ends the view.
func (f *Files) Close() error {
	if !f.own {
		return nil
	}
	return f.root.Close()
}

// Dir returns the directory of the store.
func (f *Files) Dir() string { return f.dir }

// Streams returns the names of the streams that the store knows, sorted: those with a state or with snapshots.
func (f *Files) Streams() ([]string, error) {
	states, err := fs.ReadDir(f.root.FS(), streamsDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list streams of store %s: %w", f.dir, err)
	}
	var names []string
	for _, e := range states {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && checkName(name) == nil {
			names = append(names, name)
		}
	}
	snapshots, err := fs.ReadDir(f.root.FS(), snapshotsDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list streams of store %s: %w", f.dir, err)
	}
	for _, e := range snapshots {
		if e.IsDir() && checkName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Blob opens blob d for reading. It does not consult the index: it is for blobs that a snapshot names, which are known to be
// whole. The error is an [ErrMiss] where there is none.
func (f *Files) Blob(d Digest) (*os.File, error) {
	file, err := f.root.Open(blobName(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot open blob %v in store %s: %w", d, f.dir, ErrMiss)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open blob %v in store %s: %w", d, f.dir, err)
	}
	return file, nil
}

// Holds reports whether blob d is there, in that size. What it is was proven as it came.
func (f *Files) Holds(d Digest, size int64) bool {
	got, err := f.blobSize(d)
	return err == nil && got == size
}

// Link makes name, in an open directory, another name of blob d. The file stays when the blob is swept; it is read-only, and who could
// change its bytes could change the blob's: its owner and root. It fails on another file system, and for a user whom the kernel does
// not allow hard links to files of others.
func (f *Files) Link(d Digest, dir *os.File, name string) error {
	file, err := f.Blob(d)
	if err != nil {
		return err
	}
	defer file.Close()
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), int(dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return fmt.Errorf("cannot link blob %v of store %s: %w", d, f.dir, err)
	}
	return nil
}

// ReadFile returns the bytes of blob d, of which there may be at most limit: it is for documents.
func (f *Files) ReadFile(d Digest, limit int64) ([]byte, error) {
	file, err := f.Blob(d)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var data bytes.Buffer
	info, err := file.Stat()
	if err == nil {
		data.Grow(int(min(info.Size(), limit)) + bytes.MinRead)
		_, err = data.ReadFrom(io.LimitReader(file, limit+1))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read blob %v in store %s: %w", d, f.dir, err)
	}
	if int64(data.Len()) > limit {
		return nil, fmt.Errorf("cannot read blob %v in store %s: it has more than %d bytes", d, f.dir, limit)
	}
	return data.Bytes(), nil
}

// Prove reads blob d whole, whatever is known of it. The error is a [*MismatchError] if it is not what w wants.
func (f *Files) Prove(d Digest, w Want) error {
	file, err := f.Blob(d)
	if err != nil {
		return err
	}
	defer file.Close()
	h := newSums(w)
	if _, err := io.Copy(h, file); err != nil {
		return fmt.Errorf("cannot read blob %v in store %s: %w", d, f.dir, err)
	}
	return h.check(w)
}

// eachBlob calls visit with every file that is named like a blob, in the order
// of their digests.
func (f *Files) eachBlob(ctx context.Context, visit func(d Digest, size int64) error) error {
	blobs, err := f.root.OpenRoot(blobsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer blobs.Close()
	for i := range 256 {
		dir := fmt.Sprintf("%02x", i)
		list, err := readDirIn(blobs, dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if !isDigest(e) || e.Name()[:2] != dir {
				continue
			}
			d, _ := ParseDigest(e.Name())
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // swept meanwhile
			}
			if err == nil {
				err = visit(d, info.Size())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
