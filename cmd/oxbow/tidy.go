package main

import (
	"context"
	"time"
)

// tidyEvery is how often a server sweeps its store, and scrubs a part of it. The first time is tidyFirst after its start,
// when the syncs that were due are done, as a rule.
const (
	tidyEvery = 24 * time.Hour
	tidyFirst = time.Hour
)

// tidy sweeps and scrubs the store now and then, until ctx ends.
func (d *daemon) tidy(ctx context.Context) {
	next := time.NewTimer(tidyFirst)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		d.sweep(ctx)
		d.scrub(ctx)
		next.Reset(tidyEvery)
	}
}

// sweep removes what nothing needs any more, and logs what that was.
func (d *daemon) sweep(ctx context.Context) {
	plan, err := d.o.mirror.PlanSweep(ctx)
	if err == nil {
		for _, i := range plan.Items {
			d.log.Info("sweeping", "item", i.String())
		}
		res, failed := plan.Execute(ctx)
		d.front.metrics.Swept(res.Removed, res.Bytes)
		if len(plan.Items) > 0 {
			d.log.Info("swept", "removed", res.Removed, "spared", res.Spared, "bytes", res.Bytes)
		}
		err = failed
	}
	if err != nil && ctx.Err() == nil {
		d.log.Error("cannot sweep the store", "reason", err)
	}
}
