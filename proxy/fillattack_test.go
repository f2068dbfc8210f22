package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// Who asks for several ranges of a cold file gets all of it, or a status that says why not.
func TestFillSeveralRanges(t *testing.T) {
	o := newOrigin(t, 300<<10)
	_, addr := fillSite(t, o, Options{})
	if resp, body, err := fetchCold(addr, "Range", "bytes=0-9,100-109"); err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, o.content) {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	if resp, body, err := fetchCold(addr, "Range", "bytes=0-9,100-109"); err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Contains(body, o.content[100:110]) {
		t.Errorf("then: %v, %v, %d bytes", err, resp, len(body))
	}
	_, addr = fillSite(t, o, Options{Pull: func(context.Context, string, string, *cache.Ingest, mirror.FetchOptions) (cache.Blob, error) {
		return cache.Blob{}, mirror.ErrOffline
	}})
	if resp, _, err := fetchCold(addr, "Range", "bytes=0-9,100-109"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("offline: %v, %v", err, resp)
	}
}

// A reader of a small file, whose download is kept by no partial one, sees no more than a
// pause either where upstream goes away for longer.
func TestFillSmallGoesOn(t *testing.T) {
	o := newOrigin(t, 900<<10)
	o.fault = func(w http.ResponseWriter, _ *http.Request, n int64) http.ResponseWriter {
		switch {
		case n == 1:
			return &cutAfter{w, 400 << 10}
		case n <= 5:
			panic(http.ErrAbortHandler)
		}
		return w
	}
	_, addr := fillSite(t, o, Options{})
	resp, body, err := fetchCold(addr)
	if err != nil || !bytes.Equal(body, o.content) {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
}

// Where upstream changes its mind while it is away, what came before is to blame, and not
// what comes then.
func TestFillOtherBytes(t *testing.T) {
	o := newOrigin(t, 900<<10)
	o.fault = func(w http.ResponseWriter, _ *http.Request, n int64) http.ResponseWriter {
		switch {
		case n == 1:
			return &flipping{ResponseWriter: &cutAfter{w, 400 << 10}}
		case n <= 5:
			panic(http.ErrAbortHandler)
		}
		return w
	}
	s, addr := fillSite(t, o, Options{})
	resp, body, err := fetchCold(addr, "Range", "bytes=100-199")
	if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, o.content[100:200]) {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	if lines := s.log.lines("integrity"); len(lines) != 0 {
		t.Errorf("upstream is blamed: %q", lines)
	}
}

// What has landed is opened only by who has asked for these very bytes: where they were
// begun anew since, others may be missing, and read as zeros.
func TestFillOpensWhatWasAsked(t *testing.T) {
	o := newOrigin(t, 2<<20)
	s := newSite(t, false)
	in, err := s.store.BeginPull(t.Context(), cache.Want{SHA256: o.entry("").Digest, Size: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	f := &fill{in: in, anew: 1, changed: make(chan struct{})}
	if file, err := f.open(t.Context(), 0); !errors.Is(err, errAnew) {
		t.Errorf("%v, %v", file, err)
	}
	file, err := f.open(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

// A fill whose bytes are dropped again and again ends: upstream has another version of the
// file for each request, and breaks off.
func TestFillEnds(t *testing.T) {
	o := newOrigin(t, 2<<20)
	o.fault = func(w http.ResponseWriter, r *http.Request, n int64) http.ResponseWriter {
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n))
		r.Header.Del("Range")
		return &cutAfter{w, 1 << 20}
	}
	_, addr := fillSite(t, o, Options{})
	resp, body, err := fetchCold(addr, "Range", "bytes=100-199")
	if err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	if n := o.asked.Load(); n > 20 {
		t.Errorf("upstream was asked %d times", n)
	}
}

// Whatever upstream does, nobody completes wrong bytes, and everybody hears of it soon.
func TestFillBadUpstream(t *testing.T) {
	const size = 2 << 20
	for name, tt := range map[string]struct {
		fault func(o *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter
		good  bool // the file can be had all the same
	}{
		"it ignores ranges": {func(_ *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			r.Header.Del("Range")
			return w
		}, true},
		"it redirects to itself": {func(_ *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return nil
		}, false},
		"it has a longer file": {func(o *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(bytes.Clone(o.content), 0)))
			return nil
		}, false},
		"it has a shorter file": {func(o *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.content[:size-1]))
			return nil
		}, false},
		"it does not say the length, and goes on": {func(o *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			w.Write(o.content)
			w.(http.Flusher).Flush()
			w.Write(make([]byte, 1<<20))
			return nil
		}, false},
		"it answers with other ranges": {func(o *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=7-99999")
			}
			return w
		}, true},
		"it has nothing": {func(_ *origin, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
			http.NotFound(w, r)
			return nil
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(t, size)
			o.fault = func(w http.ResponseWriter, r *http.Request, _ int64) http.ResponseWriter { return tt.fault(o, w, r) }
			s, addr := fillSite(t, o, Options{})
			for range 2 { // the second one finds what the first left
				for _, ranges := range []string{"bytes=0-", "bytes=1000000-1000099"} {
					resp, body, err := fetchCold(addr, "Range", ranges)
					complete := err == nil && resp.StatusCode == http.StatusPartialContent
					if complete != tt.good || complete && !bytes.Contains(o.content, body) {
						t.Errorf("%s: %v, %v, %d bytes", ranges, err, resp, len(body))
					}
				}
			}
			if has := s.store.Has(o.entry("").Digest); has != tt.good {
				t.Errorf("it is here: %v", has)
			}
		})
	}
}
