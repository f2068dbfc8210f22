package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func storeSweepCommand() *cli.Command {
	return &cli.Command{
		Name:  "sweep",
		Usage: "remove what nothing needs any more: snapshots that no stream keeps, blobs that no kept snapshot names, stale partial downloads",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be removed, and remove nothing"},
			jsonFlag(), detachFlag(),
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
	return perform(c, &sweepWork{DryRun: c.Bool("dry-run"), JSON: c.Bool("json")}, cache.Open)
}

type sweepWork struct{ DryRun, JSON bool }

func (w *sweepWork) do(ctx context.Context, o *owner, out *screen) error {
	plan, err := o.mirror.PlanSweep(ctx)
	if err != nil {
		return err
	}
	v := sweepView{DryRun: w.DryRun, Items: []sweepItemView{}, Bytes: plan.Bytes()}
	for _, i := range plan.Items {
		v.Items = append(v.Items, sweepItemView{i.Kind, digestText(i.Digest), i.Stream, i.Key, i.Size, i.Why})
		if !w.JSON {
			printLine(out.stdout, "%v", i)
		}
	}
	if !v.DryRun {
		res, err := plan.Execute(ctx)
		if err != nil {
			return err
		}
		v.Bytes, v.Removed, v.Spared = res.Bytes, res.Removed, res.Spared
	}
	if w.JSON {
		return printJSON(out.stdout, v)
	}
	if v.DryRun {
		_, err = fmt.Fprintf(out.stdout, "would remove %s and free %s\n", counted(len(v.Items), "item"), iec(v.Bytes))
		return err
	}
	_, err = fmt.Fprintf(out.stdout, "removed %s and freed %s\n", counted(v.Removed, "item"), iec(v.Bytes))
	return err
}
