package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Backoff says how long to wait between tries: Base at first, twice as long
// after each further failure, at most Max, and of that a random part between
// a half and all, so that many clients do not come back at once. An answer's
// Retry-After makes the wait longer, at most MaxRetryAfter.
// Zero fields mean 500 ms, 30 s and 2 minutes.
type Backoff struct {
	Base, Max, MaxRetryAfter time.Duration
}

func (b Backoff) withDefaults() Backoff {
	return Backoff{
		Base:          orElse(b.Base, 500*time.Millisecond),
		Max:           orElse(b.Max, 30*time.Second),
		MaxRetryAfter: orElse(b.MaxRetryAfter, 2*time.Minute),
	}
}

// after returns the wait after so many failures in a row, one or more, of
// which the last was err.
func (b Backoff) after(failures int, err error) time.Duration {
	d := min(b.Base, b.Max)
	for range failures - 1 {
		if d *= 2; d >= b.Max {
			d = b.Max
			break
		}
	}
	d = d/2 + rand.N(d/2+1)
	if status, ok := errors.AsType[*StatusError](err); ok && status.RetryAfter > 0 {
		d = max(d, min(status.RetryAfter, b.MaxRetryAfter)+rand.N(b.Base))
	}
	return d
}

var (
	// ErrNotFound: upstream does not have it. Look whether its metadata
	// has changed, or try another source.
	ErrNotFound = errors.New("not found upstream")

	// ErrUpstream: upstream did not deliver, although it was asked as often as
	// makes sense. Try later, or another source. See [FetchError].
	ErrUpstream = errors.New("upstream does not deliver")
)

// A StatusError is an answer with a status that was not asked for. It is
// ErrNotFound for 404 and 410.
type StatusError struct {
	URL        string        // without user, password and query
	Code       int           // HTTP status
	RetryAfter time.Duration // 0 when upstream gave none
}

func (e *StatusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.Code, http.StatusText(e.Code)))
}

func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && (e.Code == http.StatusNotFound || e.Code == http.StatusGone)
}

// statusError makes an error of an answer, and ends it.
func statusError(a *answer) error {
	after, _ := parseRetryAfter(a.Header.Get("Retry-After"), time.Now())
	a.body.drain()
	return &StatusError{URL: Display(a.url), Code: a.StatusCode, RetryAfter: after}
}

// A FetchError says that an upstream does not deliver something. It is
// ErrUpstream, and whatever Err is.
type FetchError struct {
	URL      string // without user, password and query
	Attempts int    // tries, since the last one that brought anything new
	Err      error
}

func (e *FetchError) Error() string {
	s := fmt.Sprintf("cannot fetch %s: %v", e.URL, e.Err)
	if e.Attempts > 1 {
		s += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return s
}

func (e *FetchError) Unwrap() error        { return e.Err }
func (e *FetchError) Is(target error) bool { return target == ErrUpstream }

// sourcesError is what is left when none of several sources delivers. It is
// ErrNotFound only if that is what all of them say, and otherwise all that
// any of them is.
type sourcesError []error

func (e sourcesError) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e sourcesError) Is(target error) bool {
	for _, err := range e {
		if is := errors.Is(err, target); is != (target == ErrNotFound) {
			return is
		}
	}
	return target == ErrNotFound
}

func (e sourcesError) As(target any) bool {
	for _, err := range e {
		if errors.As(err, target) {
			return true
		}
	}
	return false
}

// worthRetry reports whether what failed with err may succeed a moment later.
func worthRetry(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Code == http.StatusRequestTimeout || status.Code == http.StatusTooManyRequests || status.Code >= 500
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	_, refused := errors.AsType[refusal](err)
	return !refused
}

// retry waits before the next try. It returns a FetchError when err is final
// or was the last of failures that are allowed, and the context's error when
// that ends first.
func (c *Client) retry(ctx context.Context, u *url.URL, failures int, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cannot fetch %s: %w", Display(u), context.Cause(ctx))
	}
	if failures >= c.opts.Attempts || !worthRetry(err) {
		return &FetchError{URL: Display(u), Attempts: failures, Err: err}
	}
	pause := c.opts.Backoff.after(failures, err)
	c.opts.Log.Info("upstream fails, trying again", "url", Display(u), "reason", err, "failures", failures, "wait", pause.String())
	if err := wait(ctx, nil, pause); err != nil {
		return fmt.Errorf("cannot fetch %s: %w", Display(u), err)
	}
	return nil
}
