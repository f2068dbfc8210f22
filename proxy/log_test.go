package proxy

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"oxbow/cache"
)

// secret is what a client sends in places that nobody but us should read.
const secret = "SECRET"

var took = regexp.MustCompile(` seconds=\S+`)

// awaitLines waits for the log to have n lines that contain part, as the line of a request
// comes after its answer, and returns them without their times.
func awaitLines(t *testing.T, log *logBuffer, part string, n int) []string {
	t.Helper()
	for wait := time.Millisecond; ; wait *= 2 {
		lines := log.lines(part)
		if len(lines) == n {
			for i, line := range lines {
				_, line, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " ")
				lines[i] = took.ReplaceAllString(line, "")
			}
			return lines
		}
		if len(lines) > n || wait > 5*time.Second {
			t.Fatalf("%d lines with %q, want %d:\n%s", len(lines), part, n, log)
		}
		time.Sleep(wait)
	}
}

// The line tells what became of the body and where it came from, for every kind of answer.
func TestRequestLineOfEveryAnswer(t *testing.T) {
	s := newSite(t, true)
	gone := s.put(cache.KindItem, "gone", "gone")
	older := s.publish("stable", s.put(cache.KindItem, "old", "old"))
	a := s.put(cache.KindItem, "a", "0123456789")
	id := s.publish("stable", a, gone,
		cache.Entry{Kind: cache.KindKnown, Path: "known", Digest: cache.Digest{1}, Size: 7})
	if err := os.Remove(s.blobFile(gone)); err != nil {
		t.Fatal(err)
	}
	addr := serve(t, s.server(Options{}, stable))
	in := func(id cache.Digest) string { return " stream=stable snapshot=" + id.String()[:shortID] }
	const at = "/ephemeral-v3/stable/"
	for i, test := range []struct{ line, header, want string }{
		{"GET " + at + "a", "Range: bytes=2-4", "path=" + at + `a status=206 bytes=3 client=127.0.0.1 cache="oxbow; hit"` + in(id)},
		{"GET " + at + "a", "Range: bytes=10-", "path=" + at + `a status=416 bytes=33 client=127.0.0.1 cache="oxbow; hit"` + in(id)},
		{"GET " + at + "a", `If-None-Match: "` + a.Digest.String() + `"`, "path=" + at + `a status=304 bytes=0 client=127.0.0.1 cache="oxbow; hit"` + in(id)},
		{"GET " + at + "old", "", "path=" + at + `old status=200 bytes=3 client=127.0.0.1 cache="oxbow; hit; detail=older-snapshot"` + in(older)},
		{"GET /-/snapshots/stable/" + older.String()[:9] + "/old", "", "path=/-/snapshots/stable/" + older.String()[:9] + `/old status=200 bytes=3 client=127.0.0.1 cache="oxbow; hit"` + in(older)},
		{"GET " + at + "known", "", "path=" + at + `known status=404 bytes=16 client=127.0.0.1 cache="oxbow; detail=not-stored"` + in(id)},
		{"GET " + at + "gone", "", "path=" + at + `gone status=404 bytes=14 client=127.0.0.1 cache="oxbow; detail=damaged"` + in(id)},
		{"GET " + at + "gone", "User-Agent: maas/3.8.0", "path=" + at + `gone status=0 bytes=0 client=127.0.0.1` + in(id)},
		{"GET " + at + "nothing", "", "path=" + at + `nothing status=404 bytes=10 client=127.0.0.1 cache="oxbow; detail=unknown" stream=stable`},
		{"OPTIONS *", "", `path=* status=405 bytes=34 client=127.0.0.1`},
		{"CONNECT mirror:443", "", `path="" status=405 bytes=34 client=127.0.0.1`},
	} {
		w := dial(t, addr)
		w.SetDeadline(time.Now().Add(20 * time.Second))
		w.send(t, "%s HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n%s\r\n\r\n", test.line, test.header)
		if _, err := io.Copy(io.Discard, w); err != nil {
			t.Errorf("%s: %v", test.line, err)
		}
		method, _, _ := strings.Cut(test.line, " ")
		want := "level=INFO msg=request method=" + method + " " + test.want
		if got := awaitLines(t, s.log, "msg=request", i+1)[i]; got != want {
			t.Errorf("%s %s logs\n%s, want\n%s", test.line, test.header, got, want)
		}
	}
}

// The client is an address, of whatever family, without its port.
func TestRequestLineNamesTheClient(t *testing.T) {
	s := newSite(t, false)
	srv := s.server(Options{})
	for remote, want := range map[string]string{
		"192.0.2.7:1234":          "client=192.0.2.7 ",
		"[2001:db8::7]:1234":      "client=2001:db8::7 ",
		"[fe80::1%eth0]:1234":     "client=fe80::1%eth0 ",
		"@":                       "client=@ ",
		"/run/a socket":           `client="/run/a socket" `,
		"[::ffff:192.0.2.7]:1234": "client=::ffff:192.0.2.7 ",
	} {
		before := len(s.log.String())
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", secret)
		r.Header.Set("Forwarded", "for="+secret)
		srv.ServeHTTP(httptest.NewRecorder(), r)
		if line := s.log.String()[before:]; !strings.Contains(line, want) || strings.Contains(line, secret) {
			t.Errorf("%s logs\n%s, want %s", remote, line, want)
		}
	}
}

// Of what a client sends only method and path are logged, well formed or not: no query
// string, no user of a URL and no header, neither by us nor by net/http.
func TestSecretsAreNotLogged(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	var out logBuffer
	files := newPairFiles(t, time.Now().Add(time.Hour))
	plain := serve(t, New(&Options{Store: s.store, Streams: func() []Stream { return []Stream{stable} }, Log: everything(&out)}))
	secure := serve(t, New(&Options{Store: s.store, Streams: func() []Stream { return []Stream{stable} }, Log: everything(&out), Certificate: files.load(t, nil)}))

	const a = "/ephemeral-v3/stable/a"
	var heads []string
	for _, target := range []string{
		a + "?token=SECRET", a + "?SECRET", a + "?a;SECRET", a + "?%zz=SECRET", a + "?a?SECRET",
		a + "%3Ftoken=SECRET", a + "%3ftoken=SECRET", a + "%3F%3FSECRET", "/nothing?SECRET", "/-/nothing?SECRET", "/-/snapshots/stable/0/a?SECRET", "/?SECRET",
		"http://SECRET@mirror/a", "http://me:SECRET@mirror" + a, "http://me:SECRET@mirror" + a + "?SECRET", "https://:SECRET@mirror", "ftp://me:SECRET@mirror/a",
		"http://me:SEC%52ET:SECRET@mirror/a", "http://me:SECRET%2fSECRET@mirror/a", "HTTP://me:SECRET@mirror/a",
		"//me:SECRET@mirror/a", "//SECRET@mirror", "/http://me:SECRET@mirror/a", "/a/https://me:SECRET@SECRET@mirror/b", "/http%3A%2F%2Fme:SECRET%40mirror/a", "/http:%2f%2fme:SECRET@mirror",
		"/http://me:SECRET%07@mirror/a",
		"http:SECRET@mirror/a", "mailto:SECRET@mirror", "http:me:SECRET@mirror",
	} {
		heads = append(heads, "GET "+target+" HTTP/1.1\r\nHost: mirror\r\n\r\n")
	}
	for _, header := range []string{
		"Authorization: Bearer SECRET", "Authorization: Basic SECRET", "Proxy-Authorization: SECRET", "Referer: http://me:SECRET@mirror/?SECRET", "Cookie: SECRET", "User-Agent: SECRET",
		"X-Forwarded-For: SECRET", "Origin: SECRET", "Range: bytes=SECRET", "Range: SECRET", "If-Range: SECRET", "If-None-Match: SECRET", "If-Modified-Since: SECRET", "SECRET: SECRET",
		// Malformed ones.
		"Host: SECRET", "SECRET", "SECRET : x", " SECRET", "Content-Length: SECRET", "Content-Length: 1\r\nContent-Length: SECRET", "Transfer-Encoding: SECRET", "Expect: SECRET",
		"X: SECRET\x00", "X: SECRET\r SECRET", "X-SECRET\x7f: a", "Connection: Upgrade\r\nUpgrade: SECRET", "Trailer: SECRET",
	} {
		heads = append(heads, "GET "+a+" HTTP/1.1\r\nHost: mirror\r\n"+header+"\r\n\r\n")
	}
	for _, line := range []string{
		"SECRET", "GET SECRET HTTP/1.1", "GET /SECRET", "GET /a?SECRET SECRET HTTP/1.1", "GET /a?SECRET HTTP/SECRET", "GET /a?SECRET HTTP/9.9", "GET /%zzSECRET HTTP/1.1", "GET /a?SECRET\x00 HTTP/1.1",
		"GET http://me:SECRET@mir ror/ HTTP/1.1", "GET http://me:SEC/RET@mirror/?SECRET HTTP/1.1", "GET http://[SECRET HTTP/1.1", "G(T /a?SECRET HTTP/1.1", "PRI * HTTP/2.0\r\n\r\nSECRET",
		"CONNECT me:SECRET@mirror:443 HTTP/1.1", "CONNECT /a?SECRET HTTP/1.1", "\x16\x03\x01SECRET",
	} {
		heads = append(heads, line+"\r\nHost: mirror\r\n\r\n")
	}
	roots := trusts(t, files.cert)
	for _, head := range heads {
		for _, open := range []func() net.Conn{
			func() net.Conn { return dial(t, plain) },
			func() net.Conn { return dialTLS(t, secure, roots) },
			func() net.Conn { return dial(t, secure) }, // a client that speaks no TLS
		} {
			c := open()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(c, head); err != nil {
				t.Fatal(err)
			}
			if half, ok := c.(*wire).Conn.(interface{ CloseWrite() error }); ok {
				half.CloseWrite() // the server is not to wait for more
			}
			io.Copy(io.Discard, c)
			c.Close()
		}
	}
	if c, err := tls.Dial("tcp", secure, &tls.Config{ServerName: secret}); err == nil { // the client refuses the certificate
		c.Close()
		t.Error("SECRET is the server's name")
	}
	var n int
	for wait := time.Millisecond; wait < 5*time.Second; wait *= 2 {
		if n = len(out.lines("TLS handshake error")); n > len(heads) {
			break
		}
		time.Sleep(wait)
	}
	if requests := len(out.lines(`"msg":"request"`)); n <= len(heads) || requests < len(heads) {
		t.Errorf("%d requests and %d handshakes that failed are logged, of %d heads", requests, n, len(heads))
	}
	for _, line := range out.lines(secret) {
		t.Errorf("logged: %s", line)
	}
}

// No path makes two lines out of one, adds an attribute, or moves the cursor of who reads
// the log on a terminal: neither in text nor in JSON.
func TestLogLinesCannotBeForged(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	var text, json logBuffer
	addrs := []string{
		serve(t, New(&Options{Store: s.store, Streams: func() []Stream { return []Stream{stable} }, Log: slog.New(slog.NewTextHandler(&text, nil))})),
		serve(t, New(&Options{Store: s.store, Streams: func() []Stream { return []Stream{stable} }, Log: slog.New(slog.NewJSONHandler(&json, nil))})),
	}
	paths := []string{
		"/a%0Atime=2026-01-01T00:00:00Z%20level=ERROR%20msg=forged", "/a%0D%0Alevel=ERROR", "/a%20status=200", "/a%22%20status=200%20x=%22", "/a=b", "/%1B[2J%1B]0;x%07", "/%00", "/%7F", "/%08%08%08",
		"/%C2%85", "/%C2%9B2J", "/%E2%80%A8level=ERROR", "/%E2%80%A9", "/%E2%80%AEgnp", "/%EF%BB%BF", "/%E2%80%8B", "/%FF%FE", "/%C0%8A", "/%5Cn", "/a%0Blevel=ERROR", "/http://a%0Ab@c/",
		"/ephemeral-v3/stable/%0Alevel=ERROR", "/-/snapshots/stable/%0Alevel=ERROR/a", "/é", "/" + strings.Repeat("%0A", 1000),
	}
	for _, path := range paths {
		for _, addr := range addrs {
			get(t, addr, path, "Connection: close")
		}
	}
	for name, log := range map[string]*logBuffer{"text": &text, "JSON": &json} {
		awaitLines(t, log, "request", len(paths))
		if n := strings.Count(log.String(), "\n"); n != len(paths) {
			t.Errorf("%s: %d lines of %d requests", name, n, len(paths))
		}
		for line := range strings.Lines(log.String()) {
			if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 && name == "text" {
				t.Errorf("%s: a character that does not print: %s", name, strconv.QuoteToASCII(line[i:]))
			} else if i >= 0 && line[i] < ' ' {
				t.Errorf("%s: a control character: %s", name, strconv.QuoteToASCII(line[i:]))
			}
		}
	}
	// Whoever splits a line at spaces outside quotes finds one of each attribute.
	attribute := regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)`)
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSuffix(line, "\n")
		var keys []string
		for _, m := range attribute.FindAllStringSubmatch(line, -1) {
			keys = append(keys, m[1])
		}
		got := strings.TrimSuffix(strings.Join(keys, " "), " stream")
		if got != "time level msg method path status bytes seconds client cache" || attribute.ReplaceAllString(line, "") != "" || !strings.Contains(line, " level=INFO msg=request ") {
			t.Errorf("attributes %s in\n%s", got, line)
		}
	}
}
