package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
)

// A forwarded is a site whose server has a forward proxy.
type forwarded struct {
	*site
	srv   *Server
	addr  string // of the forward proxy
	front string // of the front end

	mu     sync.Mutex // guards dialed
	dialed []string   // addresses that the proxy connected to
}

// newForwarded makes a site of a stream that has these upstreams, and allows what allow
// says. No name stands for anything, as long as the test does not change that.
func newForwarded(t testing.TB, o Options, upstream []string, allow ...string) *forwarded {
	f := &forwarded{site: newSite(t, false)}
	entries := make([]Allowed, len(allow))
	for i, text := range allow {
		var err error
		if entries[i], err = ParseAllowed(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	o.Allowed = func() []Allowed { return entries }
	f.srv = f.server(o, Stream{Name: "stable", Path: "/ephemeral-v3/stable/", Upstream: upstream})
	dial := f.srv.dialer.dial
	f.srv.dialer.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dialed = append(f.dialed, addr)
		return dial(ctx, network, addr)
	}
	f.srv.dialer.resolve = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		return nil, errors.New("no such host: " + host)
	}
	f.publish("stable",
		f.put(cache.KindSite, "streams/v1/index.sjson", "the site's index"),
		f.put(cache.KindUpstream, "streams/v1/index.sjson", "upstream's index"),
		f.put(cache.KindItem, "noble/squashfs", "the squashfs"))
	return f
}

// listen serves until the test ends.
func (f *forwarded) listen(t testing.TB) {
	f.front = serve(t, f.srv)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	run(t, func(ctx context.Context) error { return f.srv.ServeForward(ctx, ln) })
}

// A probe is a request that only an open proxy would do, without the version of HTTP
// behind its first line, and how it is refused. What follows that line is added where there
// is nothing.
type probe struct {
	why, request string
	status       int
}

// What is neither below a stream's upstream nor listed is refused in every form, no name is
// looked up for it and nothing connected to, the answer names the key that would allow it
// where one would, and the connection ends. What stands behind a request is never taken
// for another one.
func TestRefused(t *testing.T) {
	f := newForwarded(t, Options{Connections: 1000}, []string{"https://images.maas.io/ephemeral-v3/stable", "http://10.1.2.3:8000/images/"},
		"archive.ubuntu.com:80", "http://esm.ubuntu.com/apps/ubuntu/", "https://10.9.9.9:8443/only/")
	f.srv.dialer.resolve = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		t.Errorf("%s is looked up", host)
		return nil, os.ErrNotExist
	}
	f.listen(t)
	_, port, _ := net.SplitHostPort(f.addr)
	text, err := os.ReadFile("testdata/refused/probes")
	if err != nil {
		t.Fatal(err)
	}
	probes := readProbes(t, strings.ReplaceAll(string(text), "${self}", port))
	if len(probes) < 60 {
		t.Errorf("%d probes", len(probes))
	}
	for _, p := range probes {
		f.try(t, p)
	}
	if len(f.dialed) > 0 {
		t.Errorf("connected to %q", f.dialed)
	}
	if n := len(f.log.lines("refused by the forward proxy", "level=WARN", "forward=refused")); n < 60 {
		t.Errorf("%d refusals are logged", n)
	}
}

// readProbes reads lines of a status and a request, as between the quotes of a string in
// Go. The comment above says what they try.
func readProbes(t *testing.T, text string) (probes []probe) {
	t.Helper()
	why := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if comment, ok := strings.CutPrefix(line, "# "); ok || line == "" {
			why = comment
			continue
		}
		code, request, _ := strings.Cut(line, " ")
		status, err := strconv.Atoi(code)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if request, err = strconv.Unquote(`"` + request + `"`); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		probes = append(probes, probe{why, request, status})
	}
	return probes
}

func (f *forwarded) try(t *testing.T, p probe) {
	first, rest, _ := strings.Cut(p.request, "\r\n")
	if rest == "" {
		rest = "Host: images.maas.io\r\n\r\n"
	}
	fault := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %q: "+format, append([]any{p.why, p.request}, args...)...)
	}
	w := dial(t, f.addr)
	defer w.Close()
	w.SetDeadline(time.Now().Add(10 * time.Second))
	w.send(t, "%s HTTP/1.1\r\n%s", first, rest)
	all, err := io.ReadAll(w.r)
	if err != nil {
		fault("%v", err)
	}
	method, _, _ := strings.Cut(first, " ")
	answers := bufio.NewReader(strings.NewReader(string(all)))
	resp, err := http.ReadResponse(answers, &http.Request{Method: method})
	if err != nil {
		fault("no answer: %v", err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != p.status {
		fault("status %d, want %d: %s", resp.StatusCode, p.status, body)
	}
	if more, _ := io.ReadAll(answers); len(more) > 0 {
		fault("a second answer: %s", more)
	}
	if said := string(body); resp.StatusCode == http.StatusForbidden && method != "HEAD" &&
		(strings.Count(said, "\n") != 1 || !strings.Contains(said, "serve.forward_proxy.allow")) {
		fault("the answer is no line that names the key: %q", body)
	}
}
