package proxy

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oxbow/cache"
)

const (
	token      = "0123456789abcdef-Token"
	otherToken = "fedcba9876543210/Other+="
)

// newTokenFile makes a file of tokens.
func newTokenFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tokens")
	rewrite(t, name, text)
	return name
}

func rewrite(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func loadTokens(t *testing.T, file string, log *slog.Logger) *Tokens {
	t.Helper()
	tokens, err := LoadTokens(file, log)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// everything returns a log that keeps all that it is told, of every level.
func everything(b *logBuffer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.Level(-100)}))
}

func bearer(token string) string { return "Authorization: Bearer " + token }

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// A token is taken in the two ways in which clients can send one, and nothing else is.
func TestTokenIsAskedFor(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	file := newTokenFile(t, "# handed out in May\n\n  "+token+"\t\r\n"+otherToken)
	addr := serve(t, s.server(Options{Tokens: loadTokens(t, file, nil)}, stable))
	for _, test := range []struct {
		name, header string
		status       int
	}{
		{"Bearer", bearer(token), 200},
		{"Bearer, the other", bearer(otherToken), 200},
		{"Bearer in small letters", "authorization: bearer " + token, 200},
		{"Bearer behind two spaces", bearer(" " + token), 200},
		{"Basic", basic("maas", token), 200},
		{"Basic, the other", basic("maas", otherToken), 200},
		{"Basic without a user", basic("", token), 200},
		{"none", "X-Token: " + token, 401},
		{"empty header", "Authorization: ", 401},
		{"Bearer, empty", bearer(""), 401},
		{"Basic, empty", basic("", ""), 401},
		{"Basic, no colon", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(token)), 401},
		{"Basic, token as user", basic(token, ""), 401},
		{"Basic, not base64", "Authorization: Basic " + token, 401},
		{"wrong", bearer(strings.Repeat("x", len(token))), 401},
		{"short of a character", bearer(token[1:]), 401},
		{"a character more", bearer(token + "x"), 401},
		{"the last differs", bearer(token[:len(token)-1] + "m"), 401},
		{"other case", bearer(strings.ToUpper(token)), 401},
		{"both", bearer(token + "," + otherToken), 401},
		{"a comment of the file", bearer("# handed out in May"), 401},
		{"without a scheme", "Authorization: " + token, 401},
		{"of another scheme", "Authorization: Digest " + token, 401},
		{"for a proxy", "Proxy-Authorization: Bearer " + token, 401},
		{"a wrong one first", bearer("x") + "\r\n" + bearer(token), 401},
	} {
		resp, body := get(t, addr, "/ephemeral-v3/stable/a", test.header)
		if resp.StatusCode != test.status || (test.status == 200) != (body == "0123456789") {
			t.Errorf("%s: %d %q, want %d", test.name, resp.StatusCode, body, test.status)
		}
		if got, want := resp.Header.Get("WWW-Authenticate") != "", test.status == 401; got != want {
			t.Errorf("%s: %d with WWW-Authenticate %q", test.name, resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
		}
	}
}

// Without a token nothing is told of any path by any method, not even whether it is there,
// but how the server does.
func TestTokenIsAskedForEverywhere(t *testing.T) {
	s := newSite(t, false)
	id := s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	file := newTokenFile(t, token)
	addr := serve(t, s.server(Options{
		Tokens: loadTokens(t, file, nil), Metrics: NewMetrics("v1"), Keyring: func() []byte { return []byte("keys") },
	}, stable))
	ask := func(line, header string) (*http.Response, string) {
		w := dial(t, addr)
		defer w.Close()
		w.SetDeadline(time.Now().Add(20 * time.Second))
		w.send(t, "%s HTTP/1.1\r\nHost: mirror\r\n%s\r\n", line, header)
		method, _, _ := strings.Cut(line, " ")
		return w.answer(t, method)
	}
	for _, line := range []string{
		"GET /ephemeral-v3/stable/a", "HEAD /ephemeral-v3/stable/a", "GET /ephemeral-v3/stable/nothing", "GET /ephemeral-v3/stable/",
		"GET /", "GET /nothing", "GET /a/../b", "GET /%00", "GET /-", "GET /-/", "GET /-/metrics", "GET /-/keyring.gpg",
		"GET /-/snapshots/stable/" + id.String() + "/a", "GET /-/custody/stable/" + id.String(), "GET /-/healthz/", "GET //-/healthz", "GET /-/healthz/../metrics", "GET /-/HEALTHZ",
		"GET http://mirror/ephemeral-v3/stable/a", "POST /ephemeral-v3/stable/a", "DELETE /-/metrics", "OPTIONS *", "OPTIONS /", "TRACE /",
		"PROPFIND /", "CONNECT mirror:443",
	} {
		resp, body := ask(line, "")
		want := "a token is needed here: `Authorization: Bearer TOKEN`, or the TOKEN as password in the URL\n"
		if strings.HasPrefix(line, "HEAD ") {
			want = ""
		}
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != `Bearer realm="oxbow", Basic realm="oxbow"` || body != want {
			t.Errorf("%s: %d %v %q", line, resp.StatusCode, resp.Header, body)
		}
		for _, name := range []string{"ETag", "Allow", "Cache-Status", "Link"} {
			if got := resp.Header.Get(name); got != "" {
				t.Errorf("%s: %s is %q", line, name, got)
			}
		}
	}
	for line, want := range map[string]int{
		"GET /-/healthz": 200, "HEAD /-/healthz": 200, "GET /-/readyz": 200, "GET /-/readyz?verbose": 200, "POST /-/readyz": 405,
	} {
		if resp, _ := ask(line, ""); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", line, resp.StatusCode, want)
		}
	}
	for line, want := range map[string]int{"GET /-/metrics": 200, "GET /-/keyring.gpg": 200, "GET /nothing": 404, "POST /": 405} {
		if resp, _ := ask(line, bearer(token)+"\r\n"); resp.StatusCode != want {
			t.Errorf("%s with a token: %d, want %d", line, resp.StatusCode, want)
		}
	}
}

// A new file takes effect when the server is told, for connections that are open too. One
// that cannot be used changes nothing.
func TestTokensAreReplaced(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	file := newTokenFile(t, token)
	tokens := loadTokens(t, file, nil)
	w := dial(t, serve(t, s.server(Options{Tokens: tokens}, stable)))
	w.SetDeadline(time.Now().Add(20 * time.Second))
	for _, step := range []struct {
		name, text string
		bad        bool
		old, new   int // what is answered to either token
	}{
		{"the old one", token, false, 200, 401},
		{"both", token + "\n" + otherToken, false, 200, 200},
		{"the new one", otherToken, false, 401, 200},
		{"half written", otherToken[:5], true, 401, 200},
		{"emptied", "", true, 401, 200},
		{"the old one again", token, false, 200, 401},
	} {
		rewrite(t, file, step.text)
		if err := tokens.Reload(); (err != nil) != step.bad {
			t.Errorf("%s: Reload: %v", step.name, err)
		}
		for shown, want := range map[string]int{token: step.old, otherToken: step.new} {
			w.send(t, "GET /ephemeral-v3/stable/a HTTP/1.1\r\nHost: mirror\r\n%s\r\n\r\n", bearer(shown))
			if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != want {
				t.Errorf("%s: %s is answered with %d, want %d", step.name, shown, resp.StatusCode, want)
			}
		}
	}
}

// The file is looked at once a minute, when a request asks for it.
func TestTokenFileIsWatched(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	file := newTokenFile(t, token)
	var out logBuffer
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		serveOn(t, s.server(Options{Tokens: loadTokens(t, file, everything(&out))}, stable), l)
		for _, step := range []struct {
			text  string
			wait  time.Duration
			want  int // what is answered to the old token
			lines int // in the log by then
		}{
			{otherToken, lookEvery - 1, 200, 0},
			{otherToken, 1, 401, 1},
			{"short", lookEvery, 401, 2},
			{"short", time.Hour, 401, 2},
			{token, lookEvery, 200, 3},
		} {
			rewrite(t, file, step.text)
			time.Sleep(step.wait)
			w := l.dial(t)
			w.send(t, "GET /ephemeral-v3/stable/a HTTP/1.1\r\nHost: mirror\r\n%s\r\n\r\n", bearer(token))
			if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != step.want {
				t.Errorf("%q, after %v: %d, want %d", step.text, step.wait, resp.StatusCode, step.want)
			}
			w.Close()
			if lines := strings.Count(out.String(), "\n"); lines != step.lines {
				t.Errorf("%q: %d lines, want %d:\n%s", step.text, lines, step.lines, &out)
			}
		}
	})
}

// What is no file of tokens is refused by the number of its line, and what the line says is
// kept to itself.
func TestTokenFileErrors(t *testing.T) {
	const good = token + "\n"
	full := strings.Repeat(good, maxTokens)
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "it has no token; `openssl rand -hex 32` makes one"},
		{"comments only", "# SECRET\n\n", "it has no token"},
		{"short", "SECRET789012345\n", "line 1: a token has 16 characters or more"},
		{"short, further down", "# one\n\n" + good + "SECRET\n" + good, "line 4: a token has 16"},
		{"two on a line", good + token + " SECRET", "line 2: a token is made of visible ASCII characters"},
		{"a user before it", "maas\tSECRETSECRETSECRET", "line 1: a token is made of visible"},
		{"not ASCII", "SECRETSECRETSECRÉT", "line 1: a token is made of visible"},
		{"a mark of the byte order", "\ufeff" + good, "line 1: a token is made of visible"},
		{"UTF-16", "S\x00E\x00C\x00R\x00E\x00T\x00S\x00E\x00C\x00R\x00E\x00T\x00\n\x00", "line 1: a token is made of visible"},
		{"not UTF-8", good + "SECRETSECRET\xff\xfeSECRET", "line 2: a token is made of visible"},
		{"lines that end in CR", "SECRETSECRETSECRET\rSECRETSECRETSECRET\r", "line 1: a token is made of visible"},
		{"DEL", "SECRETSECRETSECRET\x7fSECRET", "line 1: a token is made of visible"},
		{"too many", full + "SECRETSECRETSECRET", "line 101: there are more than 100 tokens"},
		{"too large", good + strings.Repeat("# SECRET\n", maxWatched/9+1), "is larger than 256 KiB"},
	} {
		file := newTokenFile(t, test.text)
		tokens, err := LoadTokens(file, nil)
		if err == nil || tokens != nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "token file") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		} else if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error shows a token: %v", test.name, err)
		}
	}
	loadTokens(t, newTokenFile(t, full), nil)

	for name, file := range map[string]string{"gone": filepath.Join(t.TempDir(), "none"), "a directory": t.TempDir()} {
		if _, err := LoadTokens(file, nil); err == nil || !strings.Contains(err.Error(), "cannot read the token file: ") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var out logBuffer
	open := newTokenFile(t, token)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	loadTokens(t, open, everything(&out))
	if len(out.lines(`"level":"WARN"`, open)) != 1 {
		t.Errorf("a file that everyone can read is taken in silence:\n%s", &out)
	}
}

// Whatever is done with tokens, right and wrong ones, none is ever logged.
func TestTokensAreNotLogged(t *testing.T) {
	s := newSite(t, true)
	e := s.put(cache.KindItem, "a", "0123456789")
	s.publish("stable", e)
	if err := os.Remove(s.blobFile(e)); err != nil {
		t.Fatal(err)
	}
	var out logBuffer
	file := newTokenFile(t, token)
	tokens := loadTokens(t, file, everything(&out))
	var calls atomic.Int32
	srv := New(&Options{Store: s.store, Tokens: tokens, Log: everything(&out), Metrics: NewMetrics("v1"), Streams: func() []Stream {
		if calls.Add(1)%5 == 0 {
			panic("a fault of ours")
		}
		return []Stream{stable}
	}})
	addr := serve(t, srv)
	const wrong = "a-wrong-token-of-a-client"
	for _, shown := range []string{token, wrong} {
		for _, path := range []string{"/ephemeral-v3/stable/a", "/-/readyz", "/nothing?token=" + shown, "http://maas:" + shown + "@mirror/a", "//maas:" + shown + "@mirror/a", "/http://maas:" + shown + "@mirror/a"} {
			for _, header := range []string{bearer(shown), basic("maas", shown), basic(shown, shown), "Authorization: " + shown, "Cookie: " + shown, "Authorization: Digest " + shown} {
				w := dial(t, addr)
				w.SetDeadline(time.Now().Add(20 * time.Second))
				w.send(t, "GET %s HTTP/1.1\r\nHost: mirror\r\nReferer: http://maas:%s@mirror/\r\n%s\r\n\r\n", path, shown, header)
				w.ended()
				w.Close()
			}
		}
	}
	for _, text := range []string{wrong + "\n" + wrong + " " + wrong, wrong, ""} {
		rewrite(t, file, text)
		tokens.file.looked.Store(new(time.Time)) // long ago
		get(t, addr, "/-/healthz/", bearer(wrong))
		_ = tokens.Reload()
	}
	text := out.String()
	if n := strings.Count(text, `"msg":"request"`); n < 70 || !strings.Contains(text, "a fault of ours") || !strings.Contains(text, "integrity") || !strings.Contains(text, "changed and cannot be used") {
		t.Fatalf("%d requests; the log lacks what should be in it:\n%s", n, text)
	}
	for _, secret := range []string{token, wrong} {
		for _, form := range []string{secret, basic("maas", secret)[len("Authorization: Basic "):], fmt.Sprintf("%x", secret)} {
			if i := strings.Index(text, form); i >= 0 {
				t.Errorf("logged: …%s…", text[max(0, i-100):i+len(form)])
			}
		}
	}
}

// Clients that leave stray bytes receive a 401 whole and the end of the connection, which
// lingers, for a file, and may go on after one for a document.
func TestUnauthorizedAndStrayBytes(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	addr := serve(t, s.server(Options{Tokens: loadTokens(t, newTokenFile(t, token), nil)}, stable))
	for _, test := range []struct {
		path  string
		close bool
	}{
		{"/ephemeral-v3/stable/a", true},
		{"/ephemeral-v3/stable/nothing", true},
		{"/ephemeral-v3/stable/streams/v1/index.sjson", false},
	} {
		w := dial(t, addr)
		w.SetDeadline(time.Now().Add(20 * time.Second))
		w.send(t, aiohttpHead, test.path)
		resp, body := w.answer(t, http.MethodGet)
		if resp.StatusCode != http.StatusUnauthorized || resp.Close != test.close || int64(len(body)) != resp.ContentLength {
			t.Errorf("%s: %d, close %v, %d bytes of %d", test.path, resp.StatusCode, resp.Close, len(body), resp.ContentLength)
		}
		if !test.close {
			w.send(t, "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\n")
			if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: then %d", test.path, resp.StatusCode)
			}
			continue
		}
		if !w.ended() {
			t.Errorf("%s: the connection goes on", test.path)
		}
		for range 2 { // a connection that was reset would refuse the second
			w.send(t, aiohttpStray)
			time.Sleep(10 * time.Millisecond)
		}
		w.Conn.(*net.TCPConn).CloseWrite()
	}
}
