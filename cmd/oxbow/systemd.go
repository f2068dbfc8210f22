package main

import (
	"context"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd how the service stands, where systemd started it and asked
// for that (sd_notify(3)). Elsewhere it does nothing.
func notify(states ...string) {
	_, _ = sd.SdNotify(false, strings.Join(states, "\n")) // it is for who watches
}

// watch tells systemd's watchdog, until ctx ends, that the service is alive, each
// time that alive has returned. One that hangs is not heard of, and started anew.
func watch(ctx context.Context, alive func()) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2) // as sd_watchdog_enabled(3) says
	defer tick.Stop()
	for {
		alive()
		notify(sd.SdNotifyWatchdog)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
