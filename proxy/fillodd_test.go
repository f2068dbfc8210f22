package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
)

// Who asks for several ranges of a cold file gets all of it, or a status that says why not.
func TestFillSeveralRanges(t *testing.T) {
	o := newOrigin(t, 300<<10)
	s, addr := fillSite(t, o, Options{})
	if resp, body, err := fetchCold(addr, "Range", "bytes=0-9,100-109"); err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, o.content) {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	s.awaitHere(o)
	if resp, body, err := fetchCold(addr, "Range", "bytes=0-9,100-109"); err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Contains(body, o.content[100:110]) {
		t.Errorf("then: %v, %v, %d bytes", err, resp, len(body))
	}
	_, addr = fillSite(t, o, Options{Pull: func(context.Context, string, string, *cache.Ingest, upstream.FetchOptions) (cache.Blob, error) {
		return cache.Blob{}, mirror.ErrOffline
	}})
	if resp, _, err := fetchCold(addr, "Range", "bytes=0-9,100-109"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("offline: %v, %v", err, resp)
	}
}

// A reader of a small file, whose download is kept by no partial one, sees no more than a
// pause either where upstream goes away for longer.
func TestFillSmallGoesOn(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

// A sweep in the middle of a fill, whose stream nobody knows any more by then, takes
// nothing from its readers.
func TestFillSwept(t *testing.T) {
	o := newOrigin(t, 4<<20)
	gate := make(chan struct{})
	o.fault = func(w http.ResponseWriter, r *http.Request, _ int64) http.ResponseWriter {
		w.Header().Set("Content-Length", fmt.Sprint(len(o.content)))
		w.Write(o.content[:1<<20])
		w.(http.Flusher).Flush()
		<-gate
		w.Write(o.content[1<<20:])
		return nil
	}
	s, addr := fillSite(t, o, Options{})
	resp, err := http.Get("http://" + addr + coldFile)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := make([]byte, 1<<20)
	if _, err := io.ReadFull(resp.Body, body); err != nil {
		t.Fatal(err)
	}
	if err := s.store.Drop(t.Context(), "stable"); err != nil {
		t.Fatal(err)
	}
	sweep := func() {
		t.Helper()
		plan, err := s.store.PlanSweep(t.Context(), cache.SweepOptions{})
		if err == nil {
			_, err = plan.Execute(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	close(gate)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(append(body, rest...), o.content) {
		t.Errorf("%v, %d bytes", err, len(body)+len(rest))
	}
	waitUntil(t, func() bool {
		sweep()
		return !s.store.Has(o.entry("").Digest)
	})
}

// Where the disk is full in the middle of a fill, who was sent bytes is cut and the others
// hear why; with room again the next one goes on.
func TestFillFullDisk(t *testing.T) {
	o := newOrigin(t, 4<<20)
	var full atomic.Bool
	full.Store(true)
	pull := puller(t, o.url)
	_, addr := fillSite(t, o, Options{Pull: func(ctx context.Context, stream, path string, in *cache.Ingest, fo upstream.FetchOptions) (cache.Blob, error) {
		if !full.Load() {
			return pull(ctx, stream, path, in, fo)
		}
		if missing := in.Missing(); missing[0].Off == 0 {
			if _, err := in.WriteAt(o.content[:1<<20], 0); err != nil {
				return cache.Blob{}, err
			}
			fo.Progress(1 << 20)
			time.Sleep(50 * time.Millisecond) // for the reader
		}
		return cache.Blob{}, fmt.Errorf("cannot store: %w", &cache.NoSpaceError{})
	}})
	if resp, body, err := fetchCold(addr); err == nil || !bytes.HasPrefix(o.content, body) {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	resp, body, err := fetchCold(addr, "Range", "bytes=-100")
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "no room") {
		t.Errorf("%v, %v, %s", err, resp, body)
	}
	full.Store(false)
	if resp, body, err := fetchCold(addr); err != nil || !bytes.Equal(body, o.content) {
		t.Errorf("with room again: %v, %v, %d bytes", err, resp, len(body))
	}
	if n := o.sent.Load(); n != 3<<20 {
		t.Errorf("upstream sent %d bytes", n)
	}
}

// Readers who go away at any moment leave nothing open and nothing running.
func TestFillReadersLeave(t *testing.T) {
	o := newOrigin(t, 8<<20)
	client := upstream.NewClient(nil)
	s, addr := fillSite(t, o, Options{Pull: func(ctx context.Context, _, path string, in *cache.Ingest, fo upstream.FetchOptions) (cache.Blob, error) {
		return client.Fetch(ctx, []string{o.url + "/" + path}, in, in.Size(), fo)
	}})
	o.fault = func(w http.ResponseWriter, r *http.Request, _ int64) http.ResponseWriter {
		time.Sleep(100 * time.Millisecond)
		return w
	}
	get(t, addr, "/ephemeral-v3/stable/streams/v1/index.json") // the server is up
	open, running := descriptors(t), runtime.NumGoroutine()
	for i := range 60 {
		w := dial(t, addr)
		w.send(t, "GET %s HTTP/1.1\r\nHost: a\r\nRange: bytes=%d-,5-6\r\n\r\nGET / HTTP/1.1\r\n", coldFile, i<<17)
		time.Sleep(time.Duration(i%7) * time.Millisecond)
		w.Close()
	}
	waitUntil(t, func() bool { return s.store.Has(o.entry("").Digest) })
	waitUntil(t, func() bool {
		client.Close() // a connection is idle soon after its fill has ended
		return descriptors(t) <= open && runtime.NumGoroutine() <= running
	})
}

// Conditions on a cold file are those on one that is here.
func TestFillConditions(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, 300<<10)
	etag := `"` + o.entry("").Digest.String() + `"`
	for _, tt := range []struct {
		header []string
		status int
		from   int // of what is sent, to its end
	}{
		{[]string{"Range", "bytes=1000-", "If-Range", etag}, http.StatusPartialContent, 1000},
		{[]string{"Range", "bytes=1000-", "If-Range", `"other"`}, http.StatusOK, 0},
		{[]string{"Range", "bytes=1000-", "If-Range", "W/" + etag}, http.StatusOK, 0},
		{[]string{"If-Match", `"other"`}, http.StatusPreconditionFailed, 300 << 10},
		{[]string{"Range", "bytes=-9999999"}, http.StatusPartialContent, 0},
		{[]string{"Range", "bytes=-0"}, http.StatusRequestedRangeNotSatisfiable, -1},
		{[]string{"Range", "bytes=307199-"}, http.StatusPartialContent, 307199},
		{[]string{"Range", "bytes=307200-"}, http.StatusRequestedRangeNotSatisfiable, -1},
		{[]string{"Range", "lines=1-2"}, http.StatusOK, 0},
	} {
		_, addr := fillSite(t, o, Options{}) // a store without it
		for _, when := range []string{"cold", "here"} {
			resp, body, err := fetchCold(addr, tt.header...)
			if err != nil || resp.StatusCode != tt.status || tt.from >= 0 && !bytes.Equal(body, o.content[tt.from:]) {
				t.Errorf("%q, %s: %v, %v, %d bytes", tt.header, when, err, resp, len(body))
			}
			if when == "cold" && resp.StatusCode > 299 { // it is still cold
				fetchCold(addr)
			}
		}
	}
}
