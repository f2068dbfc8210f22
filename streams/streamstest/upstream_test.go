package streamstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	squashfs = "noble/amd64/20250718/squashfs"
	kernel   = "noble/amd64/20250718/ga-24.04/generic/boot-kernel"
)

func start(t *testing.T, tree *Tree) (*Upstream, string) {
	t.Helper()
	up := NewUpstream(tree)
	server := httptest.NewServer(up)
	t.Cleanup(server.Close)
	return up, server.URL + "/"
}

// get returns status, header and what could be read of the body, with the error
// that ended it.
func get(t *testing.T, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestGoodResponses(t *testing.T) {
	tree := MAAS(Shape{})
	up, url := start(t, tree)
	want := tree.File(squashfs).Bytes()

	resp, body, err := get(t, url+squashfs, "User-Agent", "maas/3.6")
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, want) {
		t.Fatalf("got %v, %d bytes, error %v; want the file", resp, len(body), err)
	}
	tag, date := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if len(tag) < 10 || tag[0] != '"' || date == "" || resp.Header.Get("Accept-Ranges") != "bytes" || resp.ContentLength != int64(len(want)) {
		t.Errorf("header %v, want a strong ETag, Last-Modified, ranges and %d bytes", resp.Header, len(want))
	}
	for _, test := range []struct {
		header []string
		status int
		body   []byte
	}{
		{[]string{"Range", "bytes=1000-1999"}, http.StatusPartialContent, want[1000:2000]},
		{[]string{"Range", "bytes=1000-", "If-Range", tag}, http.StatusPartialContent, want[1000:]},
		{[]string{"Range", "bytes=1000-", "If-Range", `"other"`}, http.StatusOK, want},
		{[]string{"If-None-Match", tag}, http.StatusNotModified, nil},
		{[]string{"If-Modified-Since", date}, http.StatusNotModified, nil},
		{[]string{"If-None-Match", `"other"`}, http.StatusOK, want},
	} {
		resp, body, err := get(t, url+squashfs, test.header...)
		if err != nil || resp.StatusCode != test.status || !bytes.Equal(body, test.body) {
			t.Errorf("%q: got %v, %d bytes, error %v; want %d, %d bytes", test.header, resp, len(body), err, test.status, len(test.body))
		}
	}
	if resp, _, _ := get(t, url+"nothing/here"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown path: got %v, want 404", resp.Status)
	}

	if n, bytes := up.Hits(squashfs), up.Bytes(squashfs); n != 7 || bytes != int64(3*len(want)+1000+len(want)-1000) {
		t.Errorf("counted %d requests and %d bytes, want 7 and %d", n, bytes, 4*len(want))
	}
	all := up.Requests()
	if first := all[0]; first.Method != "GET" || first.Path != squashfs || first.UserAgent != "maas/3.6" || first.Status != 200 || first.Bytes != int64(len(want)) {
		t.Errorf("the first request is noted as %+v", first)
	}
	if second := all[1]; second.Range != "bytes=1000-1999" || second.Status != 206 || second.Bytes != 1000 {
		t.Errorf("the second request is noted as %+v", second)
	}
	up.Reset()
	if up.Hits(squashfs) != 0 || up.TotalBytes() != 0 {
		t.Error("Reset left something")
	}
}

// Everything that an index and its lists name is served as it says, and what is
// broken is broken.
func TestUpstreamServesTheTree(t *testing.T) {
	tree := MAAS(Shape{})
	tree.Break(kernel, Absent)
	tree.Break(squashfs, Flipped)
	_, url := start(t, tree)
	for path, f := range tree.Files() {
		resp, body, err := get(t, url+path)
		if err != nil {
			t.Fatal(err)
		}
		if ok := resp.StatusCode == 200 && bytes.Equal(body, f.Bytes()); ok != (f.Broken == Whole) {
			t.Errorf("%s, %v: got %v, %d bytes", path, f.Broken, resp.Status, len(body))
		}
	}
	for path, doc := range tree.Render().Documents() {
		if _, body, err := get(t, url+strings.ReplaceAll(path, ":", "%3A")); err != nil || !bytes.Equal(body, doc) {
			t.Errorf("%s: %d bytes, error %v, want %d", path, len(body), err, len(doc))
		}
	}
}

func TestFaults(t *testing.T) {
	tree := MAAS(Shape{})
	want := tree.File(squashfs).Bytes()
	n := len(want)
	flipped := func(at int) []byte {
		b := bytes.Clone(want)
		b[at] ^= 0xff
		return b
	}
	tests := []struct {
		summary string
		fault   Fault
		header  []string
		status  int // 0: no answer
		body    []byte
		cut     bool // the body ends in an error
	}{
		{"none", Fault{}, nil, 200, want, false},
		{"503", Fault{Status: 503, Header: http.Header{"Retry-After": {"7"}}}, nil, 503, []byte("503 Service Unavailable\n"), false},
		{"drop", Fault{Drop: true}, nil, 0, nil, true},
		{"redirect", Fault{Redirect: "http://127.0.0.1:1/"}, nil, 302, []byte("302 Found\n"), false},
		{"permanent redirect", Fault{Redirect: "/x", Status: 301}, nil, 301, []byte("301 Moved Permanently\n"), false},
		{"web page", Fault{Body: []byte("<html>")}, nil, 200, []byte("<html>"), false},
		{"cut", Fault{CutAfter: 10_000}, nil, 200, want[:10_000], true},
		{"cut of a range", Fault{CutAfter: 10}, []string{"Range", "bytes=100-199"}, 206, want[100:110], true},
		{"cut before the body", Fault{CutAfter: -1}, nil, 200, nil, true},
		{"flip first", Fault{FlipAt: 1}, nil, 200, flipped(0), false},
		{"flip last", Fault{FlipAt: -1}, nil, 200, flipped(n - 1), false},
		{"flip in a range", Fault{FlipAt: 151}, []string{"Range", "bytes=100-199"}, 206, flipped(150)[100:200], false},
		{"flip outside the range", Fault{FlipAt: 1}, []string{"Range", "bytes=100-199"}, 206, want[100:200], false},
		{"length too great", Fault{WrongLength: 5}, nil, 200, want, true},
		{"length too small", Fault{WrongLength: -5}, nil, 200, want[:n-5], false},
		{"extra", Fault{Extra: 3}, nil, 200, append(bytes.Clone(want), 0, 0, 0), false},
		{"chunked", Fault{Chunked: true}, nil, 200, want, false},
		{"no range", Fault{NoRange: true}, []string{"Range", "bytes=100-199"}, 200, want, false},
		{"another range", Fault{RangeShift: 50}, []string{"Range", "bytes=100-199"}, 206, want[150:200], false},
		{"slow", Fault{BytesPerSecond: 50 * int64(n)}, nil, 200, want, false},
	}
	up, url := start(t, tree)
	for _, test := range tests {
		up.Reset()
		up.SetFault(At("/squashfs", test.fault))
		resp, body, err := get(t, url+squashfs, test.header...)
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		if status != test.status || !bytes.Equal(body, test.body) || (err != nil) != test.cut {
			t.Errorf("%s: got status %d, %d bytes, error %v; want %d, %d bytes, error %v", test.summary,
				status, len(body), err, test.status, len(test.body), test.cut)
		}
		if got := up.Bytes(squashfs); got != int64(len(test.body)) {
			t.Errorf("%s: counted %d bytes, %d were read", test.summary, got, len(test.body))
		}
		if test.fault.Chunked != (resp != nil && resp.ContentLength == -1) {
			t.Errorf("%s: Content-Length %d", test.summary, resp.ContentLength)
		}
		for name := range test.fault.Header {
			if got := resp.Header.Get(name); got != test.fault.Header.Get(name) {
				t.Errorf("%s: %s is %q", test.summary, name, got)
			}
		}
		if resp, body, err := get(t, url+kernel); err != nil || resp.StatusCode != 200 || int64(len(body)) != tree.File(kernel).Size {
			t.Errorf("%s: another path is hurt: %v, error %v", test.summary, resp, err)
		}
	}
	up.SetFault(nil)
	if _, body, err := get(t, url+squashfs); err != nil || !bytes.Equal(body, want) {
		t.Errorf("after all faults: %d bytes, error %v", len(body), err)
	}
}

func TestFaultsInTurn(t *testing.T) {
	up, url := start(t, MAAS(Shape{}))
	up.SetFault(InTurn("index.sjson", Fault{Status: 503}, Fault{}, Fault{Status: 404}))
	var got []int
	for range 4 {
		resp, _, err := get(t, url+IndexPath)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.StatusCode)
	}
	if want := []int{503, 200, 404, 200}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestUnsignedAndNoValidators(t *testing.T) {
	tree := MAAS(Shape{})
	up, url := start(t, tree)
	up.SetFault(func(*http.Request) Fault { return Fault{Unsigned: true, NoValidators: true} })
	resp, body, err := get(t, url+IndexPath)
	if err != nil || !bytes.HasPrefix(body, []byte("{")) {
		t.Errorf("got %q, error %v, want a JSON text", body, err)
	}
	if resp.Header.Get("ETag") != "" || resp.Header.Get("Last-Modified") != "" {
		t.Errorf("validators in %v", resp.Header)
	}
	if resp, _, _ := get(t, url+"streams/v1/index.json.gpg"); resp.StatusCode != 404 {
		t.Errorf("a signature apart: got %v, want 404", resp.Status)
	}
}

// A request that hangs goes on when it is released, before the header or in the body.
func TestHangAndRelease(t *testing.T) {
	for _, fault := range []Fault{{Hang: true}, {HangAfter: -1}, {HangAfter: 5000}} {
		tree := MAAS(Shape{})
		up, url := start(t, tree)
		up.SetFault(At("/squashfs", fault))
		got := make(chan error, 1)
		go func() {
			_, body, err := get(t, url+squashfs)
			if err == nil && !bytes.Equal(body, tree.File(squashfs).Bytes()) {
				err = fmt.Errorf("got %d other bytes", len(body))
			}
			got <- err
		}()
		if err := up.Await(t.Context(), squashfs, 1); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-got:
			t.Errorf("%+v: answered at once, error %v", fault, err)
		case <-time.After(20 * time.Millisecond):
		}
		up.Release()
		if err := <-got; err != nil {
			t.Errorf("%+v: %v", fault, err)
		}
	}
}

func TestHangEndsWithTheClient(t *testing.T) {
	up, url := start(t, MAAS(Shape{}))
	up.SetFault(At("/squashfs", Fault{HangAfter: 100}))
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+squashfs, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	} // the server's Close at the end waits for the handler
}

func TestAwaitGivesUp(t *testing.T) {
	up, _ := start(t, MAAS(Shape{}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := up.Await(ctx, squashfs, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
}

// An index and the lists that a client then reads are of one tree, or the
// client can tell; nothing is ever half of one and half of another.
func TestPublishIsOneStep(t *testing.T) {
	tree := MAAS(Shape{})
	up, url := start(t, tree)
	old := tree.Render().Document(IndexPath)
	tree.AddDay()
	fresh := tree.Render().Document(IndexPath)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				_, body, err := get(t, url+IndexPath)
				if err != nil || !bytes.Equal(body, old) && !bytes.Equal(body, fresh) {
					t.Errorf("got %d bytes of neither index, error %v", len(body), err)
				}
			}
		})
	}
	up.Publish(tree)
	wg.Wait()
	if _, body, _ := get(t, url+IndexPath); !bytes.Equal(body, fresh) {
		t.Error("the new index is not there")
	}
	if n := up.Peak(); n < 1 || n > 4 {
		t.Errorf("%d requests at once, want 1 to 4", n)
	}
}

func TestPublishAt(t *testing.T) {
	tree := MAAS(Shape{})
	up, url := start(t, tree)
	tree.AddDay()
	tree.Trim(2)
	up.PublishAt(kernel, 2, tree)
	gone := "jammy/amd64/20250717/squashfs"
	status := func(path string) int {
		resp, _, err := get(t, url+path)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	got := []int{status(gone), status(kernel), status(gone), status(kernel), status(gone)}
	if want := []int{200, 200, 200, 200, 404}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A file of many gigabytes costs neither memory nor time but for what is read.
func TestLargeFiles(t *testing.T) {
	tree := NewTree()
	tree.Extra = map[string]*File{"big": NewFile("big", 1<<40)}
	_, url := start(t, tree)
	resp, body, err := get(t, url+"big", "Range", fmt.Sprintf("bytes=%d-%d", 1<<39, 1<<39+999))
	want := make([]byte, 1000)
	tree.File("big").good().ReadAt(want, 1<<39)
	if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, want) {
		t.Errorf("got %v, %d bytes, error %v", resp, len(body), err)
	}
}
