package main

import (
	"context"
	"os"
	"os/signal"
	"reflect"
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
	var notes []string
	if err := d.front.reload(); err != nil {
		notes = append(notes, "not all of the certificate and the tokens could be read at the last reload: "+err.Error())
	}
	now, err := d.reread()
	if err != nil {
		for _, reason := range reasons(err) {
			notes = append(notes, "the configuration was refused at the last reload, and the one before is in force: "+reason)
		}
	} else {
		notes = append(notes, d.adopt(now)...)
	}
	d.reloadNotes.Store(&notes)
	d.front.metrics.Reloaded(err == nil, time.Now())
	for _, n := range notes {
		d.log.Error(n)
	}
	if err == nil {
		d.log.Info("the configuration is in force", "file", now.site.File, "streams", len(now.site.Streams))
	}
}

// reasons returns the errors of a configuration, a line each, without the lines of the
// file that it shows below them.
func reasons(err error) []string {
	var all []string
	for line := range strings.Lines(err.Error()) {
		if !strings.HasPrefix(line, " ") {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}
	return all
}

// adopt puts a configuration into force, and returns a note for each change that has
// to wait for the next start. Streams that it defines anew are synced at once, if they
// have a schedule.
func (d *daemon) adopt(now place) (notes []string) {
	started := d.started
	for _, fixed := range []struct {
		key     string
		changed bool
	}{
		{"store", now.dir != d.o.store.Files().Dir() || now.site.Store.Reserve != started.Store.Reserve},
		{"serve.listen", now.site.Serve.Listen != started.Serve.Listen},
		{"serve.tls", now.site.Serve.TLS != started.Serve.TLS},
		{"serve.forward_proxy.listen", now.site.Serve.Forward.Listen != started.Serve.Forward.Listen},
		{"serve.token_file", now.site.Serve.TokenFile != started.Serve.TokenFile},
	} {
		if fixed.changed {
			notes = append(notes, fixed.key+" was changed in the configuration, and takes effect at the next start only")
		}
	}
	for _, w := range now.site.Warnings {
		d.log.Warn(w)
	}
	before := d.site.Swap(now.site)
	d.o.store.SetCacheLimit(now.site.Store.CacheLimit)
	d.o.configure(now.site)
	d.refresh()
	for _, st := range now.site.Streams {
		if was, ok := before.Stream(st.Name); !ok || !reflect.DeepEqual(was.Stream, st.Stream) {
			d.scheduler.Due(st.Name)
		}
	}
	return notes
}
