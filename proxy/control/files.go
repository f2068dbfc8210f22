package control

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// MaxFiles bounds the files of a request; the kernel passes 253 at once.
const MaxFiles = 250

// writeRequest sends a request with its files: the kernel hands the open descriptors over with the first byte (SCM_RIGHTS), so
// that the owner reads what it has no right, or no path, to open.
func writeRequest(conn *net.UnixConn, request []byte, files []*os.File) error {
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		if _, _, err := conn.WriteMsgUnix(request[:1], syscall.UnixRights(fds...), nil); err != nil {
			return err
		}
		request = request[1:]
	}
	_, err := conn.Write(request)
	return err
}

// A receiver reads from a connection, and collects the files that come with what it reads.
type receiver struct {
	conn *net.UnixConn

	mu     sync.Mutex // guards the rest
	files  []*os.File
	closed bool
}

// Read is that of [io.Reader].
func (r *receiver) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	oob := make([]byte, syscall.CmsgSpace(4*MaxFiles))
	n, oobn, _, _, err := r.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		r.collect(oob[:oobn])
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (r *receiver) collect(oob []byte) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue // something else than files
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "a file of the command")
			if r.closed || len(r.files) == MaxFiles {
				f.Close()
				continue
			}
			r.files = append(r.files, f)
		}
	}
}

// received returns the files that came so far.
func (r *receiver) received() []*os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files
}

// close closes the files.
func (r *receiver) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}
