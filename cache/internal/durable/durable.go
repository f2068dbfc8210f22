// Package durable carries out the few operations whose order on disk a store depends on.
//
// On Linux a file is safe once its own data was synced (fsync of the file, or syncfs of the file system that holds it) and the
// directory entry that names it was synced as well (fsync of the directory). A rename within one file system is atomic, but
// nothing keeps it from reaching the disk before the data of the file: so data is synced before the rename, always.
// A failed sync is final for the bytes that it covers. The kernel reports a write-back error once and then takes the pages for
// clean (fsync(2), and "Can applications recover from fsync failures?", Rebello et al., 2020): syncing again proves nothing.
package durable

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A Disk is one directory tree on one file system. All names are slash-separated paths relative to Root.
type Disk struct {
	// Root is the tree.
	Root *os.Root
	// Temp is a directory of the tree for files that are not whole yet; what it holds after a crash is waste.
	Temp string
	// Trace, if set, is told of every operation before it is carried out; an error that it returns takes the operation's place.
	// It lets tests see the order of operations and make them fail.
	Trace func(Op) error

	fs *os.File // open since before the first write, so that syncfs reports every write-back error since then
}

// An Op is one operation on a Disk.
type Op struct {
	Kind string // "fsync", "syncfs", "rename", "remove" or "mkdir"
	Name string // what it is done to: a path relative to Root, the last element of an open file's name, or a rename's new name
}

// New returns the Disk for root. Close it after use; root stays open.
func New(root *os.Root, temp string) (*Disk, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	return &Disk{Root: root, Temp: temp, fs: f}, nil
}

// Close releases what New opened.
func (d *Disk) Close() error { return d.fs.Close() }

func (d *Disk) trace(kind, name string) error {
	if d.Trace == nil {
		return nil
	}
	return d.Trace(Op{Kind: kind, Name: name})
}

// Sync makes the bytes of f durable, though not the name that leads to it.
func (d *Disk) Sync(f *os.File) error {
	if err := d.trace("fsync", filepath.Base(f.Name())); err != nil {
		return err
	}
	return f.Sync()
}

// SyncFS makes everything durable that was written to the file system so far, names included. It fails if any write-back has
// failed since the last SyncFS, or since New: also when the bytes were another's.
func (d *Disk) SyncFS() error {
	if err := d.trace("syncfs", "."); err != nil {
		return err
	}
	return os.NewSyscallError("syncfs", again(func() error { return unix.Syncfs(int(d.fs.Fd())) }))
}

// SyncDir makes the entries of the directory name durable.
func (d *Disk) SyncDir(name string) error {
	if err := d.trace("fsync", name); err != nil {
		return err
	}
	f, err := d.Root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Rename moves a file whose bytes are durable to a new name, which is durable only after SyncDir of its directory, or SyncFS.
func (d *Disk) Rename(from, to string) error {
	if err := d.trace("rename", to); err != nil {
		return err
	}
	if !fs.ValidPath(from) || !fs.ValidPath(to) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrInvalid}
	}
	// One system call, where os.Root opens every directory on the way: it is the most frequent operation by far.
	fd := int(d.fs.Fd())
	if err := again(func() error { return unix.Renameat(fd, from, fd, to) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Exists reports whether there is a file called name.
func (d *Disk) Exists(name string) bool {
	var st unix.Stat_t
	return fs.ValidPath(name) &&
		again(func() error { return unix.Fstatat(int(d.fs.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) }) == nil
}

// again repeats a system call that a signal interrupts.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// WriteFile replaces the file name, in this order: write under a name of its own, sync, rename, sync the directory.
// After a crash the file has either its old or its new content.
func (d *Disk) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return d.WriteFunc(name, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteFunc is WriteFile for what write writes.
func (d *Disk) WriteFunc(name string, perm fs.FileMode, write func(io.Writer) error) (err error) {
	temp := path.Join(d.Temp, "write-"+rand.Text())
	f, err := d.Root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			d.Root.Remove(temp)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := d.Sync(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := d.Rename(temp, name); err != nil {
		return err
	}
	return d.SyncDir(path.Dir(name))
}

// Remove deletes a file for good. A file that is not there is no error; its directory is synced all the same, since an earlier
// attempt may have removed it and not got so far.
func (d *Disk) Remove(name string) error {
	if err := d.trace("remove", name); err != nil {
		return err
	}
	if err := d.Root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.SyncDir(path.Dir(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// MkdirAll makes the directory name and those that lead to it, and syncs the parent of each that it makes.
func (d *Disk) MkdirAll(name string, perm fs.FileMode) error {
	if st, err := d.Root.Stat(name); err == nil && st.IsDir() {
		return nil
	}
	parent := path.Dir(name)
	if parent != "." {
		if err := d.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := d.trace("mkdir", name); err != nil {
		return err
	}
	if err := d.Root.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.SyncDir(parent)
}
