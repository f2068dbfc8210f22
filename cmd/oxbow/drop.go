package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func mirrorDropCommand() *cli.Command {
	return &cli.Command{
		Name: "drop", Usage: "remove a stream, with all that was published of it", ArgsUsage: "STREAM",
		Description: "Clients get 404 for it from then on. The next `oxbow store sweep` frees what only it had.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be removed, and remove nothing"},
			jsonFlag(),
		},
		Action: mirrorDrop,
	}
}

func mirrorDrop(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want the name of one stream; `oxbow mirror list` prints those that there are")
	}
	if err := checkNames(c); err != nil {
		return err
	}
	return perform(c, &dropWork{Stream: c.Args().First(), DryRun: c.Bool("dry-run"), JSON: c.Bool("json")}, cache.Open)
}

type dropWork struct {
	Stream       string
	DryRun, JSON bool
}

// dropView is what `mirror drop --json` prints.
type dropView struct {
	DryRun bool `json:"dry_run"`
	*mirror.Dropped
}

func (w *dropWork) do(ctx context.Context, o *owner, out *screen) error {
	drop, verb := o.mirror.Drop, "removed"
	if w.DryRun {
		drop, verb = o.mirror.DropPlan, "would remove"
	}
	d, err := drop(ctx, w.Stream)
	switch {
	case errors.Is(err, cache.ErrNoSnapshot), errors.Is(err, mirror.ErrNoStream):
		return fmt.Errorf("%w: %s", mirror.ErrNoStream, w.Stream)
	case err != nil:
		return err
	case w.JSON:
		return printJSON(out.stdout, dropView{w.DryRun, d})
	}
	if w.DryRun && len(d.Pinned) > 0 {
		printLine(out.stderr, "oxbow: %s has pinned snapshots, and would not be removed: %s", w.Stream, strings.Join(d.Pinned, " "))
	}
	return printLine(out.stdout, "%s: %s %s; the next sweep frees %s, %s, that only it has", w.Stream, verb,
		counted(d.Snapshots, "snapshot"), counted(d.Files, "file"), iec(d.Bytes))
}
