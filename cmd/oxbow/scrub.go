package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
)

// scrub reads the next part of the store, so that all of it is read once in the time that the configuration says, and repairs what
// it finds. It does what `store check --repair` does.
func (d *daemon) scrub(ctx context.Context) {
	every := cmp.Or(d.site.Load().Store.Scrub, site.DefaultScrub)
	if every < 0 {
		return
	}
	part := cache.Part{From: d.scrubbed(), Share: min(float64(tidyEvery)/float64(every), 1)}
	report, err := d.o.store.Check(ctx, cache.CheckOptions{Part: part})
	if err != nil {
		if ctx.Err() == nil {
			d.log.Error("cannot scrub the store", "reason", err)
		}
		return
	}
	d.log.Info("scrubbed", "files", report.Blobs, "bytes", report.Bytes, "faults", len(report.Problems))
	d.front.metrics.Scrubbed(report.Bytes)
	if left, err := d.repair(ctx, report); err == nil {
		d.noteFaults(left)
		d.setScrubbed(part)
	} else if ctx.Err() == nil {
		d.log.Error("cannot repair the store", "reason", err)
	}
}

// repair repairs what a scrub found, logs that, and returns how many faults are left.
func (d *daemon) repair(ctx context.Context, report *cache.Report) (left int, err error) {
	if report.OK() {
		return 0, nil
	}
	for _, p := range report.Problems {
		d.log.Error("integrity: the store has a fault", "fault", p.String())
		d.front.metrics.Damaged(p.Stream)
	}
	res, err := d.o.mirror.Repair(ctx, report, mirror.RepairOptions{Mended: func(m mirror.Mended) {
		d.log.Info("repaired", "stream", m.Stream, "path", m.Path, "digest", m.Digest, "how", m.How)
	}})
	if err != nil {
		return 0, err
	}
	for _, reason := range res.Reasons {
		d.log.Warn(reason)
	}
	for _, l := range res.Left {
		d.log.Error("not repaired", "digest", l.Digest, "reason", l.Reason, "hurts", fmt.Sprint(l.Hurts))
	}
	return len(res.Left) + len(res.Faults), nil
}

// scrubNote is the name of the note that says where the next part begins. Without it a scrub begins anew.
const scrubNote = "scrubbed"

func (d *daemon) scrubbed() float64 {
	note, err := d.o.store.Note(scrubNote)
	if err != nil || len(note) != 8 {
		return 0
	}
	at := math.Float64frombits(binary.BigEndian.Uint64(note))
	if !(at >= 0 && at < 1) {
		return 0
	}
	return at
}

func (d *daemon) setScrubbed(part cache.Part) {
	next := math.Mod(part.From+part.Share, 1)
	if err := d.o.store.SetNote(scrubNote, binary.BigEndian.AppendUint64(nil, math.Float64bits(next))); err != nil {
		d.log.Warn("cannot note how far the store was scrubbed", "reason", err)
	}
}
