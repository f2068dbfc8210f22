package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func snapshotHoldCommand() *cli.Command {
	return &cli.Command{
		Name: "hold", Usage: "publish no version that the filters match: products stay at their newest other one", ArgsUsage: "STREAM FILTER...",
		Description: "A version is held back if one of its items passes all the filters, as in\n" +
			"`oxbow snapshot hold stable release=noble version_name=20261101`. The next sync does it, or undoes it after --remove.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "remove", Usage: "end the hold that was made with the same filters"}},
		Action: snapshotHold,
	}
}

func snapshotHold(c *cli.Context) error {
	if c.NArg() < 2 {
		return usagef(c, "want the name of one stream, and filters as in `mirror sync URL`; `oxbow mirror status --json` prints what is held back")
	}
	if err := checkName(c, c.Args().First()); err != nil {
		return err
	}
	selection, err := filterArgs(c)
	if err != nil {
		return err
	}
	return perform(c, &holdWork{Stream: c.Args().First(), Filters: selection.String(), Remove: c.Bool("remove")}, cache.Open)
}

type holdWork struct {
	Stream  string
	Filters string
	Remove  bool
}

func (w *holdWork) do(_ context.Context, o *owner, out *screen) error {
	change, done := o.mirror.HoldBack, "held back"
	if w.Remove {
		change, done = o.mirror.LetGo, "held back no more"
	}
	if err := change(w.Stream, w.Filters); err != nil {
		return err
	}
	return printLine(out.stdout, "%s: versions that match %q are %s; `oxbow mirror sync %[1]s` publishes that", w.Stream, w.Filters, done)
}
