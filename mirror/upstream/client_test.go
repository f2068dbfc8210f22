package upstream

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// redirect answers every request by one to another place.
func redirect(to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	})
}

func TestRedirects(t *testing.T) {
	o := &origin{files: map[string][]byte{"/0": []byte("here")}}
	o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		var hops int
		if fmt.Sscanf(r.URL.Path, "/%d", &hops); hops == 0 {
			return w
		}
		codes := []int{301, 302, 303, 307, 308}
		http.Redirect(w, r, fmt.Sprintf("/%d?secret", hops-1), codes[hops%len(codes)])
		return nil
	}
	base := o.start(t)
	c := newTestClient(t, quick())
	doc, err := c.Document(t.Context(), base+"/5", Validators{}, 100)
	if err != nil || string(doc.Bytes) != "here" || doc.URL != base+"/0" {
		t.Errorf("five redirects: %+v, %v", doc, err)
	}
	_, err = c.Document(t.Context(), base+"/6", Validators{}, 100)
	if !errors.Is(err, errRedirects) || err.Error() != "cannot fetch "+base+"/6: more than 5 redirects" {
		t.Errorf("six redirects: %v", err)
	}
	if n := len(o.asked()); n != 6+6 {
		t.Errorf("%d requests, want 12: a refusal is final", n)
	}
}

func TestRedirectRefused(t *testing.T) {
	plain := (&origin{files: map[string][]byte{"/x": []byte("plain")}}).start(t)
	for _, tt := range []struct {
		to   string
		want error
	}{
		{plain + "/x", errDowngrade},
		{"ftp://127.0.0.1/x", errRedirectURL},
		{"https://", errRedirectURL},
		{"http://[::1", errRedirectURL},
	} {
		srv := httptest.NewTLSServer(redirect(tt.to))
		defer srv.Close()
		o := quick()
		o.Transport.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig
		c := newTestClient(t, o)
		if _, err := c.Document(t.Context(), srv.URL+"/x", Validators{}, 100); !errors.Is(err, tt.want) {
			t.Errorf("redirected to %s: %v, want %v", tt.to, err, tt.want)
		}
	}
}

// A certificate that nobody vouches for is no reason to try again, and none
// to go on without.
func TestUnknownCertificate(t *testing.T) {
	hits := 0
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	c := newTestClient(t, quick())
	_, err := c.Document(t.Context(), srv.URL+"/x", Validators{}, 100)
	unknown, ok := errors.AsType[x509.UnknownAuthorityError](err)
	if fe, _ := errors.AsType[*FetchError](err); !ok || fe.Attempts != 1 || hits != 0 {
		t.Errorf("got %v (%v) after %d requests", err, unknown, hits)
	}
}

// One connection for each range: so never HTTP/2, even where it is offered.
func TestProtocol(t *testing.T) {
	var got string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Proto }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	o := quick()
	o.Transport.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig
	if _, err := newTestClient(t, o).Document(t.Context(), srv.URL, Validators{}, 100); err != nil {
		t.Fatal(err)
	}
	if got != "HTTP/1.1" {
		t.Errorf("upstream was asked by %s", got)
	}
}

func TestRequestHeader(t *testing.T) {
	var got []http.Header
	record := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = append(got, r.Header) })
	other := httptest.NewServer(record)
	defer other.Close()
	mux := http.NewServeMux()
	mux.Handle("/here", record)
	mux.Handle("/there", redirect(other.URL+"/x"))
	mux.Handle("/near", redirect("/here"))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	c := newTestClient(t, &Options{UserAgent: "oxbow/1.2", Transport: quick().Transport})
	for _, path := range []string{"/here", "/near", "/there"} {
		if _, err := c.Document(t.Context(), "http://ann:s3cret@"+host(srv.URL)+path+"?token=t0p", Validators{}, 100); err != nil {
			t.Fatal(err)
		}
	}
	const auth = "Basic YW5uOnMzY3JldA=="
	for i, wantAuth := range []string{auth, auth, ""} {
		h := got[i]
		if h.Get("User-Agent") != "oxbow/1.2" || h.Get("Accept-Encoding") != "identity" || h.Get("Referer") != "" || h.Get("Authorization") != wantAuth {
			t.Errorf("request %d has %v", i, h)
		}
	}
}

// Neither errors nor logs tell a password or a query.
func TestSecretsStayInside(t *testing.T) {
	var log bytes.Buffer
	o := quick()
	o.Attempts = 2
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.Path == "/proxy/x" {
			return nil, errors.New("malformed http://us3r:s3cret@proxy:x")
		}
		return nil, nil
	}
	c := newTestClient(t, o)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	busy := &origin{fault: func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}}
	away := httptest.NewServer(redirect("http://us3r:s3cret@127.0.0.1:1/x?token=t0p"))
	defer away.Close()
	broken := httptest.NewServer(redirect("http://us3r:s3cret@[::1/x?token=t0p"))
	defer broken.Close()
	for _, at := range []string{host(down.URL), host(busy.start(t)), host(away.URL), host(broken.URL), "[::1", host(down.URL) + "/proxy"} {
		_, err := c.Document(t.Context(), "http://us3r:s3cret@"+at+"/x?token=t0p#frag", Validators{}, 100)
		if err == nil {
			t.Fatalf("%s: no error", at)
		}
		for _, secret := range []string{"us3r", "s3cret", "token", "t0p", "frag"} {
			if strings.Contains(err.Error(), secret) || strings.Contains(log.String(), secret) {
				t.Errorf("%s: %q is told by %q or\n%s", at, secret, err, &log)
			}
		}
	}
	if log.Len() == 0 {
		t.Error("nothing was logged")
	}
}

func TestNotAURL(t *testing.T) {
	c := newTestClient(t, quick())
	for _, tt := range []struct{ in, want string }{
		{"ftp://127.0.0.1/x", "cannot fetch ftp://127.0.0.1/x: not the URL of an HTTP or HTTPS server"},
		{"127.0.0.1:80/x", "cannot fetch (malformed URL): not the URL of an HTTP or HTTPS server"},
		{"/etc/passwd", "cannot fetch /etc/passwd: not the URL of an HTTP or HTTPS server"},
		{"http:///x", "cannot fetch http:///x: not the URL of an HTTP or HTTPS server"},
	} {
		_, err := c.Document(t.Context(), tt.in, Validators{}, 100)
		if err == nil || err.Error() != tt.want || !errors.Is(err, ErrUpstream) {
			t.Errorf("%s: %v, want %s", tt.in, err, tt.want)
		}
	}
}

// The environment's proxy is used, but for hosts that it excludes. It is read
// once in a process, so this test runs itself in another.
func TestProxyFromEnvironment(t *testing.T) {
	if os.Getenv("HTTP_PROXY") == "" {
		proxy := &origin{files: map[string][]byte{"/x": []byte("by proxy")}}
		at := proxy.start(t)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyFromEnvironment$", "-test.count=1", "-test.v")
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.Contains(strings.ToUpper(v), "PROXY=") })
		cmd.Env = append(cmd.Env, "HTTP_PROXY="+at, "NO_PROXY=excluded.example")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("PASS: TestProxyFromEnvironment")) {
			t.Errorf("%v\n%s", err, out)
		}
		if got := proxy.asked(); !slices.Equal(got, []string{"/x"}) {
			t.Errorf("the proxy was asked %q", got)
		}
		return
	}
	o := quick()
	o.Attempts = 1
	o.Transport = nil
	c := newTestClient(t, o)
	c.transport.DialContext = dialLoopback
	doc, err := c.Document(t.Context(), "http://upstream.example/x", Validators{}, 100)
	if err != nil || string(doc.Bytes) != "by proxy" {
		t.Errorf("got %+v, %v", doc, err)
	}
	if _, err := c.Document(t.Context(), "http://excluded.example/x", Validators{}, 100); err == nil || !strings.Contains(err.Error(), "a test may not connect to excluded.example:80") {
		t.Errorf("the excluded host: %v", err)
	}
}
