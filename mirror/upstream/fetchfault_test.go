package upstream

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"oxbow/cache"
)

// One way in which upstream goes wrong, and what becomes of it.
type fetchFault struct {
	name  string
	size  int
	fault func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter
	want  string // error; if empty, the file arrives. URL, WANT and GOT stand for the URL, the sum, and the sum with byte 1234 flipped
	is    error  // what the error is
	asked int    // requests; 0: any number
}

func TestFetchFaults(t *testing.T) {
	t.Parallel()
	const small, large = 300_000, 6 * mib
	var data []byte // of the test that runs
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	// first answers the first n requests by h.
	first := func(n int, h http.HandlerFunc) func(http.ResponseWriter, *http.Request, int) http.ResponseWriter {
		return func(w http.ResponseWriter, r *http.Request, i int) http.ResponseWriter {
			if i > n {
				return w
			}
			h(w, r)
			return nil
		}
	}
	length := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(n))
			w.Write(data[:min(n, small)])
		}
	}
	noRange := func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		r.Header.Del("Range")
		return w
	}
	s := newTestStore(t)
	for i, tt := range []fetchFault{
		{"404", small, first(99, status(404)), "cannot fetch URL: HTTP 404 Not Found", ErrNotFound, 1},
		{"410, large", large, first(99, status(410)), "cannot fetch URL: HTTP 410 Gone", ErrNotFound, 1},
		{"403", small, first(99, status(403)), "cannot fetch URL: HTTP 403 Forbidden", ErrUpstream, 1},
		{"503 once", small, first(1, status(503)), "", nil, 2},
		{"503 once, large", large, first(1, status(503)), "", nil, 0},
		{"503 for ever", small, first(99, status(503)), "cannot fetch URL: HTTP 503 Service Unavailable (5 attempts)", ErrUpstream, 5},
		{"503 for ever, large", large, first(999, status(503)), "cannot fetch URL: HTTP 503 Service Unavailable (5 attempts)", ErrUpstream, 5},
		{"truncated once", small, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n == 1 {
				return &cutter{w, 100_000}
			}
			if r.Header.Get("Range") != "bytes=100000-299999" || r.Header.Get("If-Range") != etagOf(data) {
				t.Errorf("resumed by Range %q, If-Range %q", r.Header.Get("Range"), r.Header.Get("If-Range"))
			}
			return w
		}, "", nil, 2},
		{"truncated again and again, with progress", small, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			return &cutter{w, 20_000}
		}, "", nil, 15},
		{"every connection truncated, large", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			return &cutter{w, 700_000}
		}, "", nil, 0},
		{"truncated at the same place, no ranges", small, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			return &cutter{noRange(w, r, n), 100_000}
		}, "cannot fetch URL: upstream closed the connection (5 attempts)", ErrUpstream, 5},
		{"truncated once, no ranges", small, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if noRange(w, r, n); n == 1 {
				return &cutter{w, 100_000}
			}
			return w
		}, "", nil, 2},
		{"no ranges, large", large, noRange, "", nil, 1},
		{"no ranges but for the first", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n > 1 {
				return noRange(w, r, n)
			}
			return w
		}, "", nil, 0},
		{"flipped", small, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter { return &flipper{w, 1234} },
			"cannot fetch URL: content does not match: want sha256 WANT, got GOT after 300000 bytes", cache.ErrCorrupt, 1},
		{"flipped in one range", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n == 4 {
				return &flipper{w, 1234}
			}
			return w
		}, "", nil, 0},
		{"flipped always, large", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if h := r.Header.Get("Range"); h == "" || strings.HasPrefix(h, "bytes=0-") {
				return &flipper{w, 1234}
			}
			return w
		}, "cannot fetch URL: content does not match: want sha256 WANT, got GOT after 6291456 bytes (2 attempts)", cache.ErrCorrupt, 0},
		{"changed after the first range", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n > 1 {
				w.Header().Set("ETag", `"new"`)
			}
			return w
		}, "", nil, 0},
		{"other ETag of a range", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n > 1 {
				r.Header.Del("If-Range")
				w.Header().Set("ETag", `"new"`)
			}
			return w
		}, "", nil, 0},
		{"other Last-Modified of a range", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			w.Header().Set("ETag", `W/"weak"`)
			w.Header().Set("Last-Modified", "Thu, 24 Jul 2025 08:00:0"+strconv.Itoa(min(n, 5))+" GMT")
			return w
		}, "", nil, 0},
		{"length too short", small, first(99, length(1000)), "cannot fetch URL: content does not match: want 300000 bytes, upstream has 1000 (2 attempts)", cache.ErrCorrupt, 2},
		{"length too long", small, first(99, length(300_001)), "cannot fetch URL: content does not match: want 300000 bytes, upstream has 300001 (2 attempts)", cache.ErrCorrupt, 2},
		{"length wrong once", small, first(1, length(1000)), "", nil, 2},
		{"length too long, body cut", small, first(99, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "300000")
			w.Write(data[:1000])
		}), "cannot fetch URL: upstream closed the connection (5 attempts)", ErrUpstream, 5},
		{"longer than promised, not declared", small, first(99, func(w http.ResponseWriter, r *http.Request) {
			w.Write(data)
			for {
				if _, err := w.Write(data); err != nil { // until the client hangs up
					return
				}
			}
		}), "cannot fetch URL: content does not match: want 300000 bytes, upstream has more", cache.ErrCorrupt, 1},
		{"shorter than promised, not declared", small, first(99, func(w http.ResponseWriter, r *http.Request) {
			w.Write(data[:1000])
			http.NewResponseController(w).Flush()
		}), "cannot fetch URL: upstream closed the connection (5 attempts)", ErrUpstream, 5},
		{"not declared", small, first(99, func(w http.ResponseWriter, r *http.Request) {
			w.Write(data[:1000])
			http.NewResponseController(w).Flush()
			w.Write(data[1000:])
		}), "", nil, 1},
		{"416", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(416)
				return nil
			}
			return w
		}, "", nil, 2},
		{"416 of a shorter file", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			w.Header().Set("Content-Range", "bytes */1000")
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(map[bool]int{true: 416, false: 200}[r.Header.Get("Range") != ""])
			return nil
		}, "cannot fetch URL: content does not match: want 6291456 bytes, upstream has 1000 (2 attempts)", cache.ErrCorrupt, 2},
		{"one byte of each range", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			var first int
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first); err == nil {
				r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, first))
			}
			return w
		}, "", nil, 2},
		{"redirected, and the target fails later", large, func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if r.URL.Path == "/f" {
				http.Redirect(w, r, "/g?until="+strconv.Itoa(n+5), http.StatusFound)
				return nil
			}
			if until, _ := strconv.Atoi(r.URL.Query().Get("until")); n > until {
				w.WriteHeader(http.StatusForbidden)
				return nil
			}
			return w
		}, "", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data = random(uint64(200+i), tt.size)
			o := &origin{files: map[string][]byte{"/f": data, "/g": data}, fault: tt.fault}
			tt.run(t, s, o, data)
		})
	}
}

func sumOf(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

func (tt *fetchFault) run(t *testing.T, s *cache.Store, o *origin, data []byte) {
	url := o.start(t) + "/f"
	c := newTestClient(t, quick())
	err := fetchAll(t, c, s, data, url)
	if tt.want == "" && err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(data)
	flipped[1234] ^= 0xff
	want := strings.NewReplacer("URL", url, "WANT", sumOf(data), "GOT", sumOf(flipped)).Replace(tt.want)
	if tt.want != "" && (err == nil || err.Error() != want) {
		t.Errorf("error %v\nwant  %s", err, want)
	}
	if err != nil && (!errors.Is(err, tt.is) || !errors.Is(err, ErrUpstream)) {
		t.Errorf("%v is not %v", err, tt.is)
	}
	if n := len(o.asked()); tt.asked != 0 && n != tt.asked {
		t.Errorf("%d requests, want %d: %q", n, tt.asked, o.asked())
	}
	if has := s.Has(sha256.Sum256(data)); has != (err == nil) {
		t.Errorf("the store has it: %v", has)
	}
	if err == nil {
		return
	}
	// Whatever went wrong: once upstream is well, the file comes.
	o.fault = nil
	if err := fetchAll(t, c, s, data, url); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Content-Range has to be what was asked for; the file is fetched whole
// otherwise.
func TestFetchContentRange(t *testing.T) {
	t.Parallel()
	const size = 3 * mib
	s := newTestStore(t)
	for i, tt := range []struct {
		header string
		whole  bool
	}{
		{"bytes 0-1048575/3145728", false},
		{"bytes 0-1048575/*", false},
		{"bytes 0-999999/3145728", false}, // less than asked for is allowed
		{"bytes 1-1048575/3145728", true},
		{"bytes 0-1048576/3145728", true},
		{"bytes 0-1048575/3145729", true},
		{"0-1048575/3145728", true},
		{"", true},
	} {
		data := random(uint64(300+i), size)
		o := &origin{files: map[string][]byte{"/f": data}}
		o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n > 1 {
				return w
			}
			got, ok := parseContentRange(tt.header)
			if !ok {
				got = contentRange{0, 1048575, size}
			}
			w.Header().Set("ETag", etagOf(data))
			w.Header().Set("Content-Range", tt.header)
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[got.first : got.last+1])
			return nil
		}
		base := o.start(t)
		if err := fetchAll(t, newTestClient(t, quick()), s, data, base+"/f"); err != nil {
			t.Errorf("%q: %v", tt.header, err)
		}
		if asked := o.asked(); slices.Contains(asked, "/f") != tt.whole || tt.whole && len(asked) != 2 {
			t.Errorf("%q: upstream was asked %q", tt.header, asked)
		}
	}
}
