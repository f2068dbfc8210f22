package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notifyHangups returns where each SIGHUP arrives, one kept, which ends the process
// no more: from the start on, since a server may wait for the store for hours.
func notifyHangups() chan os.Signal {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups
}

// reloads reads everything anew at each SIGHUP until ctx ends.
func (d *daemon) reloads(ctx context.Context) {
	for {
		select {
		case <-d.hangups:
			notify(sd.SdNotifyReloading, sd.SdNotifyMonotonicUsec())
			d.reload()
			d.ready()
		case <-ctx.Done():
			return
		}
	}
}

// reload puts the configuration, the certificate and the tokens into force that
// there are now. Each that cannot be used leaves the one before in force. No
// connection is dropped.
func (d *daemon) reload() {
	if err := d.front.reload(); err != nil {
		d.log.Error("not all of the certificate and the tokens could be read again", "reason", err)
	}
	now, err := d.reread()
	d.front.metrics.Reloaded(err == nil, time.Now())
	if err != nil {
		reason := err.Error()
		d.refused.Store(&reason)
		for line := range strings.Lines(reason) {
			d.log.Error("the configuration is refused, and the one before stays in force", "reason", strings.TrimSuffix(line, "\n"))
		}
		return
	}
	d.refused.Store(nil)
	before := d.site.Swap(now.site)
	for _, fixed := range []struct {
		key     string
		changed bool
	}{
		{"store", now.dir != d.o.store.Files().Dir() || now.site.Store != before.Store},
		{"serve.listen", now.site.Serve.Listen != before.Serve.Listen},
		{"serve.tls", now.site.Serve.TLS != before.Serve.TLS},
		{"serve.token_file", now.site.Serve.TokenFile != before.Serve.TokenFile},
	} {
		if fixed.changed {
			d.log.Warn("a change takes effect at the next start only", "key", fixed.key)
		}
	}
	for _, w := range now.site.Warnings {
		d.log.Warn(w)
	}
	d.o.configure(now.site)
	d.refresh()
	d.log.Info("the configuration is in force", "file", now.site.File, "streams", len(now.site.Streams))
}
