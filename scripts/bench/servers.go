package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// nginx serves a directory on a loopback port until stop is called, and notes beside it
// what it sent. Rate, if not empty, bounds each connection, as in "20m".
func nginx(ctx context.Context, b *bench, root, rate string) (base string, stop func(), err error) {
	addr, err := freeAddress()
	if err != nil {
		return "", nil, err
	}
	state, err := os.MkdirTemp(b.dir, "nginx-")
	if err != nil {
		return "", nil, err
	}
	limit := ""
	if rate != "" {
		limit = "limit_rate " + rate + ";"
	}
	conf := fmt.Sprintf(`daemon off; worker_processes 2; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 512; }
http {
	log_format sent '$body_bytes_sent $uri'; access_log %[3]s.log sent; sendfile on; tcp_nopush on; keepalive_requests 100000;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen %[2]s; root %[3]s; %[4]s }
}
`, state, addr, root, limit)
	// The default user of a root nginx cannot read private directories.
	if os.Geteuid() == 0 {
		conf = "user root;\n" + conf
	}
	file := filepath.Join(state, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return "", nil, err
	}
	p, err := start("nginx", "-p", state, "-c", file, "-e", filepath.Join(state, "error.log"))
	if err != nil {
		return "", nil, err
	}
	if err := answering(ctx, addr); err != nil {
		p.stop()
		return "", nil, err
	}
	return "http://" + addr, p.stop, nil
}

// A varnishd keeps what it fetched in memory.
type varnishd struct {
	*process
	addr string
}

// varnish is a fresh Varnish before upstream, with Debian's settings and room for the file.
func varnish(ctx context.Context, b *bench, upstream string) (*varnishd, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp(b.dir, "varnish-")
	if err != nil {
		return nil, err
	}
	p, err := start("varnishd", "-F", "-j", "none", "-n", state, "-a", addr, "-b", strings.TrimPrefix(upstream, "http://"), "-s", "malloc,1g")
	if err != nil {
		return nil, err
	}
	if err := answering(ctx, addr); err != nil {
		p.stop()
		return nil, err
	}
	return &varnishd{p, addr}, nil
}

// throttle relays connections to addr, which get bytesPerSecond together.
func throttle(addr string, bytesPerSecond int) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	limit := rate.NewLimiter(rate.Limit(bytesPerSecond), bytesPerSecond/100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c, addr, limit)
		}
	}()
	return l, nil
}

func relay(client net.Conn, addr string, limit *rate.Limiter) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(server, client) }()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if limit.WaitN(context.Background(), n) != nil {
			return
		}
		if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// fileServer is the peer of the hot scenario: what a few lines of Go serve.
func fileServer(addr, dir string) error {
	return http.ListenAndServe(addr, http.FileServer(http.Dir(dir)))
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// answering waits until something accepts connections at addr.
func answering(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing answers at %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
