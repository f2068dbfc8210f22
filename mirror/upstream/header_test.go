package upstream

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestContentRange(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want contentRange
		ok   bool
	}{
		{"bytes 0-99/1234", contentRange{0, 99, 1234}, true},
		{"Bytes 1233-1233/1234", contentRange{1233, 1233, 1234}, true},
		{"bytes 5-9/*", contentRange{5, 9, -1}, true},
		{"bytes */1234", contentRange{-1, -1, 1234}, true},
		{"bytes */*", contentRange{}, false},
		{"bytes 0-99/99", contentRange{}, false},
		{"bytes 9-5/100", contentRange{}, false},
		{"bytes -5/100", contentRange{}, false},
		{"bytes +1-5/100", contentRange{}, false},
		{"bytes 1- 5/100", contentRange{}, false},
		{"bytes 1-5", contentRange{}, false},
		{"bytes=1-5/100", contentRange{}, false},
		{"items 1-5/100", contentRange{}, false},
		{"bytes 0-9223372036854775808/*", contentRange{}, false},
		{"", contentRange{}, false},
	} {
		got, ok := parseContentRange(tt.in)
		if ok != tt.ok || got != tt.want && ok {
			t.Errorf("parseContentRange(%q) = %+v, %v; want %+v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

// print is the inverse of parseContentRange.
func (r contentRange) print() string {
	span, total := "*", "*"
	if r.first >= 0 {
		span = fmt.Sprintf("%d-%d", r.first, r.last)
	}
	if r.total >= 0 {
		total = fmt.Sprint(r.total)
	}
	return "bytes " + span + "/" + total
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-99/1234", "bytes 5-9/*", "bytes */7", "bytes 00-1/2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseContentRange(s)
		if !ok {
			return
		}
		if r.first > r.last || r.first < -1 || r.total < -1 || r.total >= 0 && r.last >= r.total {
			t.Errorf("%q makes no sense: %+v", s, r)
		}
		if again, ok := parseContentRange(r.print()); !ok || again != r {
			t.Errorf("%q: %+v prints as %q, which parses as %+v, %v", s, r, r.print(), again, ok)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 7, 24, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"0", 0, true},
		{" 120 ", 2 * time.Minute, true},
		{"Thu, 24 Jul 2025 08:00:30 GMT", 30 * time.Second, true},
		{"Thursday, 24-Jul-25 08:01:00 GMT", time.Minute, true},
		{"Thu, 24 Jul 2025 07:00:00 GMT", 0, true},
		{"9223372036854775807", 9223372036 * time.Second, true},
		{"99999999999999999999", 0, false},
		{"-1", 0, false},
		{"1.5", 0, false},
		{"soon", 0, false},
		{"", 0, false},
	} {
		if got, ok := parseRetryAfter(tt.in, now); got != tt.want || ok != tt.ok {
			t.Errorf("parseRetryAfter(%q) = %v, %v; want %v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

// A Last-Modified within two seconds of the answer is no validator.
func TestDocumentValidators(t *testing.T) {
	const date, etag = "Thu, 24 Jul 2025 08:00:30 GMT", `"a"`
	for _, tt := range []struct{ date, modified, etag, want string }{
		{date, "Thu, 24 Jul 2025 08:00:28 GMT", "", "Thu, 24 Jul 2025 08:00:28 GMT"},
		{date, "Thu, 24 Jul 2025 08:00:29 GMT", "", ""},
		{date, date, "", ""},
		{date, "Thu, 24 Jul 2025 08:00:31 GMT", "", ""},
		{"", date, "", ""},
		{date, "soon", "", ""},
		{date, date, etag, date},
	} {
		h := http.Header{"Date": {tt.date}, "Last-Modified": {tt.modified}, "Etag": {tt.etag}}
		if got := documentValidators(h); got != (Validators{ETag: tt.etag, LastModified: tt.want}) {
			t.Errorf("%v gives %+v", h, got)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2025, 7, 24, 8, 0, 0, 0, time.UTC)
	for _, s := range []string{"120", "Thu, 24 Jul 2025 08:00:30 GMT", "9223372036854775807", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := parseRetryAfter(s, now); d < 0 || !ok && d != 0 {
			t.Errorf("parseRetryAfter(%q) = %v, %v", s, d, ok)
		}
	})
}

func TestValidators(t *testing.T) {
	for _, tt := range []struct {
		a, b        Validators
		contradicts bool
	}{
		{Validators{}, Validators{}, false},
		{Validators{ETag: `"a"`}, Validators{}, false},
		{Validators{ETag: `"a"`}, Validators{ETag: `"a"`, LastModified: "x"}, false},
		{Validators{ETag: `"a"`}, Validators{ETag: `"b"`}, true},
		{Validators{ETag: `"a"`, LastModified: "x"}, Validators{LastModified: "y"}, true},
		// The ETag is the better witness.
		{Validators{ETag: `"a"`, LastModified: "x"}, Validators{ETag: `"a"`, LastModified: "y"}, false},
	} {
		if got := tt.a.contradicts(tt.b); got != tt.contradicts {
			t.Errorf("%+v contradicts %+v: %v, want %v", tt.a, tt.b, got, tt.contradicts)
		}
	}
	for etag, want := range map[string]string{`"a"`: `"a"`, `W/"a"`: "", "": "", "a": ""} {
		if got := (Validators{ETag: etag}).strong(); got != want {
			t.Errorf("strong ETag of %q is %q, want %q", etag, got, want)
		}
	}
}
