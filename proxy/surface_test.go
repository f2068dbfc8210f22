package proxy

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
)

// TestSurface sends the requests of testdata/*.txt over raw connections. A script is made
// of blocks, separated by blank lines:
//
//	# what is promised
//	> a line of the request; the blank line after its head is added
//	< 404                   the status
//	< Name: value           a header with exactly this value
//	< -Name                 a header that is absent
//	< "text"                the whole body, quoted as in Go
//	< kept                  the connection answers another request
//	< closed                the server closes the connection
//
// A ${name} stands for a value of the site below.
func TestSurface(t *testing.T) {
	s := newSite(t, false)
	const (
		squashfs = "0123456789abcdefghij"
		path     = "noble/amd64/20260131/squashfs"
	)
	gone := s.put(cache.KindItem, "noble/amd64/20260101/squashfs", "the older squashfs")
	oldIndex := s.put(cache.KindSite, "streams/v1/index.sjson", "old index.sjson")
	oldID := s.publish("stable", oldIndex, gone)
	item := s.put(cache.KindItem, path, squashfs)
	index := s.put(cache.KindSite, "streams/v1/index.sjson", "new index.sjson")
	newID := s.publish("stable", index, item,
		s.put(cache.KindUpstream, "streams/v1/index.sjson", "upstream index.sjson"),
		s.put(cache.KindSite, "streams/v1/index.json", "new index.json"),
		s.put(cache.KindSite, "streams/v1/index.json.gpg", "signature"),
		s.put(cache.KindSite, "streams/v1/e1/com.ubuntu.maas:stable:v3:download.sjson", "list"),
		s.put(cache.KindItem, "notes/20260131/about.json", "{}"),
		s.put(cache.KindItem, "empty", ""),
		cache.Entry{Kind: cache.KindKnown, Path: "focal/amd64/20260131/squashfs", Digest: cache.Digest{1}, Size: 7},
	)
	s.publish("inner", s.put(cache.KindSite, "streams/v1/index.sjson", "inner index.sjson"))
	srv := s.server(Options{Keyring: func() []byte { return []byte("keys") }},
		Stream{Name: "stable", Path: "/ephemeral-v3/stable/", Also: []string{"/ephemeral-v3/daily", "short"}, View: cache.Published},
		Stream{Name: "inner", Path: "/ephemeral-v3/stable/inner"},
		Stream{Name: "stable", Path: "/vendor/", View: cache.Upstream},
		Stream{Name: "empty", Path: "/empty/"})
	addr := serve(t, srv)
	values := map[string]string{
		"squashfs": item.Digest.String(), "gone": gone.Digest.String(), "index": index.Digest.String(),
		"old": oldID.String(), "new": newID.String(), "old12": oldID.String()[:12], "item": "/ephemeral-v3/stable/" + path,
	}
	runScripts(t, addr, "testdata/*.txt", values)
}

// runScripts runs the scripts that match pattern.
func runScripts(t *testing.T, addr, pattern string, values map[string]string) {
	scripts, err := filepath.Glob(pattern)
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for block := range strings.SplitSeq(os.Expand(string(text), func(name string) string { return values[name] }), "\n\n") {
				runBlock(t, addr, block)
			}
		})
	}
}

func runBlock(t *testing.T, addr, block string) {
	var promise, request string
	var want []string
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			request += line[2:] + "\r\n"
		case strings.HasPrefix(line, "< "):
			want = append(want, line[2:])
		default:
			promise += strings.TrimPrefix(line, "#")
		}
	}
	if request == "" {
		return
	}
	fault := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s\n%s"+format, append([]any{promise, request}, args...)...)
	}
	c := dial(t, addr)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.send(t, "%s\r\n", request)
	method, _, _ := strings.Cut(request, " ")
	resp, body := c.answer(t, method)
	for _, w := range want {
		name, value, isHeader := strings.Cut(w, ": ")
		switch {
		case w == strconv.Itoa(resp.StatusCode):
		case w[0] == '"':
			if text, err := strconv.Unquote(w); err != nil || body != text {
				fault("body %q, want %s", body, w)
			}
		case w[0] == '-':
			if got, ok := resp.Header[http.CanonicalHeaderKey(w[1:])]; ok {
				fault("%s is %q, want none", w[1:], got)
			}
		case w == "kept":
			c.send(t, "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\n")
			if again, err := http.ReadResponse(c.r, nil); err != nil || again.StatusCode != http.StatusOK {
				fault("no second answer on the connection: %v", err)
			}
		case w == "closed":
			if !c.ended() {
				fault("the connection is still open")
			}
		case isHeader:
			got := resp.Header.Values(name)
			if name == "Connection" && resp.Close {
				got = []string{"close"} // http.ReadResponse takes the header away
			}
			if len(got) != 1 || got[0] != value {
				fault("%s is %q, want %q", name, got, value)
			}
		default:
			fault("status %d, want %s", resp.StatusCode, w)
		}
	}
}
