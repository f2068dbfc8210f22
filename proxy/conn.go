package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// A connection that is closed while bytes of the client are unread, or arrive later, is
// reset by the kernel, and a reset throws away what the client has not received yet. The
// stray bytes of some MAAS versions (client.go) would so cost them the end of a file
// whose connection we close. Such connections linger: our side is closed for writing,
// and what the client still sends is read until it hangs up, or for lingerTime, which
// is long after stray bytes arrive; from then on the kernel delivers the rest by itself.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 10
)

// halfCloser is what *net.TCPConn has beyond [net.Conn]. Its ReadFrom uses sendfile.
type halfCloser interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
}

// A conn is a connection that can linger.
type conn struct {
	halfCloser
	linger atomic.Bool // the first Close does
	gone   func()      // to call when it is closed, any number of times
}

// Close closes the connection. A second call ends the lingering of the first; below a
// [tls.Conn], which hands on only one, that lasts for its lingerTime.
func (c *conn) Close() error {
	defer c.gone()
	if c.linger.Swap(false) && c.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.halfCloser, lingerBytes)
	}
	return c.halfCloser.Close()
}

// A plainConn is a connection that cannot linger.
type plainConn struct {
	net.Conn
	gone func() // as that of a conn
}

func (c *plainConn) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

type connKey struct{}

// withConn makes the connection known to the requests that arrive on it. Over TLS that is
// the one below, which [tls.Conn.Close] closes after it has said goodbye; what the client
// still sends is read and thrown away without being deciphered.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// lingerAfter makes the connection of r linger when it is closed after the answer.
func lingerAfter(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		c.linger.Store(true)
	}
}
