package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func snapshotRollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "publish what an older snapshot holds, and keep it so", ArgsUsage: "STREAM [ID]",
		Description: "Without ID it is the snapshot before what is published now; again, the one before that. Nothing is copied or\n" +
			"fetched. Syncs leave the stream as it is from then on, until --resume: then the next one publishes what upstream has.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "resume", Usage: "have syncs go on that a rollback keeps from changing the stream"},
			jsonFlag(),
		},
		Action: snapshotRollback,
	}
}

func snapshotRollback(c *cli.Context) error {
	switch {
	case c.NArg() < 1 || c.NArg() > 2:
		return usagef(c, "want the name of one stream, and the id of a snapshot of it or none; `oxbow snapshot list` prints those that there are")
	case c.Bool("resume") && c.NArg() == 2:
		return usagef(c, "--resume goes back to no snapshot: leave %s out", c.Args().Get(1))
	}
	if err := checkName(c, c.Args().First()); err != nil {
		return err
	}
	if c.NArg() == 2 && c.Args().Get(1) == "" { // from a variable that is not set: a certain snapshot is meant
		return usagef(c, "the id of the snapshot is empty")
	}
	return perform(c, &rollbackWork{Stream: c.Args().First(), ID: c.Args().Get(1), Resume: c.Bool("resume"), JSON: c.Bool("json")}, cache.Open)
}

type rollbackWork struct {
	Stream string
	ID     string // or its beginning; empty: the one before
	Resume bool
	JSON   bool
}

// resumedView is what `snapshot rollback --resume --json` prints.
type resumedView struct {
	Stream  string `json:"stream"`
	Resumed bool   `json:"resumed"`
}

func (w *rollbackWork) do(ctx context.Context, o *owner, out *screen) error {
	if _, err := o.mirror.Stream(w.Stream); err != nil {
		return err
	}
	if w.Resume {
		return w.resume(o, out)
	}
	var to cache.Digest
	if w.ID != "" {
		var err error
		if to, err = o.store.Files().Resolve(w.Stream, w.ID); err != nil {
			return &hinted{err, "`oxbow snapshot list " + w.Stream + "` prints those that there are"}
		}
	}
	res, err := o.mirror.Rollback(ctx, w.Stream, to)
	switch {
	case errors.Is(err, cache.ErrNoSnapshot):
		return &hinted{err, "`oxbow snapshot list " + w.Stream + "` prints those that there are"}
	case errors.Is(err, cache.ErrMiss), errors.Is(err, cache.ErrCorrupt):
		return &hinted{err, "`oxbow store check --repair` fetches what is lost again, or takes it from a directory; or go back to another snapshot"}
	case err != nil:
		return err
	}
	for _, warning := range res.Warnings {
		printLine(out.stderr, "oxbow: %s: warning: %s", w.Stream, warning)
	}
	if w.JSON {
		return printJSON(out.stdout, res)
	}
	leave, resume := "syncs leave it as it is", "has them go on"
	if o.mirror.ComesByBundles(w.Stream) {
		leave, resume = "bundles of it are refused", "has them be taken again"
	}
	printLine(out.stderr, "oxbow: %s: %s from now on; `oxbow snapshot rollback %[1]s --resume` %[3]s", w.Stream, leave, resume)
	return printLine(out.stdout, "%s: published snapshot %.12s with the content of %.12s, in place of %.12s", w.Stream, res.Snapshot, res.To, res.From)
}

func (w *rollbackWork) resume(o *owner, out *screen) error {
	if err := o.mirror.Resume(w.Stream); err != nil {
		return err
	}
	if w.JSON {
		return printJSON(out.stdout, resumedView{w.Stream, true})
	}
	if o.mirror.ComesByBundles(w.Stream) {
		return printLine(out.stdout, "%s: bundles of it are taken again; what is published stays until the next one is imported", w.Stream)
	}
	return printLine(out.stdout, "%s: syncs go on; the next one publishes what upstream has", w.Stream)
}
