package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func snapshotHoldCommand() *cli.Command {
	return &cli.Command{
		Name: "hold", Usage: "publish no version that the filters match: products stay at their newest other one", ArgsUsage: "STREAM FILTER...",
		Description: "A version is held back if one of its items passes all the filters, as in\n" +
			"`oxbow snapshot hold stable release=noble version_name=20261101`. The next sync does it, or undoes it after --remove.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "remove", Usage: "end the hold that was made with the same filters"},
			jsonFlag(),
		},
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
	return perform(c, &holdWork{Stream: c.Args().First(), Filters: selection.String(), Remove: c.Bool("remove"), JSON: c.Bool("json")}, cache.Open)
}

type holdWork struct {
	Stream       string
	Filters      string
	Remove, JSON bool
}

// holdView is what `snapshot hold --json` prints.
type holdView struct {
	Stream   string   `json:"stream"`
	Hold     string   `json:"hold"`
	Held     bool     `json:"held"` // false: no more
	Warnings []string `json:"warnings"`
}

func (w *holdWork) do(_ context.Context, o *owner, out *screen) error {
	change, done := o.mirror.HoldBack, "held back"
	if w.Remove {
		change, done = o.mirror.LetGo, "held back no more"
	}
	if err := change(w.Stream, w.Filters); err != nil {
		return err
	}
	v := holdView{Stream: w.Stream, Hold: w.Filters, Held: !w.Remove, Warnings: []string{}}
	if !w.Remove {
		v.Warnings = append(v.Warnings, idleHolds(o.store.Files(), w.Stream, []string{w.Filters})...)
	}
	for _, warning := range v.Warnings {
		printLine(out.stderr, "oxbow: %s: warning: %s", w.Stream, warning)
	}
	if w.JSON {
		return printJSON(out.stdout, v)
	}
	return printLine(out.stdout, "%s: versions that match %q are %s; `oxbow mirror sync %[1]s` publishes that", w.Stream, w.Filters, done)
}

// idleHolds warns of holds that match nothing, and where that cannot be told.
func idleHolds(f *cache.Files, stream string, holds []string) []string {
	warnings, err := mirror.IdleHolds(f, stream, holds)
	if err != nil {
		return []string{fmt.Sprintf("whether %q matches anything cannot be told: %v", holds, err)}
	}
	return warnings
}
