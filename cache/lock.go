package cache

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Holder is the process that owns a store, as it described itself.
type Holder struct {
	Command string
	PID     int // 0 where it could not be read
	Since   time.Time
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("%q (pid %d, since %s)", h.Command, h.PID, h.Since.Format(time.RFC3339))
}

// A LockedError says who owns a store. It Is [ErrLocked].
type LockedError struct {
	Dir    string
	Holder Holder
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("store %s is in use by %v: wait until it is done, or stop it", e.Dir, e.Holder)
}

// Is reports whether target is ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// How often, and after how long a pause, a lock that is held is tried again: [Files.Holder] may hold it for some microseconds.
const (
	lockTries = 3
	lockPause = 5 * time.Millisecond
)

// takeLock makes this process the owner, and writes into LOCK who it is.
// The kernel drops the lock when the process ends, however it ends, so that no stale lock can remain.
func (s *Store) takeLock() error {
	f, err := s.root.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("cannot lock store %s: %w", s.dir, err)
	}
	for try := 1; ; try++ {
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || try == lockTries {
			break
		}
		time.Sleep(lockPause)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return &LockedError{Dir: s.dir, Holder: s.files.readHolder()}
	}
	if err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil {
			s.died = st.Size() > 0
			err = s.nameHolder(f)
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot lock store %s: %w", s.dir, err)
	}
	s.lock = f
	return nil
}

// nameHolder is writeHolder that gives up the ballast on a full disk. Should that not help it is only logged: the lock is what
// keeps others out, and the text is for people.
func (s *Store) nameHolder(f *os.File) error {
	err := s.writeHolder(f)
	if diskFull(err) && s.releaseBallast() {
		err = s.writeHolder(f)
	}
	if diskFull(err) {
		s.log.Warn("cannot write into LOCK who owns the store", "store", s.dir, "reason", err)
		return nil
	}
	return err
}

// writeHolder writes first and truncates then, so that a reader finds three lines at any instant.
func (s *Store) writeHolder(f *os.File) error {
	command := strings.ReplaceAll(s.opts.Owner, "\n", " ")
	text := fmt.Sprintf("%s\n%d\n%s\n", command, os.Getpid(), s.opts.Now().UTC().Format(time.RFC3339))
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// dropLock unlocks before it closes: a child between fork and exec has the file open, too, and would hold the lock on. LOCK keeps
// its text if the next owner is to take this one for dead.
func (s *Store) dropLock(dead bool) error {
	if s.lock == nil {
		return nil
	}
	var err error
	if !dead {
		err = s.lock.Truncate(0)
	}
	return errors.Join(err, flock(s.lock, unix.LOCK_UN), s.lock.Close())
}

// Holder says which process owns the store; false where none does. An owner that closed the store left LOCK empty; whether one
// that LOCK names is still alive, only the lock tells.
func (f *Files) Holder() (Holder, bool) {
	if data, err := f.root.ReadFile(lockFile); err != nil || len(data) == 0 {
		return Holder{}, false
	}
	lock, err := f.root.Open(lockFile)
	if err != nil {
		return Holder{}, false
	}
	defer lock.Close()
	if flock(lock, unix.LOCK_SH|unix.LOCK_NB) == nil {
		return Holder{}, false
	}
	return f.readHolder(), true
}

func (f *Files) readHolder() Holder {
	data, err := f.root.ReadFile(lockFile)
	if err != nil {
		return Holder{}
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) < 4 {
		return Holder{}
	}
	pid, err := strconv.Atoi(lines[1])
	if err != nil {
		return Holder{}
	}
	since, err := time.Parse(time.RFC3339, lines[2])
	if err != nil {
		return Holder{}
	}
	return Holder{Command: lines[0], PID: pid, Since: since}
}

// flock takes a lock that belongs to the open file, not to the process: so a second open in this process is refused as well.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
