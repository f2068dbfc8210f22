package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// nginx serves a directory on a loopback port until stop is called. Rate, if
// not empty, bounds each connection, as in "20m".
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
	access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
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
	stop, err = start("nginx", "-p", state, "-c", file, "-e", filepath.Join(state, "error.log"))
	if err != nil {
		return "", nil, err
	}
	if err := answering(ctx, addr); err != nil {
		stop()
		return "", nil, err
	}
	return "http://" + addr, stop, nil
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
