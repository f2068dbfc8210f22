package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketName is the name of the socket in the store's directory.
const SocketName = "oxbow.sock"

// maxAddress is the length of the longest path that fits into the address of a
// socket, in bytes (unix(7): 108, of which the last is zero).
const maxAddress = 107

// throughDir calls f with a path of the socket in dir that is short enough for
// an address. Longer ones go through a descriptor of the directory.
func throughDir(dir string, f func(path string) error) error {
	if path := socketIn(dir); len(path) <= maxAddress {
		return f(path)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f("/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + SocketName)
}

// socketIn returns the path of the socket in dir. It is not cleaned as that of
// filepath.Join: where dir has a ".." behind a symbolic link that is another one.
func socketIn(dir string) string { return dir + "/" + SocketName }

// listen makes the socket in dir. One that is there is of a process that ended
// without taking it away: the caller has the store's lock, and who has that
// listens.
func listen(dir string) (*net.UnixListener, error) {
	var ln *net.UnixListener
	err := throughDir(dir, func(path string) (err error) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		ln.SetUnlinkOnClose(false) // its path may be gone by then
		if err = os.Chmod(path, 0o600); err != nil {
			ln.Close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", filepath.Join(dir, SocketName), err)
	}
	return ln, nil
}

// unlink takes the socket away.
func unlink(dir string) error {
	err := os.Remove(socketIn(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// dial connects to the socket in dir.
func dial(dir string) (*net.UnixConn, error) {
	var conn *net.UnixConn
	err := throughDir(dir, func(path string) (err error) {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTDIR) {
		return nil, ErrNobody
	}
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", filepath.Join(dir, SocketName), err)
	}
	return conn, nil
}

// A Peer is the process at the other end of a connection, as the kernel knows it.
type Peer struct{ UID, PID int }

func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return Peer{}, err
	}
	return Peer{UID: int(cred.Uid), PID: int(cred.Pid)}, nil
}

// ownerOf returns the user to whom dir belongs.
func ownerOf(dir string) (int, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	return int(info.Sys().(*syscall.Stat_t).Uid), nil
}
