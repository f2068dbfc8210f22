package upstream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"oxbow/cache"
)

// A file comes in one request when it is small, in ranges over all
// connections when it is large, and every byte is sent once.
func TestFetch(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	for _, size := range []int{0, 1, 1000, mib, 3*mib + 1, 20 * mib} {
		data := random(1, size)
		o := &origin{files: map[string][]byte{"/f": data}}
		if err := fetchAll(t, newTestClient(t, quick()), s, data, o.start(t)+"/f"); err != nil {
			t.Fatal(err)
		}
		asked := o.asked()
		sent, most := o.totals()
		if sent != int64(size) {
			t.Errorf("size %d: upstream sent %d bytes", size, sent)
		}
		if size <= mib && size > 0 && !slices.Equal(asked, []string{"/f"}) || size == 0 && len(asked) > 0 {
			t.Errorf("size %d: upstream was asked %q", size, asked)
		}
		if size > 10*mib && (len(asked) < 8 || most > 8) {
			t.Errorf("size %d: %d requests, %d at once", size, len(asked), most)
		}
		for i, line := range asked {
			if strings.Contains(line, "bytes=") && strings.Contains(line, etagOf(data)) != (i > 0) {
				t.Errorf("size %d: request %d is %q: want If-Range in all but the first", size, i+1, line)
			}
		}
	}
}

// The sources are tried in order; bytes of one that fails are kept.
func TestFetchSources(t *testing.T) {
	t.Parallel()
	good := &origin{files: map[string][]byte{}}
	empty := &origin{}
	down := &origin{fault: func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		w.WriteHeader(500)
		return nil
	}}
	bad := &origin{files: map[string][]byte{"/f": random(5, 2*mib)}}
	// half delivers a bad first half.
	half := &origin{files: map[string][]byte{"/f": random(5, 2*mib)}}
	half.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		if n > 1 {
			w.WriteHeader(500)
			return nil
		}
		r.Header.Del("Range")
		return &cutter{w, mib}
	}
	urls := map[*origin]string{}
	for _, o := range []*origin{good, empty, down, bad, half} {
		urls[o] = o.start(t) + "/f"
	}
	s := newTestStore(t)
	for i, tt := range []struct {
		name    string
		sources []*origin
		is      []error // none: the file arrives
		isNot   error
	}{
		{"missing", []*origin{empty, good}, nil, nil},
		{"down", []*origin{down, good}, nil, nil},
		{"corrupt", []*origin{bad, good}, nil, nil},
		{"half of it corrupt", []*origin{half, good}, nil, nil},
		{"missing in both", []*origin{empty, empty}, []error{ErrNotFound, ErrUpstream}, cache.ErrCorrupt},
		{"missing and down", []*origin{empty, down}, []error{ErrUpstream}, ErrNotFound},
		{"missing and corrupt", []*origin{empty, bad}, []error{ErrUpstream, cache.ErrCorrupt}, ErrNotFound},
		{"no source", nil, []error{errNoSource}, ErrUpstream},
	} {
		data := random(uint64(400+i), 2*mib)
		good.files["/f"] = data
		var sources []string
		for _, o := range tt.sources {
			sources = append(sources, urls[o])
			o.requests = nil
		}
		err := fetchAll(t, newTestClient(t, quick()), s, data, sources...)
		if (err == nil) != (tt.is == nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
		for _, target := range tt.is {
			if !errors.Is(err, target) {
				t.Errorf("%s: %v is not %v", tt.name, err, target)
			}
		}
		if tt.isNot != nil && errors.Is(err, tt.isNot) {
			t.Errorf("%s: %v is %v", tt.name, err, tt.isNot)
		}
	}
}

// A second run asks for what the first did not bring, and no more.
func TestFetchResumes(t *testing.T) {
	t.Parallel()
	data := random(6, 32*mib)
	s := newTestStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("interrupted")
	o := &origin{files: map[string][]byte{"/f": data}}
	base := o.start(t)
	c := newTestClient(t, quick())

	in := ingest(t, s, data)
	var mu sync.Mutex
	var landed int64
	_, err := c.Fetch(ctx, []string{base + "/f"}, in, int64(len(data)), FetchOptions{Progress: func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		if landed += n; landed > 10*mib {
			cancel(reason)
		}
	}})
	if _, upstream := errors.AsType[*FetchError](err); !errors.Is(err, reason) || upstream {
		t.Fatalf("interrupted: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}

	second := &origin{files: o.files}
	base = second.start(t)
	in = ingest(t, s, data)
	missing := int64(0)
	for _, e := range in.Missing() {
		missing += e.Len
	}
	if missing > int64(len(data))-landed {
		t.Errorf("%d bytes are missing, although %d had landed", missing, landed)
	}
	blob, err := c.Fetch(t.Context(), []string{base + "/f"}, in, int64(len(data)), FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if sent, _ := second.totals(); sent != missing {
		t.Errorf("upstream sent %d bytes, %d were missing", sent, missing)
	}
	if !bytes.Equal(stored(t, s, blob), data) {
		t.Error("the blob is not what upstream has")
	}
}

// What an earlier run left may be wrong: that is not blamed on upstream.
func TestFetchResumesBadBytes(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	for i, ranges := range []bool{true, false} {
		for j, have := range []int{mib, 4 * mib} {
			data := random(uint64(500+2*i+j), 4*mib)
			in := ingest(t, s, data)
			if _, err := in.WriteAt(random(7, have), 0); err != nil {
				t.Fatal(err)
			}
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			o := &origin{files: map[string][]byte{"/f": data}}
			o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
				if !ranges {
					r.Header.Del("Range")
				}
				return w
			}
			if err := fetchAll(t, newTestClient(t, quick()), s, data, o.start(t)+"/f"); err != nil {
				t.Errorf("ranges %v, %d bad bytes: %v", ranges, have, err)
			}
			if asked := o.asked(); asked[len(asked)-1] != "/f" {
				t.Errorf("ranges %v, %d bad bytes: upstream was asked %q", ranges, have, asked)
			}
		}
	}
}

// A failure of the store is final, and not upstream's.
func TestFetchStoreFails(t *testing.T) {
	t.Parallel()
	data := random(8, 20*mib)
	o := &origin{files: map[string][]byte{"/f": data}}
	base := o.start(t)
	in := ingest(t, newTestStore(t), data)
	in.Close()
	_, err := newTestClient(t, quick()).Fetch(t.Context(), []string{base + "/f", base + "/f"}, in, int64(len(data)), FetchOptions{})
	if err == nil || errors.Is(err, ErrUpstream) || !strings.HasPrefix(err.Error(), "cannot store "+base+"/f: ") {
		t.Errorf("got %v", err)
	}
	if n := len(o.asked()); n > 8 {
		t.Errorf("%d requests", n)
	}
}

// Connections is a bound on everything that one client does.
func TestConnections(t *testing.T) {
	t.Parallel()
	o := &origin{files: map[string][]byte{}}
	// Answers wait until there are as many requests as there may be.
	full := make(chan struct{})
	o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		if n == 3 {
			close(full)
		}
		<-full
		return w
	}
	var g errgroup.Group
	base := o.start(t)
	s := newTestStore(t)
	opts := quick()
	opts.Connections = 3
	c := newTestClient(t, opts)
	var all [][]byte
	for i := range 60 {
		size := 10_000
		if i%20 == 0 {
			size = 8 * mib
		}
		data := random(uint64(100+i), size)
		all = append(all, data)
		o.files["/"+strconv.Itoa(i)] = data
	}
	for i, data := range all {
		url := base + "/" + strconv.Itoa(i)
		g.Go(func() error { return fetchAll(t, c, s, data, url) })
		g.Go(func() error {
			_, err := c.Document(t.Context(), url, Validators{}, 100*mib)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if _, most := o.totals(); most != 3 {
		t.Errorf("%d requests at once, want 3", most)
	}
}
