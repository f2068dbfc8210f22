package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/proxy"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the store's streams over HTTP until told to end",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "accept connections at `ADDR`", Value: site.DefaultListen, EnvVars: []string{"OXBOW_LISTEN"}},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	addr := c.String("listen")
	if err := site.CheckListen(addr); err != nil {
		return usagef(c, "--listen is %q; %v", addr, err)
	}
	return withStore(c, c.App.ErrWriter, slog.LevelInfo, cache.Open, func(s *cache.Store, log *slog.Logger) error {
		ln, err := new(net.ListenConfig).Listen(c.Context, "tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, fs.ErrPermission) {
			return &hinted{fmt.Errorf("cannot serve: %w", err), "choose another address with --listen"}
		}
		if err != nil {
			return fmt.Errorf("cannot serve: %w", err)
		}
		return serveStore(c.Context, s, ln, log)
	})
}

// serveStore serves the streams of s on ln until ctx ends, and lets running
// downloads finish. A signal is the way to end it, and no error.
func serveStore(ctx context.Context, s *cache.Store, ln net.Listener, log *slog.Logger) error {
	// One stream that cannot be served keeps no other from being served, and no key
	// is needed to serve what was signed before.
	all, err := mirror.Streams(s.Files())
	if err != nil {
		log.Error("a stream is not served", "reason", err)
	}
	ring, err := mirror.Keyring(s.Files())
	if err != nil {
		log.Error("the keyring is not complete", "reason", err)
	}
	base := "http://" + reachable(ln.Addr())
	var served []proxy.Stream
	published := false
	for _, st := range all {
		served = append(served, proxy.Stream{Name: st.Name, Path: st.Path, Also: st.Also, View: cache.Published})
		switch _, err := s.Current(st.Name); {
		case errors.Is(err, cache.ErrNoSnapshot):
			log.Warn("nothing published yet", "stream", st.Name)
		case err != nil:
			log.Error("the current snapshot cannot be read", "stream", st.Name, "reason", err)
		default:
			log.Info("serving", "stream", st.Name, "boot_source", base+st.Path)
			published = true
		}
	}
	if _, err := mirror.SiteKey(s.Files()); published && errors.Is(err, cache.ErrMiss) {
		log.Warn("the signing key is gone, and clients need its keyring: " + restoreKey)
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
	if _, ok := errors.AsType[stopped](context.Cause(ctx)); ok {
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
