package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oxbow/cache"
)

// newPair makes a certificate for 127.0.0.1, which trusts itself, and its key, in PEM.
func newPair(t *testing.T, until time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(until.Unix()),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     until,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// pairFiles are the files of a certificate and its key.
type pairFiles struct{ cert, key string }

func newPairFiles(t *testing.T, until time.Time) pairFiles {
	f := pairFiles{filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")}
	cert, key := newPair(t, until)
	f.write(t, cert, key)
	return f
}

func (f pairFiles) write(t *testing.T, cert, key []byte) {
	t.Helper()
	for name, data := range map[string][]byte{f.cert: cert, f.key: key} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (f pairFiles) load(t *testing.T, log *slog.Logger) *Certificate {
	t.Helper()
	c, err := LoadCertificate(f.cert, f.key, log)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// trusts returns a client's side of TLS that trusts the certificate in a file.
func trusts(t *testing.T, file string) *tls.Config {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	return &tls.Config{RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}}
}

func dialTLS(t *testing.T, addr string, config *tls.Config) *wire {
	t.Helper()
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, c)
	w.SetDeadline(time.Now().Add(20 * time.Second))
	return w
}

// Over TLS files are what they are without, by HTTP/1.1 and nothing older than TLS 1.2, and
// the end of the certificate shows.
func TestTLS(t *testing.T) {
	s := newSite(t, false)
	const size = 5<<20 + 17
	s.publish("stable", s.putZeros("big", size), s.put(cache.KindItem, "a", "0123456789"))
	files := newPairFiles(t, time.Now().Add(10*24*time.Hour+time.Hour))
	addr := serve(t, s.server(Options{Certificate: files.load(t, nil), Metrics: NewMetrics("v1")}, stable))

	w := dialTLS(t, addr, trusts(t, files.cert))
	if got := w.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("the server speaks %q", got)
	}
	for _, test := range []struct {
		path   string
		status int
		size   int
	}{
		{"/ephemeral-v3/stable/big", http.StatusOK, size},
		{"/ephemeral-v3/stable/a", http.StatusOK, 10},
		{"/ephemeral-v3/stable/nothing", http.StatusNotFound, 10},
	} {
		w.send(t, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", test.path)
		if resp, body := w.answer(t, http.MethodGet); resp.StatusCode != test.status || len(body) != test.size {
			t.Errorf("%s: %d, %d bytes", test.path, resp.StatusCode, len(body))
		}
	}
	w.send(t, "GET /-/readyz HTTP/1.1\r\nHost: mirror\r\n\r\n")
	if _, body := w.answer(t, http.MethodGet); body != "ready\nnote: the TLS certificate expires in 10 days\n" {
		t.Errorf("readiness: %q", body)
	}
	w.send(t, "GET /-/metrics HTTP/1.1\r\nHost: mirror\r\n\r\n")
	if _, body := w.answer(t, http.MethodGet); !strings.Contains(body, "\noxbow_tls_certificate_expiry_timestamp_seconds 1.") {
		t.Errorf("the metrics do not have the end of the certificate")
	}

	old := trusts(t, files.cert)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if c, err := tls.Dial("tcp", addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// Who speaks plain HTTP to the port is told what is wrong.
func TestPlainHTTPToTLS(t *testing.T) {
	s := newSite(t, false)
	addr := serve(t, s.server(Options{Certificate: newPairFiles(t, time.Now().Add(time.Hour)).load(t, nil)}, stable))
	w := dial(t, addr)
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\n")
	if resp, body := w.answer(t, http.MethodGet); resp.StatusCode != http.StatusBadRequest || body != "Client sent an HTTP request to an HTTPS server.\n" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// Stray bytes cost nothing over TLS, too: the client gets its file and a proper end, and
// the connection lingers below TLS.
func TestStrayBytesOverTLS(t *testing.T) {
	s := newStraySite(t)
	files := newPairFiles(t, time.Now().Add(time.Hour))
	addr := serve(t, s.server(Options{Certificate: files.load(t, nil)}, stable))
	config := trusts(t, files.cert)
	for _, test := range strayTests {
		t.Run(test.name, func(t *testing.T) {
			w := dialTLS(t, addr, config)
			w.send(t, aiohttpHead, test.path)
			time.Sleep(test.wait)
			w.send(t, aiohttpStray)
			resp := w.head(t, http.MethodGet)
			if resp.StatusCode != http.StatusOK || !resp.Close || resp.ContentLength != test.size {
				t.Fatalf("status %d, close %v, length %d", resp.StatusCode, resp.Close, resp.ContentLength)
			}
			time.Sleep(test.wait)
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != test.size {
				t.Fatalf("got %d bytes of %d: %v", n, test.size, err)
			}
			if _, err := w.r.ReadByte(); err != io.EOF {
				t.Fatalf("behind the file: %v, want the end that TLS announces", err)
			}
			// A connection that was reset would refuse these.
			if _, err := w.Conn.(*tls.Conn).NetConn().Write([]byte("more")); err != nil {
				t.Errorf("the connection does not linger: %v", err)
			}
		})
	}
}

// A new pair is taken when the server is told, and otherwise within a minute of the first
// handshake; connections that are open go on.
func TestCertificateIsReplaced(t *testing.T) {
	s := newSite(t, false)
	first := time.Now().Add(100 * 24 * time.Hour).Truncate(time.Second)
	files := newPairFiles(t, first)
	c := files.load(t, nil)
	addr := serve(t, s.server(Options{Certificate: c}))
	w := dialTLS(t, addr, trusts(t, files.cert))

	cert, key := newPair(t, first.Add(time.Hour))
	files.write(t, cert, key)
	if err := c.Reload(); err != nil {
		t.Fatal(err)
	}
	dialTLS(t, addr, trusts(t, files.cert))
	w.send(t, "GET /-/healthz HTTP/1.1\r\nHost: mirror\r\n\r\n")
	if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Errorf("the open connection answers %d", resp.StatusCode)
	}
	if got := c.Expires(); !got.Equal(first.Add(time.Hour)) {
		t.Errorf("expires %v", got)
	}
}

// Files are looked at once a minute. What cannot be used, as while it is being written, is
// logged once, and the pair before it stays.
func TestCertificateFilesAreWatched(t *testing.T) {
	first := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	files := newPairFiles(t, first)
	second, secondKey := newPair(t, first.Add(time.Hour))
	firstKey, err := os.ReadFile(files.key)
	if err != nil {
		t.Fatal(err)
	}
	var out logBuffer
	synctest.Test(t, func(t *testing.T) {
		c := files.load(t, slog.New(slog.NewTextHandler(&out, nil)))
		for _, step := range []struct {
			name      string
			cert, key []byte
			wait      time.Duration
			want      time.Time
			errors    int // in the log by then
			lines     int
		}{
			{"too early", second, secondKey, lookEvery - 1, first, 0, 0},
			{"half of it", second, firstKey, 1, first, 1, 1},
			{"still half", second, firstKey, time.Hour, first, 1, 1},
			{"whole", second, secondKey, lookEvery, first.Add(time.Hour), 1, 2},
			{"unchanged", second, secondKey, time.Hour, first.Add(time.Hour), 1, 2},
			{"empty", nil, secondKey, lookEvery, first.Add(time.Hour), 2, 3},
			{"nonsense", []byte("x"), secondKey, lookEvery, first.Add(time.Hour), 3, 4},
			{"too large", make([]byte, maxWatched+1), secondKey, lookEvery, first.Add(time.Hour), 4, 5},
		} {
			files.write(t, step.cert, step.key)
			time.Sleep(step.wait)
			if got := c.Expires(); !got.Equal(step.want) {
				t.Errorf("%s: expires %v, want %v", step.name, got, step.want)
			}
			if got, lines := len(out.lines("level=ERROR", "stays in effect")), strings.Count(out.String(), "\n"); got != step.errors || lines != step.lines {
				t.Errorf("%s: %d errors in %d lines, want %d in %d:\n%s", step.name, got, lines, step.errors, step.lines, &out)
			}
		}
		// Nor is a failure repeated that whoever asked for it has seen.
		files.write(t, second, secondKey)
		if err := os.Remove(files.key); err != nil {
			t.Fatal(err)
		}
		if err := c.Reload(); err == nil || !strings.Contains(err.Error(), files.key) {
			t.Errorf("Reload without a key: %v", err)
		}
		before := out.String()
		time.Sleep(time.Hour)
		if c.Expires(); out.String() != before {
			t.Errorf("said again:\n%s", &out)
		}
	})
	if strings.Contains(out.String(), "PRIVATE") {
		t.Error("the log shows a key")
	}
}

// A pair that cannot be used is refused with the names of both files.
func TestCertificateErrors(t *testing.T) {
	files := newPairFiles(t, time.Now())
	other := newPairFiles(t, time.Now())
	for _, test := range []struct{ name, cert, key, want string }{
		{"of another", files.cert, other.key, "private key does not match"},
		{"swapped", files.key, files.cert, "cannot use the TLS certificate " + files.key + " with the key " + files.cert},
		{"gone", files.cert + "x", files.key, "cannot read the TLS certificate"},
		{"a directory", filepath.Dir(files.cert), files.key, "not a regular file"},
	} {
		if _, err := LoadCertificate(test.cert, test.key, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	var out logBuffer
	if err := os.Chmod(files.key, 0o644); err != nil {
		t.Fatal(err)
	}
	files.load(t, slog.New(slog.NewTextHandler(&out, nil)))
	if len(out.lines("level=WARN", files.key)) != 1 {
		t.Errorf("a key that everyone can read is taken in silence:\n%s", &out)
	}
}
