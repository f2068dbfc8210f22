package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/proxy"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the store's streams over HTTP until told to end",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "accept connections at `ADDR`", Value: ":8080", EnvVars: []string{"OXBOW_LISTEN"}},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	return withStore(c, c.App.ErrWriter, slog.LevelInfo, cache.Open, func(s *cache.Store, log *slog.Logger) error {
		ln, err := new(net.ListenConfig).Listen(c.Context, "tcp", c.String("listen"))
		if err != nil {
			return fmt.Errorf("cannot serve: %w", err)
		}
		return serveStore(c.Context, s, ln, log)
	})
}

// serveStore serves the streams of s on ln until ctx ends, and lets running
// downloads finish. SIGTERM is the way to end it, and no error.
func serveStore(ctx context.Context, s *cache.Store, ln net.Listener, log *slog.Logger) error {
	all, err := mirror.Streams(s.Files())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	ring, err := mirror.Keyring(s.Files())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	base := "http://" + reachable(ln.Addr())
	var served []proxy.Stream
	for _, st := range all {
		served = append(served, proxy.Stream{Name: st.Name, Path: st.Path, Also: st.Also, View: cache.Published})
		log.Info("serving", "stream", st.Name, "boot_source", base+st.Path)
	}
	if len(all) == 0 {
		log.Warn("the store has no stream to serve; `oxbow mirror sync URL` defines one")
	}
	log.Info("listening", "address", ln.Addr().String(), "keyring", base+"/-/keyring.gpg")
	srv := proxy.New(&proxy.Options{
		Store:   s,
		Streams: func() []proxy.Stream { return served },
		Keyring: func() []byte { return ring },
		Log:     log,
	})
	if err := srv.Serve(ctx, ln); err != nil {
		return err
	}
	if by, ok := errors.AsType[stopped](context.Cause(ctx)); ok && by.Signal == syscall.SIGTERM {
		return nil
	}
	return context.Cause(ctx)
}

// reachable returns the host and port for URLs of a listener: this machine's
// name where it listens on every address.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return net.JoinHostPort(host, port)
}
