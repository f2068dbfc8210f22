package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
)

var ubuntu = []string{"https://images.maas.io/ephemeral-v3/stable"}

// ask sends a request for a URL to the forward proxy, on a connection of its own.
func (f *forwarded) ask(t testing.TB, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	w := dial(t, f.addr)
	defer w.Close()
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "%s %s HTTP/1.1\r\nHost: mirror\r\n%s\r\n", method, url, strings.Join(append(header, ""), "\r\n"))
	return w.answer(t, method)
}

// newFar starts a host for the proxy to reach, and returns its host and port.
func newFar(t testing.TB, do http.HandlerFunc) string {
	far := httptest.NewServer(do)
	t.Cleanup(far.Close)
	return far.Listener.Addr().String()
}

// A client that keeps upstream's URLs gets upstream's documents, and files from the store,
// over a connection that it keeps; the front end's clients get the site's. Unknown paths
// are 404, also those that python-simplestreams glues. Upstream is not asked.
func TestForwardServesStreams(t *testing.T) {
	f := newForwarded(t, Options{}, []string{"https://user:secret@images.maas.io/ephemeral-v3/stable", "http://10.1.2.3:8000"})
	f.listen(t)
	if _, body := get(t, f.front, "/ephemeral-v3/stable/streams/v1/index.sjson"); body != "the site's index" {
		t.Errorf("the front end has %q", body)
	}
	w := dial(t, f.addr)
	for _, test := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET http://images.maas.io/ephemeral-v3/stable/streams/v1/index.sjson", 200, "upstream's index"},
		{"GET https://images.maas.io/ephemeral-v3/stable/streams/v1/index.sjson", 200, "upstream's index"},
		{"GET http://images.maas.io:80/ephemeral-v3/stable/streams/v1/index.sjson", 200, "upstream's index"},
		{"GET https://images.maas.io:443/ephemeral-v3/stable/streams/v1/index.sjson?x=y", 200, "upstream's index"},
		{"GET http://IMAGES.maas.io/ephemeral-v3/stable/%73treams/v1/index.sjson", 200, "upstream's index"},
		{"GET http://10.1.2.3:8000/noble/squashfs", 200, "the squashfs"},
		{"GET http://images.maas.io/ephemeral-v3/stable/noble/squashfs", 200, "the squashfs"},
		{"HEAD http://images.maas.io/ephemeral-v3/stable/noble/squashfs", 200, ""},
		{"GET http://images.maas.io/ephemeral-v3/stable/noble/other", 404, "not found\n"},
		{"GET http://images.maas.io/ephemeral-v3/stablestreams/v1/index.sjson", 404, "not found\n"},
		{"GET http://10.1.2.3:8000/-/metrics", 404, "not found\n"},
	} {
		method, _, _ := strings.Cut(test.request, " ")
		w.send(t, "%s HTTP/1.1\r\nHost: mirror\r\n\r\n", test.request)
		resp, body := w.answer(t, method)
		if resp.StatusCode != test.status || body != test.body {
			t.Errorf("%s: %d %q", test.request, resp.StatusCode, body)
		}
	}
	resp, body := f.ask(t, "GET", "http://images.maas.io/ephemeral-v3/stable/noble/squashfs", "Range: bytes=4-")
	if resp.StatusCode != http.StatusPartialContent || body != "squashfs" || resp.Header.Get("Cache-Status") != hitCurrent {
		t.Errorf("range: %v %q", resp, body)
	}
	if len(f.dialed) > 0 {
		t.Errorf("connected to %q", f.dialed)
	}
	if len(f.log.lines("path=/ephemeral-v3/stable/noble/squashfs", "status=206", "host=images.maas.io", "forward=served", "stream=stable")) != 1 {
		t.Errorf("log:\n%s", f.log)
	}
}

// Of several streams with one upstream the first that knows a path answers.
func TestForwardOfSeveralStreams(t *testing.T) {
	f := newForwarded(t, Options{Streams: func() []Stream {
		return []Stream{{Name: "stable", Upstream: ubuntu}, {Name: "other", Upstream: ubuntu}}
	}}, nil)
	f.publish("other", f.put(cache.KindUpstream, "streams/v1/index.sjson", "another index"), f.put(cache.KindItem, "jammy/squashfs", "another squashfs"))
	f.listen(t)
	for path, want := range map[string]string{"streams/v1/index.sjson": "upstream's index", "jammy/squashfs": "another squashfs", "focal/squashfs": "not found\n"} {
		if _, body := f.ask(t, "GET", ubuntu[0]+"/"+path); body != want {
			t.Errorf("%s is %q, want %q", path, body, want)
		}
	}
}

// What a stream knows and the store lacks is pulled through, as for the front end.
func TestForwardFills(t *testing.T) {
	o := newOrigin(t, 1<<20)
	f := newForwarded(t, Options{Pull: puller(t, o.url)}, ubuntu)
	f.publish("stable", f.put(cache.KindUpstream, "streams/v1/index.sjson", "{}"), o.entry("noble/cold"))
	f.listen(t)
	for _, want := range []string{missed, hitCurrent} {
		resp, body := f.ask(t, "GET", ubuntu[0]+"/noble/cold")
		if body != string(o.content) || resp.Header.Get("Cache-Status") != want {
			t.Errorf("%d bytes, %v", len(body), resp.Header)
		}
		f.awaitHere(o)
	}
	if o.asked.Load() != 1 {
		t.Errorf("upstream is asked %d times", o.asked.Load())
	}
}

// What is allowed is relayed as it is: neither side sees what is for one connection only,
// both see who relayed it, and compressed bytes stay compressed.
func TestRelay(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, strings.Repeat("package", 100))
	z.Close()
	var got http.Header
	var uri, host string
	far := newFar(t, func(w http.ResponseWriter, r *http.Request) {
		got, uri, host = r.Header.Clone(), r.RequestURI, r.Host
		h := w.Header()
		h.Set("Connection", "X-Secret, Upgrade")
		h.Set("X-Secret", "s")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("X-Kept", "k")
		h.Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	})
	f := newForwarded(t, Options{}, ubuntu, far)
	f.listen(t)
	resp, body := f.ask(t, "GET", "http://"+far+"/ubuntu/a%2Fb?c=%20d", "Connection: X-Mine, keep-alive", "X-Mine: m", "X-Other: o", "TE: trailers", "Upgrade: websocket",
		"Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5", "Accept-Encoding: gzip", "Authorization: Basic YTpi", "Via: 1.0 squid")
	if body != packed.String() || resp.StatusCode != http.StatusOK || resp.ContentLength != int64(packed.Len()) {
		t.Errorf("%d bytes of %d, %v", len(body), resp.ContentLength, resp.Header)
	}
	for _, name := range []string{"X-Secret", "Keep-Alive", "Proxy-Authenticate"} {
		if resp.Header.Get(name) != "" {
			t.Errorf("the client sees %s", name)
		}
	}
	if resp.Header.Get("X-Kept") != "k" || !strings.HasPrefix(resp.Header.Get("Via"), "1.1 oxbow-") {
		t.Errorf("the client sees %v", resp.Header)
	}
	for _, name := range []string{"X-Mine", "Te", "Upgrade", "Connection", "Proxy-Connection", "Proxy-Authorization", "User-Agent", "X-Forwarded-For"} {
		if v, ok := got[name]; ok {
			t.Errorf("the host sees %s: %q", name, v)
		}
	}
	via := got.Values("Via")
	if got.Get("X-Other") != "o" || got.Get("Accept-Encoding") != "gzip" || got.Get("Authorization") != "Basic YTpi" ||
		len(via) != 2 || via[0] != "1.0 squid" || "1.1 "+strings.TrimPrefix(via[1], "1.1 ") != resp.Header.Get("Via") {
		t.Errorf("the host sees %v", got)
	}
	if uri != "/ubuntu/a%2Fb?c=%20d" || host != far {
		t.Errorf("the host is asked for %s of %s", uri, host)
	}
	// A request that has come through this proxy before goes round and round.
	if resp, _ := f.ask(t, "GET", "http://"+far+"/", "Via: 1.0 squid, "+via[1]); resp.StatusCode != http.StatusLoopDetected {
		t.Errorf("a loop ends with %d", resp.StatusCode)
	}
}

// An entry that is the beginning of URLs allows these, and nothing else of the host.
func TestRelayBelowPath(t *testing.T) {
	far := newFar(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	f := newForwarded(t, Options{}, ubuntu, "http://"+far+"/ubuntu/")
	f.listen(t)
	for path, status := range map[string]int{"/ubuntu/": 200, "/ubuntu/dists/noble/InRelease": 200, "/ubuntu/pool/a+b_1%7e2.deb": 200, "/ubuntu": 403, "/": 403, "/ubuntu/../": 403} {
		if resp, body := f.ask(t, "GET", "http://"+far+path); resp.StatusCode != status || status == 200 && body != path {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	if resp, _ := f.ask(t, "CONNECT", far); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a tunnel: %d", resp.StatusCode)
	}
}

// A relayed answer comes as it is sent, and one that ends too early ends so for the
// client, whether its length was told or not.
func TestRelayAsItComes(t *testing.T) {
	for _, length := range []string{"", "100000"} {
		seen := make(chan bool)
		far := newFar(t, func(w http.ResponseWriter, r *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			w.Write(make([]byte, 50000))
			w.(http.Flusher).Flush()
			<-seen
			panic(http.ErrAbortHandler)
		})
		f := newForwarded(t, Options{}, ubuntu, far)
		f.listen(t)
		w := dial(t, f.addr)
		w.SetDeadline(time.Now().Add(20 * time.Second))
		w.send(t, "GET http://%s/ HTTP/1.1\r\nHost: a\r\n\r\n", far)
		resp := w.head(t, "GET")
		if _, err := io.CopyN(io.Discard, resp.Body, 40000); err != nil {
			t.Errorf("length %q: %v", length, err)
		}
		close(seen)
		if n, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Errorf("length %q: the answer is whole, after %d more bytes", length, n)
		}
	}
}

// A host that is allowed and does not answer as it should is told of, without the words
// of the inside, and so is one whose certificate nobody vouches for.
func TestRelayFails(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a host is asked that shows no proper certificate") }))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	switching := newFar(t, func(w http.ResponseWriter, r *http.Request) {
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		rw.Flush()
		io.Copy(io.Discard, c)
	})
	f := newForwarded(t, Options{}, ubuntu, gone.Addr().String(), "https://"+secure.Listener.Addr().String()+"/", switching,
		"missing.example:80", "inner.example:80", "both.example:"+portOf(switching))
	f.srv.dialer.resolve = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		loopback := netip.MustParseAddr("127.0.0.1")
		switch host {
		case "inner.example":
			return []netip.Addr{loopback, netip.MustParseAddr("::1"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
		case "both.example":
			return []netip.Addr{loopback, netip.MustParseAddr("192.0.2.1")}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	dial := f.srv.dialer.dial
	f.srv.dialer.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "192.0.2.1:") {
			return nil, context.DeadlineExceeded
		}
		return dial(ctx, network, addr)
	}
	f.listen(t)
	for _, test := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET http://" + gone.Addr().String() + "/", 502, gone.Addr().String() + " cannot be reached, or its answer cannot be used\n"},
		{"CONNECT " + gone.Addr().String(), 502, gone.Addr().String() + " cannot be reached, or its answer cannot be used\n"},
		{"GET https://" + secure.Listener.Addr().String() + "/", 502, secure.Listener.Addr().String() + " cannot be reached, or its answer cannot be used\n"},
		{"GET http://" + switching + "/", 502, switching + " cannot be reached, or its answer cannot be used\n"},
		{"GET http://missing.example/", 502, "missing.example cannot be reached, or its answer cannot be used\n"},
		{"GET http://inner.example/", 403, "the name inner.example stands for an inner address: that address itself in serve.forward_proxy.allow would allow it\n"},
		{"CONNECT inner.example:80", 403, "the name inner.example:80 stands for an inner address: that address itself in serve.forward_proxy.allow would allow it\n"},
		{"CONNECT both.example:" + portOf(switching), 504, "both.example:" + portOf(switching) + " does not answer\n"},
	} {
		method, target, _ := strings.Cut(test.request, " ")
		resp, body := f.ask(t, method, target)
		if resp.StatusCode != test.status || body != test.body {
			t.Errorf("%s: %d %q", test.request, resp.StatusCode, body)
		}
	}
	if len(f.log.lines("forward=failed", "certificate")) != 1 || len(f.log.lines("forward=refused", "inner.example")) != 2 {
		t.Errorf("log:\n%s", f.log)
	}
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// Names stand for addresses of the net, and for inner ones only where nobody can ask
// there for what is not his.
func TestInnerAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.216.34": false, "10.0.0.1": false, "192.168.1.1": false, "2001:db8::1": false, "fd00::1": false, "64:ff9b::5db8:d822": false,
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::": true, "0.0.0.0": true, "0.1.2.3": true, "::ffff:127.0.0.1": true,
		"169.254.169.254": true, "::ffff:169.254.169.254": true, "fe80::1": true, "fe80::1%eth0": true, "224.0.0.1": true, "ff02::1": true,
		"100.100.100.200": true, "168.63.129.16": true, "192.0.0.192": true, "fd00:ec2::254": true, "fd20:ce::254": true,
		"64:ff9b::7f00:1": true, "64:ff9b::a9fe:a9fe": true, "2002:7f00:1::": true, "::7f00:1": true, "255.255.255.255": true,
	} {
		if got := isInner(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

// An entry is taken only in the form in which it would be printed.
func TestParseAllowed(t *testing.T) {
	for _, text := range []string{"archive.ubuntu.com:80", "a:1", "10.0.0.7:3142", "[::1]:80", "[2001:db8::1]:65535", "http://archive.ubuntu.com/", "https://esm.ubuntu.com/apps/ubuntu/",
		"http://10.0.0.7:3142/", "http://[::1]:8080/a/", "https://a:80/"} {
		if a, err := ParseAllowed(text); err != nil || a.String() != text {
			t.Errorf("%s: %v, %v", text, a, err)
		}
	}
	for _, text := range []string{"", ":80", "a", "a:", "a:0", "a:080", "a:+80", "a:65536", "a:http", "*", "*:80", "*.ubuntu.com:80", "10.0.0.0/8", "A:80", "a.:80", ".a:80", "a..b:80", "a b:80", "-a:80", "a_b:80", "é:80",
		"2130706433:80", "127.1:80", "0177.0.0.1:80", "0x7f000001:80", "0x7f.1:80", "a.1:80", "::1:80", "[::1]", "[::0001]:80", "[::ffff:127.0.0.1]:80", "[fe80::1%eth0]:80", "[127.0.0.1]:80", "u@a:80",
		"http://a", "http://a/b", "http://a:80/", "https://a:443/", "http://A/", "HTTP://a/", "ftp://a/", "//a/", "http:///", "http://a/../", "http://a/./b/", "http://a//b/", "http://a//", "http://a/b//", "http://a/%62/", "http://a/%2e%2e/", "http://a/b%2fc/",
		"http://a/?b/", "http://a/#b/", "http://u@a/", "http://u:p@a/", "http://a/..b/", "http://*/", " a:80", "a:80 "} {
		if a, err := ParseAllowed(text); err == nil {
			t.Errorf("%q is read as %v", text, a)
		}
	}
}

// Where tokens are asked for, the forward proxy asks too, in the way of proxies, and keeps
// what it is shown to itself.
func TestForwardTokens(t *testing.T) {
	far := newFar(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["Proxy-Authorization"], r.Header["Authorization"])
	})
	f := newForwarded(t, Options{Tokens: loadTokens(t, newTokenFile(t, token), nil)}, ubuntu, far)
	f.listen(t)
	for _, url := range []string{ubuntu[0] + "/noble/squashfs", "http://" + far + "/", "http://example.com/"} {
		for _, header := range [][]string{nil, {"Authorization: Bearer " + token}, {"Proxy-Authorization: Bearer " + otherToken}} {
			resp, _ := f.ask(t, "GET", url, header...)
			if resp.StatusCode != http.StatusProxyAuthRequired || resp.Header.Get("Proxy-Authenticate") == "" {
				t.Errorf("%s with %q: %d", url, header, resp.StatusCode)
			}
		}
	}
	if resp, _ := f.ask(t, "CONNECT", far); resp.StatusCode != http.StatusProxyAuthRequired {
		t.Errorf("a tunnel: %d", resp.StatusCode)
	}
	if _, body := f.ask(t, "GET", ubuntu[0]+"/noble/squashfs", "Proxy-Authorization: Bearer "+token); body != "the squashfs" {
		t.Errorf("with the token: %q", body)
	}
	if _, body := f.ask(t, "GET", "http://"+far+"/", "Proxy-Authorization: Bearer "+token); body != "[] []" {
		t.Errorf("the host sees %q", body)
	}
}

// Each outcome is counted.
func TestForwardMetrics(t *testing.T) {
	far := newFar(t, func(http.ResponseWriter, *http.Request) {})
	f := newForwarded(t, Options{Metrics: NewMetrics("v1")}, ubuntu, far, "missing.example:80")
	f.listen(t)
	for range 2 {
		f.ask(t, "GET", ubuntu[0]+"/noble/squashfs")
		f.ask(t, "GET", "http://"+far+"/")
		f.ask(t, "GET", "http://example.com/")
		f.ask(t, "GET", "http://missing.example/")
		f.ask(t, "POST", "http://"+far+"/")
	}
	samples, _ := scrape(t, f.front)
	for outcome, want := range map[string]string{outcomeServed: "2", outcomeRelayed: "2", outcomeTunnelled: "0", outcomeFailed: "2", outcomeRefused: "4", outcomeDenied: "0", outcomeLoop: "0"} {
		if got := samples[`oxbow_forward_requests_total{outcome="`+outcome+`"}`]; got != want {
			t.Errorf("%s: %s, want %s", outcome, got, want)
		}
	}
}
