package main

import (
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func storeSweepCommand() *cli.Command {
	return &cli.Command{
		Name:  "sweep",
		Usage: "remove what nothing needs any more: blobs that no kept snapshot names, stale partial downloads",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be removed, and remove nothing"},
			jsonFlag(),
		},
		Action: storeSweep,
	}
}

// sweepView is what `store sweep --json` prints.
type sweepView struct {
	DryRun  bool            `json:"dry_run"`
	Items   []sweepItemView `json:"items"` // the plan
	Bytes   int64           `json:"bytes"` // freed, or to be freed
	Removed int             `json:"removed"`
	Spared  int             `json:"spared"` // needed again by the time the sweep came to it
}

type sweepItemView struct {
	Kind   cache.SweepKind `json:"kind"`
	Digest string          `json:"digest,omitempty"`
	Stream string          `json:"stream,omitempty"`
	Key    string          `json:"key,omitempty"`
	Size   int64           `json:"size"`
	Why    string          `json:"why"`
}

func storeSweep(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	return withStore(c, c.App.ErrWriter, slog.LevelWarn, cache.Open, func(s *cache.Store, _ *slog.Logger) error {
		plan, err := s.PlanSweep(c.Context)
		if err != nil {
			return err
		}
		v := sweepView{DryRun: c.Bool("dry-run"), Items: []sweepItemView{}, Bytes: plan.Bytes()}
		for _, i := range plan.Items {
			v.Items = append(v.Items, sweepItemView{i.Kind, digestText(i.Digest), i.Stream, i.Key, i.Size, i.Why})
			if !c.Bool("json") {
				printLine(c.App.Writer, "%v", i)
			}
		}
		if !v.DryRun {
			res, err := plan.Execute(c.Context)
			if err != nil {
				return err
			}
			v.Bytes, v.Removed, v.Spared = res.Bytes, res.Removed, res.Spared
		}
		if c.Bool("json") {
			return printJSON(c.App.Writer, v)
		}
		if v.DryRun {
			_, err = fmt.Fprintf(c.App.Writer, "would remove %s and free %s\n", counted(len(v.Items), "item"), iec(v.Bytes))
			return err
		}
		_, err = fmt.Fprintf(c.App.Writer, "removed %s and freed %s\n", counted(v.Removed, "item"), iec(v.Bytes))
		return err
	})
}
