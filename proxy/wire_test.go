package proxy

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// aiohttpGet is what aiohttp 3.8 with chunked=True sends for a GET, head and body.
const (
	aiohttpHead  = "GET %s HTTP/1.1\r\nHost: mirror\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: maas/3.5.2/17141-g.d3a2b5c/4d5f\r\n\r\n"
	aiohttpStray = "0\r\n\r\n"
)

// strayTests are the ways in which stray bytes arrive, of the files of newStraySite.
var strayTests = []struct {
	name, path string
	size       int64
	wait       time.Duration // between head and stray bytes
}{
	{"with the head", "/ephemeral-v3/stable/small", straySmall, 0},
	{"behind a small file", "/ephemeral-v3/stable/small", straySmall, 20 * time.Millisecond},
	{"with the head of a big file", "/ephemeral-v3/stable/big", strayBig, 0},
	{"behind the head of a big file", "/ephemeral-v3/stable/big", strayBig, 20 * time.Millisecond},
}

const (
	straySmall = 3000
	strayBig   = 24 << 20 // more than the buffers of a connection hold
)

func newStraySite(t *testing.T) *site {
	s := newSite(t, false)
	s.publish("stable", s.putZeros("big", strayBig), s.putZeros("small", straySmall))
	return s
}

// Clients that leave stray bytes behind a GET receive every file whole, however the bytes
// arrive and however slowly the client reads: nothing is answered to the bytes, and the
// connection is not reset while data is on its way.
func TestStrayBytesCostNothing(t *testing.T) {
	s := newStraySite(t)
	addr := serve(t, s.server(Options{}, stable))

	for _, test := range strayTests {
		t.Run(test.name, func(t *testing.T) {
			for range 3 { // files in sequence, as MAAS fetches them
				w := dial(t, addr)
				w.SetDeadline(time.Now().Add(20 * time.Second))
				w.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
				w.send(t, aiohttpHead, test.path)
				time.Sleep(test.wait)
				w.send(t, aiohttpStray)
				resp := w.head(t, http.MethodGet)
				if resp.StatusCode != http.StatusOK || !resp.Close || resp.ContentLength != test.size {
					t.Fatalf("status %d, close %v, length %d", resp.StatusCode, resp.Close, resp.ContentLength)
				}
				// The server is done with what fits into the buffers long before the
				// client has read it.
				time.Sleep(test.wait)
				n, err := io.Copy(io.Discard, resp.Body)
				if err != nil || n != test.size {
					t.Fatalf("got %d bytes of %d: %v", n, test.size, err)
				}
				if _, err := w.r.ReadByte(); err != io.EOF {
					t.Fatalf("behind the file: %v, want the end of the connection", err)
				}
				w.Close()
			}
		})
	}
}

// On a kept connection the same bytes are a malformed request: what the rule is for.
func TestStrayBytesOnKeptConnection(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.putZeros("small", 3000))
	w := dial(t, serve(t, s.server(Options{}, stable)))
	w.SetDeadline(time.Now().Add(20 * time.Second))
	w.send(t, "GET /ephemeral-v3/stable/small HTTP/1.1\r\nHost: mirror\r\n\r\n%s", aiohttpStray)
	if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if resp, _ := w.answer(t, http.MethodGet); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the stray bytes are answered with %d", resp.StatusCode)
	}
}
