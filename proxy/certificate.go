package proxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// A Certificate is what the server shows of itself over TLS, with its key. New files,
// such as an ACME client's, take effect by themselves within a minute or so, and at
// [Certificate.Reload] at once.
type Certificate struct {
	files watched
	pair  atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads a certificate, with the chain that leads to its root, and its key
// from files in PEM. The log is told of changes; if nil, nobody is.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: watched{
		what:   "TLS certificate",
		names:  []string{certFile, keyFile},
		secret: keyFile,
		log:    orDiscard(log),
	}}
	c.files.use = func(contents [][]byte) error {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return fmt.Errorf("cannot use the TLS certificate %s with the key %s: %w", certFile, keyFile, err)
		}
		c.pair.Store(&pair)
		return nil
	}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads the files again. After an error the pair that was loaded before stays in
// effect. It may be called at any time from any goroutine.
func (c *Certificate) Reload() error { return c.files.load() }

// Expires returns when the certificate ends to be valid.
func (c *Certificate) Expires() time.Time { return c.current().Leaf.NotAfter }

func (c *Certificate) current() *tls.Certificate {
	c.files.look()
	return c.pair.Load()
}

// config returns the TLS side of a server. Versions before 1.2 are deprecated by RFC 8996,
// and every client that is known of speaks 1.2.
func (c *Certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}
}
