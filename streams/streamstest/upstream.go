package streamstest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// Upstream serves a tree over HTTP and keeps count. It is an [http.Handler],
// safe for concurrent use, for the root of a server; behind a prefix use
// [http.StripPrefix]. A good response is one of [http.ServeContent]: with a
// strong ETag, Last-Modified, ranges and conditional requests.
type Upstream struct {
	mu       sync.Mutex // guards all fields, and those of the requests
	site     *Publication
	fault    func(*http.Request) Fault
	planned  []planned
	requests []*Request
	busy     int
	peak     int
	arrived  chan struct{} // closed when a request arrives
	release  chan struct{} // closed by Release
}

// A Request is one that upstream got.
type Request struct {
	Method, Path string // Path without leading slash
	Range        string
	IfRange      string
	IfNoneMatch  string
	UserAgent    string
	Header       http.Header
	Status       int   // 0 as long as there is no answer
	Bytes        int64 // of the body, as far as it was handed to the connection
}

// planned is a publication to come.
type planned struct {
	path string
	left int // requests for path until then
	site *Publication
}

// NewUpstream returns an upstream that serves t as it is now.
func NewUpstream(t *Tree) *Upstream {
	return &Upstream{
		site:    t.Render(),
		arrived: make(chan struct{}),
		release: make(chan struct{}),
	}
}

// Publish serves t as it is now, from the next request on, in one step.
// Responses under way end with what they began with.
func (u *Upstream) Publish(t *Tree) {
	site := t.Render()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.site = site
}

// PublishAt publishes t as it is now when the nth request for path from now on
// arrives; that request is the first to see it.
//
//	up.PublishAt("noble/amd64/20250718/squashfs", 1, tree) // in the middle of a sync
func (u *Upstream) PublishAt(path string, n int, t *Tree) {
	site := t.Render()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.planned = append(u.planned, planned{path, n, site})
}

// Publication returns what is served now.
func (u *Upstream) Publication() *Publication {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.site
}

// SetFault lets f decide how each request from now on goes wrong; nil ends it.
// f may be called by several goroutines at once, and sees the request as it came.
func (u *Upstream) SetFault(f func(*http.Request) Fault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fault = f
}

// Release lets the requests that hang now go on.
func (u *Upstream) Release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.release)
	u.release = make(chan struct{})
}

// Requests returns the requests so far, in the order of arrival.
func (u *Upstream) Requests() []Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []Request
	for _, r := range u.requests {
		all = append(all, *r)
	}
	return all
}

// Hits returns how many requests for path there were, answered well or not.
func (u *Upstream) Hits(path string) int {
	var n int
	u.count(path, func(*Request) { n++ })
	return n
}

// Bytes returns how many bytes of bodies were sent for path.
func (u *Upstream) Bytes(path string) int64 {
	var n int64
	u.count(path, func(r *Request) { n += r.Bytes })
	return n
}

// TotalBytes returns how many bytes of bodies were sent in all.
func (u *Upstream) TotalBytes() int64 {
	var n int64
	for _, r := range u.Requests() {
		n += r.Bytes
	}
	return n
}

// Peak returns how many requests were under way at the same time, at most.
func (u *Upstream) Peak() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.peak
}

// Reset forgets the requests so far, and the peak.
func (u *Upstream) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests, u.peak = nil, u.busy
}

// Await returns when n requests for path have arrived since the last Reset, or
// with an error when ctx is done.
func (u *Upstream) Await(ctx context.Context, path string, n int) error {
	for {
		u.mu.Lock()
		arrived := u.arrived
		u.mu.Unlock()
		got := u.Hits(path)
		if got >= n {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d requests for %s arrived: %w", got, n, path, context.Cause(ctx))
		}
	}
}

func (u *Upstream) count(path string, f func(*Request)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.requests {
		if r.Path == path {
			f(r)
		}
	}
}

// ServeHTTP implements [http.Handler].
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	site, record, decide, release := u.arrive(r)
	defer u.leave()
	out := &response{ResponseWriter: w, ctx: r.Context(), release: release, up: u, record: record}
	if decide != nil {
		out.fault = decide(r)
	}
	out.serve(site, r, record.Path)
}

// arrive notes a request and takes what it needs from u.
func (u *Upstream) arrive(r *http.Request) (*Publication, *Request, func(*http.Request) Fault, <-chan struct{}) {
	record := &Request{
		Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/"),
		Range: r.Header.Get("Range"), IfRange: r.Header.Get("If-Range"), IfNoneMatch: r.Header.Get("If-None-Match"),
		UserAgent: r.UserAgent(), Header: r.Header.Clone(),
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests = append(u.requests, record)
	u.busy++
	u.peak = max(u.peak, u.busy)
	close(u.arrived)
	u.arrived = make(chan struct{})
	for i := range u.planned {
		if p := &u.planned[i]; p.path == record.Path && p.left > 0 {
			if p.left--; p.left == 0 {
				u.site = p.site
			}
		}
	}
	return u.site, record, u.fault, u.release
}

func (u *Upstream) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy--
}
