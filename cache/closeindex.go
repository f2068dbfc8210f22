package cache

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Badger writes a table when it is closed. On a full disk that is the end of the process, by SIGBUS, and on one that takes no writes
// any more it is tried again for ever. So an index is closed only where that works. Otherwise it is left as a crash leaves it, which
// loses nothing: all writes are in its log, and durable.

// errLeft: the index was not closed, and Badger may write to it still. End the process; who opens the index again does so as after a
// crash.
var errLeft = errors.New("the index was left as it is")

// closeTime bounds the closing of an index, which takes some milliseconds, or some seconds after many writes.
const closeTime = 30 * time.Second

// close must come after the end of every other use. The error is errLeft where Badger still has its files.
func (x *index) close() error {
	x.handle.Lock()
	defer x.handle.Unlock()
	if err := x.closable(); err != nil {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	x.closed = make(chan error, 1)
	go func() { x.closed <- x.db.Close() }()
	late := time.NewTimer(x.closeTime)
	defer late.Stop()
	select {
	case err := <-x.closed:
		if err != nil {
			return fmt.Errorf("cannot close the index: %w", err)
		}
		return nil
	case <-late.C:
		return fmt.Errorf("%w: closing it took more than %v", errLeft, x.closeTime)
	}
}

// closable says why the index cannot be closed.
func (x *index) closable() error {
	if err := x.room(leastRoom); err != nil {
		return err
	}
	return takesFiles(x.dir)
}

// takesFiles fails if no file can be made in dir. The flags of a file system do not always tell: ext4 that has met an error is
// read-only without saying so.
func takesFiles(dir string) error {
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) { // it has no files without a name
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
