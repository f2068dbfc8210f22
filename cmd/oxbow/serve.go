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
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/proxy/control"
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

func serve(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	addr := c.String("listen")
	if err := site.CheckListen(addr); err != nil {
		return usagef(c, "--listen is %q; %v", addr, err)
	}
	log, err := logger(c, c.App.ErrWriter, slog.LevelInfo)
	if err != nil {
		return err
	}
	dir, err := storeDir(c)
	if err != nil {
		return err
	}
	o, err := ownToServe(c.Context, dir, cache.Open, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	ln, err := new(net.ListenConfig).Listen(c.Context, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, fs.ErrPermission) {
		return &hinted{fmt.Errorf("cannot serve: %w", err), "choose another address with --listen"}
	}
	if err != nil {
		return fmt.Errorf("cannot serve: %w", err)
	}
	d := newDaemon(o, ln)
	o.commanded = func(string, int) { d.refresh() }
	if err := o.listen(control.Serving); err != nil {
		return errors.Join(err, ln.Close())
	}
	return d.serve(c.Context)
}

// ownToServe is own for who has time: it waits for a command that has the store.
func ownToServe(ctx context.Context, dir string, open opening, log *slog.Logger) (*owner, error) {
	for said := ""; ; {
		o, err := own(dir, open, log)
		locked, waiting := errors.AsType[*cache.LockedError](err)
		if !waiting {
			return o, noStore(dir, err)
		}
		if served(dir) {
			return nil, &hinted{err, "one `oxbow serve` serves all streams of a store; stop that one first"}
		}
		if holder := locked.Holder.String(); holder != said {
			log.Info("waiting for the store", "store", dir, "in_use_by", holder)
			said = holder
			notify("STATUS=waiting for the store, which is in use by " + holder)
		}
		notify("EXTEND_TIMEOUT_USEC=10000000") // a start that waits has not failed
		if err := pause(ctx, servePause); err != nil {
			return nil, err
		}
	}
}

// servePause is how often a server that waits for the store tries to get it.
const servePause = 200 * time.Millisecond

// served reports whether an `oxbow serve` has the store in dir.
func served(dir string) bool {
	conn, err := control.Dial(dir)
	if err != nil {
		return false
	}
	defer conn.Close()
	return conn.Owner.Role == control.Serving
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
