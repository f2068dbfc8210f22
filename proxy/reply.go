package proxy

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"oxbow/cache"
)

// stride is how many bytes of a file are handed to the kernel at once; the stall
// limit is renewed after each. With the default limit of two minutes a client has
// to take about 9 kB/s.
const stride = 1 << 20

// A reply is the answer to one request. It renews the stall limit as bytes flow
// and keeps count for the log. It hands files on in the form from which package
// net makes sendfile calls: an *os.File below exactly one io.LimitedReader.
type reply struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	head    bool // a HEAD request: what is written is not sent

	status int   // 0 until the header is written
	held   bool  // the header waits for the first byte of the body: see hold
	bytes  int64 // sent of the body
	length int64 // of the body as the header promises, -1 when it does not say
	err    error // the first failure to read or to send

	stream   string       // for the log, where the request got that far
	snapshot cache.Digest // likewise

	host    string // asked of the forward proxy, as the client has it
	outcome string // of a request to it
	carried int64  // bytes, through a tunnel
}

func newReply(w http.ResponseWriter, r *http.Request, stall time.Duration) *reply {
	reply := &reply{
		ResponseWriter: w,
		control:        http.NewResponseController(w),
		stall:          stall,
		head:           r.Method == http.MethodHead,
		length:         -1,
	}
	reply.renew()
	return reply
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// renew gives the client another stall limit's time to take what comes next. A
// writer without deadlines, as in tests, has no limit.
func (w *reply) renew() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
}

func (w *reply) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		if n, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); err == nil {
			w.length = n
		}
	}
	if !w.held {
		w.ResponseWriter.WriteHeader(status)
	}
}

// hold has the header wait for the first byte of the body, so that another answer can
// take its place while there is none.
func (w *reply) hold() { w.held = true }

// release sends the header that waited.
func (w *reply) release() {
	if w.held {
		w.held = false
		w.ResponseWriter.WriteHeader(w.status)
	}
}

// withdraw takes back a header that still waits, and reports whether it does.
func (w *reply) withdraw() bool {
	if !w.held {
		return false
	}
	w.held, w.status, w.length, w.err = false, 0, -1, nil
	for _, name := range []string{"Content-Length", "Content-Range", "Content-Type", "Accept-Ranges", "ETag", "Cache-Status", "Cache-Control"} {
		w.Header().Del(name)
	}
	return true
}

func (w *reply) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.release()
	w.renew()
	n, err := w.ResponseWriter.Write(p)
	w.count(int64(n), err)
	return n, err
}

// ReadFrom sends src, at most one stride at a time.
func (w *reply) ReadFrom(src io.Reader) (sent int64, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	whole, limited := src.(*io.LimitedReader)
	if !limited {
		whole = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	if r, filling := whole.R.(*follower); filling {
		sent, err = w.follow(r, whole.N)
		whole.N -= sent
		return sent, err
	}
	w.release()
	for whole.N > 0 && err == nil {
		w.renew()
		step := min(whole.N, stride)
		var n int64
		n, err = io.Copy(w.ResponseWriter, &io.LimitedReader{R: whole.R, N: step})
		w.count(n, err)
		sent += n
		whole.N -= n
		if n < step {
			break
		}
	}
	return sent, err
}

func (w *reply) count(n int64, err error) {
	if !w.head {
		w.bytes += n
	}
	if w.err == nil {
		w.err = err
	}
}

// cutShort reports whether less of the body was sent than the header promised.
func (w *reply) cutShort() bool {
	return !w.head && w.length >= 0 && w.bytes < w.length && w.status != http.StatusNotModified
}

// readFailed reports whether it was the disk, not the client, that ended the reply:
// the file had no more bytes, or gave an error.
func (w *reply) readFailed() bool {
	var path *fs.PathError
	return w.err == nil || errors.Is(w.err, syscall.EIO) || errors.As(w.err, &path)
}
