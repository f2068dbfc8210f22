package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/proxy"
	"oxbow/proxy/control"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve the store's streams over HTTP, and sync them by their schedules, until told to end",
		Description: "SIGHUP reads the configuration, the certificate and the tokens again. SIGTERM and Ctrl-C let running\n" +
			"downloads finish, for half a minute; a second one ends the server at once.\n" +
			"Without a configuration and a stream in the store, it serves all of https://images.maas.io/ephemeral-v3/stable:\n" +
			"what is asked for is fetched once, verified and kept. OXBOW_UPSTREAM and OXBOW_KEYRING name stand-ins for\n" +
			"that URL, and for the file of the public keys that sign it.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "accept connections at `ADDR` (default: as the configuration says, or " + site.DefaultListen + ")", EnvVars: []string{"OXBOW_LISTEN"}},
			&cli.BoolFlag{Name: "offline", Usage: "ask no upstream for anything, as if every stream of the configuration said \"offline: true\"", EnvVars: []string{"OXBOW_OFFLINE"}},
		},
		Action: serve,
	}
}

func serve(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	log, err := logger(c, c.App.ErrWriter, slog.LevelInfo)
	if err != nil {
		return err
	}
	hangups := notifyHangups()
	defer signal.Stop(hangups)
	p, err := placeOf(c)
	if err != nil {
		return err
	}
	p.offline = c.Bool("offline")
	addr, err := listenAddress(c, p.site)
	if err != nil {
		return err
	}
	f := front{metrics: proxy.NewMetrics(programVersion())}
	if err := f.load(p.site, log); err != nil { // with the rights of who started it
		return err
	}
	untold, err := defaultStream(p, log)
	if err != nil {
		return err
	}
	open := p.opening()
	if untold != nil {
		open = cache.Create
	}
	o, err := ownToServe(c.Context, p, open, log)
	if err != nil {
		return nothingToServe(p, err)
	}
	defer func() { err = errors.Join(err, o.close()) }()
	ln, err := listenAt(c.Context, addr, "--listen")
	if err != nil {
		return err
	}
	if untold != nil {
		if err := o.mirror.Define(*untold); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	d := newDaemon(o, ln, f, p.site)
	d.offline, d.untold = p.offline, untold
	if at := p.site.Serve.Forward.Listen; at != "" {
		if d.forward, err = listenAt(c.Context, at, "serve.forward_proxy.listen"); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	d.hangups = hangups
	d.reread = func() (place, error) { return placeOf(c) }
	if err := o.listen(control.Serving); err != nil {
		return errors.Join(err, d.close())
	}
	return d.serve(c.Context)
}

// nothingToServe adds to the error about a store that is not there what a server lacks.
func nothingToServe(p place, err error) error {
	switch {
	case !errors.Is(err, cache.ErrNoStore):
	case p.offline:
		return &hinted{err, "an offline server has only what a store has: `oxbow bundle import` brings that to a site which sees no upstream, and the first start without --offline to another"}
	case p.site.File != "":
		return &hinted{err, "the configuration names no stream; all of images.maas.io is `streams: [{name: stable, upstream: https://images.maas.io/ephemeral-v3/stable, sync: {every: 1h}}]`"}
	}
	return err
}

// listenAt accepts connections at an address that a flag or a key says.
func listenAt(ctx context.Context, addr, by string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, fs.ErrPermission) {
		return nil, &hinted{fmt.Errorf("cannot serve: %w", err), "choose another address with " + by}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot serve: %w", err)
	}
	return ln, nil
}

// listenAddress is where the front end listens: flag before environment before file
// before default.
func listenAddress(c *cli.Context, s *site.Site) (string, error) {
	addr := cmp.Or(s.Serve.Listen, site.DefaultListen)
	if c.IsSet("listen") {
		addr = c.String("listen")
	}
	if err := site.CheckListen(addr); err != nil {
		return "", usagef(c, "--listen is %q; %v", addr, err)
	}
	return addr, nil
}

// ownToServe is own for who has time: it waits for a command that has the store.
func ownToServe(ctx context.Context, p place, open opening, log *slog.Logger) (*owner, error) {
	for said := ""; ; {
		o, err := own(p, open, log)
		locked, waiting := errors.AsType[*cache.LockedError](err)
		if !waiting {
			return o, noStore(p.dir, err)
		}
		if served(p.dir) {
			return nil, &hinted{err, "one `oxbow serve` serves all streams of a store; stop that one first"}
		}
		if holder := locked.Holder.String(); holder != said {
			log.Info("waiting for the store", "store", p.dir, "in_use_by", holder)
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
