package proxy

import (
	"context"
	"errors"
	"io"
	"os"
)

// holdBack is how many bytes at the end of a response, whole or ranged, wait until the
// content is proven: no client completes a download of bytes that were not.
const holdBack = 64 << 10

// A fill's followers wait for the same bytes and wake together. In short steps each has
// its turn, and the last of many its first byte, while the others are served.
const (
	firstStep  = 16 << 10
	followStep = 256 << 10
)

// A follower is a reader of a content that a fill brings. It waits for bytes that are
// not here yet. http.ServeContent asks it for its size and seeks; then it hands it to a
// [reply], which sends from the file in the kernel.
type follower struct {
	ctx  context.Context // of the request
	size int64
	join func() *fill // called when the first byte is asked for

	f    *fill    // nil before that
	off  int64    // where the next byte is
	file *os.File // nil: nothing was read yet
	anew int      // of the fill, when it was asked for bytes of file
}

func (r *follower) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// failure returns why the fill has ended without the content; nil if it has not.
func (r *follower) failure() error {
	if r.f == nil {
		return nil
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.err
}

func (r *follower) begin() {
	if r.f == nil {
		r.f = r.join()
		r.anew = r.f.begun()
	}
}

// Seek is that of [io.Seeker].
func (r *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("negative position")
	}
	r.off = offset
	return offset, nil
}

// Read is that of [io.Reader]. It waits for all of the content.
func (r *follower) Read(p []byte) (int, error) {
	if r.off >= r.size {
		return 0, io.EOF
	}
	if err := r.proven(); err != nil {
		return 0, err
	}
	n, err := r.file.ReadAt(p, r.off)
	r.off += int64(n)
	return n, err
}

// ahead returns how many bytes can be read now, at least one.
func (r *follower) ahead() (int64, error) {
	r.begin()
	for {
		n, err := r.f.ahead(r.ctx, r, r.off, r.anew)
		if err == nil {
			err = r.open()
		}
		if errors.Is(err, errAnew) && r.file == nil { // nothing of it was sent
			r.anew = r.f.begun()
			continue
		}
		return n, err
	}
}

// proven waits until all of the content is proven.
func (r *follower) proven() error {
	r.begin()
	for {
		_, err := r.f.await(r.ctx, r, r.off, r.anew, nil)
		if err == nil {
			err = r.open()
		}
		if errors.Is(err, errAnew) && r.file == nil {
			r.anew = r.f.begun()
			continue
		}
		return err
	}
}

func (r *follower) open() (err error) {
	if r.file == nil {
		r.file, err = r.f.open(r.ctx, r.anew)
	}
	return err
}

// follow sends n bytes of a content that a fill brings, as they come.
func (w *reply) follow(r *follower, n int64) (sent int64, err error) {
	free, step := n-holdBack, int64(firstStep)
	for sent < n {
		var ready int64
		if sent < free {
			ready, err = r.ahead()
			ready = min(ready, free-sent)
		} else {
			err, ready = r.proven(), n-sent
		}
		if err != nil {
			w.count(0, err)
			return sent, err
		}
		m, err := w.sendPart(r, min(ready, step))
		sent += m
		step = followStep
		if err != nil || m == 0 {
			return sent, err
		}
	}
	return sent, nil
}

// sendPart sends n bytes that are here.
func (w *reply) sendPart(r *follower, n int64) (int64, error) {
	if _, err := r.file.Seek(r.off, io.SeekStart); err != nil {
		w.count(0, err)
		return 0, err
	}
	w.release()
	w.renew()
	m, err := io.Copy(w.ResponseWriter, &io.LimitedReader{R: r.file, N: n})
	r.off += m
	w.count(m, err)
	return m, err
}
