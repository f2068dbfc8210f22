package streamstest

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Fault says how the response to one request goes wrong. The zero Fault is a
// good response. Faults of the body may be combined; offsets count bytes of the
// body of this response unless it says otherwise.
type Fault struct {
	// Hang waits before anything is answered, until the client is gone or
	// [Upstream.Release] is called, and then goes on.
	Hang bool
	// Delay waits before anything is answered.
	Delay time.Duration
	// Drop closes the connection without an answer.
	Drop bool
	// Redirect answers with this Location, and 302 unless Status says otherwise.
	Redirect string
	// Status answers with this status and a line of text.
	Status int
	// Header is set on the response whatever it is, over what a good one has: a
	// Retry-After, a weak ETag.
	Header http.Header

	// Unsigned leaves the signature out: the text alone of an .sjson, 404 for a .gpg.
	Unsigned bool
	// Body is sent in place of the content, with 200 and without validators.
	Body []byte
	// NoRange ignores Range and does not offer it.
	NoRange bool
	// RangeShift answers a Range request with a range that begins this many bytes
	// later than asked for, and says so in Content-Range.
	RangeShift int64
	// NoValidators leaves out ETag and Last-Modified.
	NoValidators bool

	// CutAfter closes the connection after this many bytes; -1 cuts between
	// header and body.
	CutAfter int64
	// HangAfter stops after this many bytes as Hang does; -1 stops between header
	// and body.
	HangAfter int64
	// FlipAt inverts a byte of the file, counted from 1 at its beginning whatever
	// range is asked for; -1 is the last one.
	FlipAt int64
	// WrongLength is added to Content-Length. If positive the body ends too early
	// for it, if negative the rest of the body is not sent.
	WrongLength int64
	// Extra sends this many zeroes behind the content, and a Content-Length to match.
	Extra int64
	// Chunked leaves Content-Length out.
	Chunked bool
	// BytesPerSecond limits the rate of the body. If zero, there is no limit.
	BytesPerSecond int64
}

// At returns a fault function for [Upstream.SetFault] that gives f to every
// request whose path ends with suffix.
func At(suffix string, f Fault) func(*http.Request) Fault {
	return func(r *http.Request) Fault {
		if strings.HasSuffix(r.URL.Path, suffix) {
			return f
		}
		return Fault{}
	}
}

// InTurn is like [At], but the first request gets the first fault, the next one
// the second, and those after the last fault a good response.
func InTurn(suffix string, faults ...Fault) func(*http.Request) Fault {
	var mu sync.Mutex // guards faults
	return func(r *http.Request) Fault {
		if !strings.HasSuffix(r.URL.Path, suffix) {
			return Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(faults) == 0 {
			return Fault{}
		}
		f := faults[0]
		faults = faults[1:]
		return f
	}
}
