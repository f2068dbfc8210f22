package main

import (
	"context"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func mirrorDropCommand() *cli.Command {
	return &cli.Command{
		Name: "drop", Usage: "remove a stream, with all that was published of it; or a product that upstream no longer has", ArgsUsage: "STREAM [PRODUCT]",
		Description: "Of a stream clients get 404 from then on; the next `oxbow store sweep` frees what only it had.\n" +
			"A product that vanished upstream is published for good, until it is dropped: the next sync does without it.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be removed, and remove nothing"},
			jsonFlag(),
		},
		Action: mirrorDrop,
	}
}

func mirrorDrop(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return usagef(c, "want the name of one stream, and of a product if not all of it is to go; `oxbow mirror list` prints the streams that there are")
	}
	if err := checkName(c, c.Args().First()); err != nil {
		return err
	}
	if c.NArg() == 2 && c.Args().Get(1) == "" { // from a variable that is not set: not all of the stream is meant
		return usagef(c, "the name of the product is empty")
	}
	return perform(c, &dropWork{Stream: c.Args().First(), Product: c.Args().Get(1), DryRun: c.Bool("dry-run"), JSON: c.Bool("json")}, cache.Open)
}

type dropWork struct {
	Stream       string
	Product      string // "": all of the stream
	DryRun, JSON bool
}

// dropView is what `mirror drop --json` prints.
type dropView struct {
	DryRun bool `json:"dry_run"`
	*mirror.Dropped
}

func (w *dropWork) do(ctx context.Context, o *owner, out *screen) error {
	if w.Product != "" {
		return w.dropProduct(ctx, o, out)
	}
	drop, verb := o.mirror.Drop, "removed"
	if w.DryRun {
		drop, verb = o.mirror.PlanDrop, "would remove"
	}
	d, err := drop(ctx, w.Stream)
	switch {
	case errors.Is(err, cache.ErrNoSnapshot), errors.Is(err, mirror.ErrNoStream):
		return &mirror.NoStreamError{Name: w.Stream}
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

// dropProductView is what `mirror drop STREAM PRODUCT --json` prints.
type dropProductView struct {
	DryRun bool `json:"dry_run"`
	*mirror.DroppedProduct
}

func (w *dropWork) dropProduct(ctx context.Context, o *owner, out *screen) error {
	drop, verb := o.mirror.DropProduct, "is"
	if w.DryRun {
		drop, verb = o.mirror.PlanDropProduct, "would be"
	}
	d, err := drop(ctx, w.Stream, w.Product)
	if err != nil {
		return err
	}
	if w.JSON {
		return printJSON(out.stdout, dropProductView{w.DryRun, d})
	}
	return printLine(out.stdout, "%s: %s %s dropped, %s; `oxbow mirror sync %[1]s` publishes that, unless upstream has it", w.Stream, w.Product, verb, counted(len(d.Versions), "version"))
}
