package upstream

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Validators are what upstream said to tell versions of a document apart
// (RFC 9110, section 8.8). Empty ones were not given.
type Validators struct {
	ETag         string
	LastModified string
}

func validatorsOf(h http.Header) Validators {
	return Validators{ETag: h.Get("ETag"), LastModified: h.Get("Last-Modified")}
}

// documentValidators returns the validators that a later request may carry. A
// Last-Modified of the last two seconds is none: the document may be published
// once more in that second (RFC 9110, section 8.8.2.2). Beside an ETag it does
// no harm, as upstream then looks at that alone.
func documentValidators(h http.Header) Validators {
	v := validatorsOf(h)
	if v.ETag != "" {
		return v
	}
	date, err := http.ParseTime(h.Get("Date"))
	modified, err2 := http.ParseTime(v.LastModified)
	if err != nil || err2 != nil || date.Sub(modified) < 2*time.Second {
		v.LastModified = ""
	}
	return v
}

// strong returns the ETag if it is one that If-Range may carry, or "".
func (v Validators) strong() string {
	if strings.HasPrefix(v.ETag, `"`) {
		return v.ETag
	}
	return ""
}

// contradicts reports whether v and w belong to different content.
func (v Validators) contradicts(w Validators) bool {
	if v.ETag != "" && w.ETag != "" {
		return v.ETag != w.ETag
	}
	return v.LastModified != "" && w.LastModified != "" && v.LastModified != w.LastModified
}

// contentRange is the value of a Content-Range of bytes (RFC 9110, section
// 14.4). Unsatisfied ranges have a first and a last of -1, unknown totals are -1.
type contentRange struct{ first, last, total int64 }

// parseContentRange reports whether s is well-formed and makes sense.
func parseContentRange(s string) (contentRange, bool) {
	bad := contentRange{}
	unit, rest, ok := strings.Cut(s, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return bad, false
	}
	span, total, ok := strings.Cut(rest, "/")
	if !ok {
		return bad, false
	}
	r := contentRange{-1, -1, -1}
	if total != "*" {
		if r.total, ok = parseDecimal(total); !ok {
			return bad, false
		}
	}
	if span == "*" {
		return r, r.total >= 0
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return bad, false
	}
	var ok1, ok2 bool
	r.first, ok1 = parseDecimal(first)
	r.last, ok2 = parseDecimal(last)
	if !ok1 || !ok2 || r.last < r.first || r.total >= 0 && r.last >= r.total {
		return bad, false
	}
	return r, true
}

// parseRetryAfter returns how long to wait from now by the value of a
// Retry-After, seconds or an HTTP date (RFC 9110, section 10.2.3). Times gone
// by are 0.
func parseRetryAfter(s string, now time.Time) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if n, ok := parseDecimal(s); ok {
		return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second, true
	}
	t, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return max(t.Sub(now), 0), true
}

// parseDecimal parses digits and nothing else.
func parseDecimal(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}
