package proxy

import (
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
)

// sendfileConn notes what package net would use sendfile for: its ReadFrom does so when
// the source is a file below one io.LimitedReader.
type sendfileConn struct {
	*net.TCPConn
	seen *sendfileSeen
}

type sendfileSeen struct {
	mu          sync.Mutex // guards the rest
	calls       int
	file, other int64 // bytes by ReadFrom from files, and from whatever else
}

func (c *sendfileConn) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if ok {
		_, ok = limited.R.(*os.File)
	}
	n, err := c.TCPConn.ReadFrom(src)
	c.seen.mu.Lock()
	defer c.seen.mu.Unlock()
	c.seen.calls++
	if ok {
		c.seen.file += n
	} else {
		c.seen.other += n
	}
	return n, err
}

type sendfileListener struct {
	net.Listener
	seen *sendfileSeen
}

func (l *sendfileListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sendfileConn{c.(*net.TCPConn), l.seen}, nil
}

// Files reach the connection in the form that sendfile takes, whole and in ranges, but
// for the 512 bytes that net/http sends with the head.
func TestSendfileSurvives(t *testing.T) {
	s := newSite(t, false)
	const size = 5<<20 + 17
	s.publish("stable", s.putZeros("big", size))
	for _, test := range []struct {
		header string
		status int
		size   int
	}{
		{"X-None: 0", http.StatusOK, size},
		{"Range: bytes=17-3000016", http.StatusPartialContent, 3000000},
		{"User-Agent: maas/3.5.2", http.StatusOK, size},
	} {
		t.Run(test.header, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			seen := new(sendfileSeen)
			end := serveOn(t, s.server(Options{}, stable), &sendfileListener{ln, seen})
			resp, body := get(t, ln.Addr().String(), "/ephemeral-v3/stable/big", test.header)
			if resp.StatusCode != test.status || len(body) != test.size {
				t.Fatalf("status %d, %d bytes, want %d, %d", resp.StatusCode, len(body), test.status, test.size)
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if seen.file != int64(test.size-512) || seen.other != 0 {
				t.Errorf("%d bytes by sendfile, %d copied, want %d, 0", seen.file, seen.other, test.size-512)
			}
			if want := (test.size + stride - 1) / stride; seen.calls != want {
				t.Errorf("%d calls, want one for each of %d strides", seen.calls, want)
			}
		})
	}
}
