package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// indexRoom is the free space in bytes below which nothing is written to the index. Badger writes through memory maps of sparse
// files, and a process that does so on a full disk is killed by SIGBUS, which nothing can catch. It covers several files of
// Badger's of the size that the index uses.
const indexRoom = 32 << 20

// leastRoom is indexRoom for who only opens the index, or deletes from it on the way to free more: it covers one log and two
// tables of the size that the index uses.
const leastRoom = 8 << 20

// Space is how full the file system of the store is, in bytes.
type Space struct {
	Free    int64 // what this process may still write
	Reserve int64 // what of it ingest leaves alone
	Total   int64
}

// Space returns how full the file system of the store is.
func (s *Store) Space() (Space, error) {
	var st unix.Statfs_t
	err := s.onRoot(func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err != nil {
		return Space{}, fmt.Errorf("cannot tell the free space of store %s: %w", s.dir, err)
	}
	unit := st.Frsize
	return Space{Free: int64(st.Bavail) * unit, Reserve: s.opts.Reserve, Total: int64(st.Blocks) * unit}, nil
}

func (s *Store) onRoot(f func(fd int) error) error {
	for {
		if err := f(int(s.lock.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Room fails with a [*NoSpaceError] unless need more bytes can be ingested: beside the reserve, and beside what the running
// ingests may still write.
//
// Pulled blobs that nobody uses give way, so they count as free.
func (s *Store) Room(need int64) error {
	err := s.room(need)
	if e, ok := errors.AsType[*NoSpaceError](err); ok && e.lacking() <= s.evictable() {
		return nil
	}
	return err
}

func (s *Store) room(need int64) error {
	space, err := s.Space()
	if err != nil {
		return err
	}
	if space.Free-space.Reserve-s.promised.Load() < need {
		return &NoSpaceError{Dir: s.dir, Need: need + s.promised.Load(), Free: space.Free, Reserve: space.Reserve}
	}
	return nil
}

// promise sets need bytes aside for an ingest if there is room for them, or eviction can make it. What is written, or not needed
// any more, is taken from s.promised by the ingest.
func (s *Store) promise(need int64) error {
	err := s.tryPromise(need)
	if e, ok := errors.AsType[*NoSpaceError](err); ok && e.lacking() <= s.evictable() {
		s.evictOrWarn(e.lacking())
		err = s.tryPromise(need)
	}
	return err
}

func (s *Store) tryPromise(need int64) error {
	s.promising.Lock()
	defer s.promising.Unlock()
	if err := s.room(need); err != nil {
		return err
	}
	s.promised.Add(need)
	return nil
}

// A NoSpaceError says how much space is wanting. It Is [ErrNoSpace].
type NoSpaceError struct {
	Dir     string
	Need    int64 // bytes still to be written, those of the running ingests among them; 0 where the disk itself said that it is full
	Free    int64
	Reserve int64 // bytes of Free that are left alone
}

func (e *NoSpaceError) Error() string {
	need := ""
	if e.Need > 0 {
		need = " need " + sizeText(e.Need) + ","
	}
	return fmt.Sprintf("no space left for store %s:%s %s free, %s of it in reserve (`store: reserve:` in the configuration): free some on its file system, or run `oxbow store sweep`",
		e.Dir, need, sizeText(e.Free), sizeText(min(e.Free, e.Reserve)))
}

// lacking returns how many bytes more would do.
func (e *NoSpaceError) lacking() int64 { return e.Need + e.Reserve - e.Free }

// Is reports whether target is ErrNoSpace.
func (e *NoSpaceError) Is(target error) bool { return target == ErrNoSpace }

// sizeText returns n bytes in the unit that people read.
func sizeText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

func diskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// full turns the error of a write on a full disk into a NoSpaceError and gives up the ballast; other errors it returns as they are.
func (s *Store) full(err error) error {
	if !diskFull(err) {
		return err
	}
	e := &NoSpaceError{Dir: s.dir, Reserve: s.opts.Reserve}
	if space, err := s.Space(); err == nil {
		e.Free = space.Free
	}
	s.releaseBallast()
	return e
}

// roomForIndex must be asked before each batch of writes to the index. It gives up the ballast before it says no.
func (s *Store) roomForIndex() error { return s.roomFor(indexRoom) }

// roomFor fails unless there is the room of need bytes for the index, and the disk takes writes: Badger would remember what it could
// not write, and answer accordingly.
func (s *Store) roomFor(need int64) error {
	space, err := s.Space()
	if err != nil {
		return err
	}
	if space.Free < indexRoom && s.releaseBallast() {
		if space, err = s.Space(); err != nil {
			return err
		}
	}
	if space.Free < need {
		return fmt.Errorf("cannot use the index: %w", &NoSpaceError{Dir: s.dir, Need: need, Free: space.Free})
	}
	if err := takesFiles(filepath.Join(s.dir, ingestDir)); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("cannot use the index: %w", err)
	}
	return nil
}

// releaseBallast reports whether it made any room.
func (s *Store) releaseBallast() bool {
	st, err := s.root.Stat(ballastFile)
	if err != nil {
		return false
	}
	if err := s.root.Remove(ballastFile); err != nil {
		s.log.Error("the disk is full and the ballast cannot be removed", "store", s.dir, "reason", err)
		return false
	}
	s.log.Warn("the disk is full: the ballast was given up, so that serving and sweeping go on", "store", s.dir, "bytes", st.Size())
	return true
}

// restoreBallast makes the ballast file anew if it is gone and there is room for it. A store works without one, so that a failure
// is logged only.
func (s *Store) restoreBallast() {
	st, err := s.root.Stat(ballastFile)
	if err == nil && st.Size() == s.opts.Ballast {
		return
	}
	if err == nil {
		err = s.root.Remove(ballastFile)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot replace the ballast", "store", s.dir, "reason", err)
		return
	}
	if s.opts.Ballast == 0 {
		return
	}
	if err := s.room(s.opts.Ballast + indexRoom); err != nil {
		s.log.Warn("there is no room for the ballast", "store", s.dir, "reason", err)
		return
	}
	if err := s.makeBallast(); err != nil {
		s.log.Warn("cannot make the ballast", "store", s.dir, "reason", err)
	}
}

// makeBallast allocates the blocks of the ballast for real, under a name that the next Open clears should it stay.
func (s *Store) makeBallast() error {
	const temp = ingestDir + "/ballast"
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, s.opts.Ballast)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fillRandom(f, s.opts.Ballast)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.root.Remove(temp)
		return err
	}
	return s.root.Rename(temp, ballastFile)
}

// fillRandom writes size bytes that no file system can store in less.
func fillRandom(f *os.File, size int64) error {
	random := rand.NewChaCha8([32]byte{})
	buf := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(buf)))
		random.Read(buf[:n])
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}
