package streamstest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"oxbow/streams"
)

// response is one answer with its fault. Faults of header and body take effect
// where the bytes pass through it.
type response struct {
	http.ResponseWriter
	ctx     context.Context
	fault   Fault
	release <-chan struct{}
	up      *Upstream
	record  *Request
	sent    int64

	withhold bool // no byte goes out beyond limit
	limit    int64
}

// serve answers r, or panics with [http.ErrAbortHandler] to close the connection.
func (w *response) serve(site *Publication, r *http.Request, path string) {
	f := w.fault
	if f.Hang {
		w.hang()
	}
	w.sleep(f.Delay)
	switch {
	case f.Drop:
		panic(http.ErrAbortHandler)
	case f.Redirect != "":
		w.Header().Set("Location", f.Redirect)
		w.fail(cmp.Or(f.Status, http.StatusFound))
		return
	case f.Status != 0:
		w.fail(f.Status)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.fail(http.StatusMethodNotAllowed)
		return
	}
	file, found := site.files[path]
	if f.Unsigned && file.document != nil {
		file, found = unsigned(file, path)
	}
	if f.Body != nil {
		file, found = published{content: bytes.NewReader(f.Body), size: int64(len(f.Body))}, true
	}
	if !found {
		w.fail(http.StatusNotFound)
		return
	}
	w.good(file, r, path)
}

// good answers with file.
func (w *response) good(file published, r *http.Request, path string) {
	f := w.fault
	if f.NoValidators {
		file.etag, file.modified = "", time.Time{}
	}
	if file.etag != "" {
		w.Header().Set("ETag", file.etag)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if strings.HasSuffix(path, ".json") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.setHeader()
	switch {
	case f.FlipAt > 0:
		file.content = flipped{file.content, f.FlipAt - 1}
	case f.FlipAt == -1:
		file.content = flipped{file.content, file.size - 1}
	}
	r = r.Clone(r.Context())
	if f.NoRange {
		r.Header.Del("Range")
	}
	if f.RangeShift != 0 {
		r.Header.Set("Range", shifted(r.Header.Get("Range"), f.RangeShift))
	}
	http.ServeContent(w, r, "", file.modified, io.NewSectionReader(file.content, 0, file.size))
	if s := w.record.Status; f.Extra > 0 && (s == http.StatusOK || s == http.StatusPartialContent) && r.Method == http.MethodGet {
		w.Write(make([]byte, f.Extra))
	}
}

// unsigned takes the signature off a document.
func unsigned(file published, path string) (published, bool) {
	if strings.HasSuffix(path, ".gpg") {
		return published{}, false
	}
	if text, err := streams.ClearText(file.document); err == nil {
		file.content, file.size = bytes.NewReader(text), int64(len(text))
	}
	return file, true
}

// shifted moves the start of a single byte range.
func shifted(header string, by int64) string {
	from, to, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	n, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return header
	}
	return fmt.Sprintf("bytes=%d-%s", n+by, to)
}

// fail answers with a status and a line of text.
func (w *response) fail(status int) {
	w.Header().Set("Content-Type", "text/plain")
	w.setHeader()
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d %s\n", status, http.StatusText(status))
}

func (w *response) setHeader() {
	for name, values := range w.fault.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
}

// WriteHeader implements [http.ResponseWriter].
func (w *response) WriteHeader(status int) {
	h, f := w.Header(), w.fault
	if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		length = max(0, length+f.Extra+f.WrongLength)
		h.Set("Content-Length", fmt.Sprint(length))
		if f.WrongLength < 0 {
			w.withhold, w.limit = true, length
		}
	}
	if f.Chunked {
		h.Del("Content-Length")
	}
	if f.NoRange {
		h.Del("Accept-Ranges")
	}
	w.note(func(r *Request) { r.Status = status })
	w.ResponseWriter.WriteHeader(status)
	w.stop(-1)
}

// Write implements [http.ResponseWriter]: it sends up to the next place where
// the fault takes effect, again and again.
func (w *response) Write(p []byte) (n int, err error) {
	for n < len(p) {
		chunk := p[n:]
		if w.withhold && w.sent == w.limit {
			return len(p), nil
		}
		chunk = chunk[:w.room(int64(len(chunk)))]
		// Noted first: a client that has the bytes can rely on the count.
		w.note(func(r *Request) { r.Bytes += int64(len(chunk)) })
		k, err := w.ResponseWriter.Write(chunk)
		w.note(func(r *Request) { r.Bytes -= int64(len(chunk) - k) })
		n, w.sent = n+k, w.sent+int64(k)
		if err != nil {
			return n, err
		}
		if rate := w.fault.BytesPerSecond; rate > 0 {
			w.flush()
			w.sleep(time.Duration(k) * time.Second / time.Duration(rate))
		}
		w.stop(w.sent)
	}
	return n, nil
}

// room returns how many of n bytes may be sent before the fault is looked at again.
func (w *response) room(n int64) int64 {
	for _, at := range []int64{w.fault.CutAfter, w.fault.HangAfter, w.limit} {
		if left := at - w.sent; left > 0 {
			n = min(n, left)
		}
	}
	if rate := w.fault.BytesPerSecond; rate > 0 {
		n = min(n, max(1, rate/50))
	}
	return n
}

func (w *response) note(f func(*Request)) {
	w.up.mu.Lock()
	defer w.up.mu.Unlock()
	f(w.record)
}

// stop cuts or hangs if the fault says so at this place; -1 is the end of the header.
func (w *response) stop(at int64) {
	if at == w.fault.HangAfter && at != 0 {
		w.flush()
		w.hang()
	}
	if at == w.fault.CutAfter && at != 0 {
		w.flush()
		panic(http.ErrAbortHandler)
	}
}

func (w *response) flush() {
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// hang waits until it is released, or aborts when the client is gone.
func (w *response) hang() {
	select {
	case <-w.release:
	case <-w.ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

func (w *response) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
		panic(http.ErrAbortHandler)
	}
}
