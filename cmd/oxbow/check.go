package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func storeCheckCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "compare what is on disk with what the snapshots promise",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "deep", Usage: "prove every file by its SHA-256, not by the fingerprint taken when it came"},
			jsonFlag(), detachFlag(),
		},
		Action: storeCheck,
	}
}

// checkView is what `store check --json` prints.
type checkView struct {
	Deep      bool          `json:"deep"`
	Snapshots int           `json:"snapshots"`
	Blobs     int           `json:"blobs"`
	Bytes     int64         `json:"bytes"`
	Faults    []problemView `json:"faults"`
	Notes     []problemView `json:"notes"` // no faults
}

type problemView struct {
	Kind     cache.ProblemKind `json:"kind"`
	Digest   string            `json:"digest,omitempty"`
	File     string            `json:"file,omitempty"`
	Stream   string            `json:"stream,omitempty"`
	Snapshot string            `json:"snapshot,omitempty"`
	Path     string            `json:"path,omitempty"`
	Others   int               `json:"others,omitempty"`
	Detail   string            `json:"detail,omitempty"`
	Remedy   string            `json:"remedy,omitempty"`
}

func viewProblems(all []cache.Problem) []problemView {
	views := []problemView{}
	for _, p := range all {
		views = append(views, problemView{p.Kind, digestText(p.Digest), p.File, p.Stream, digestText(p.Snapshot), p.Path, p.Others, p.Detail, p.Remedy})
	}
	return views
}

func digestText(d cache.Digest) string {
	if d.IsZero() {
		return ""
	}
	return d.String()
}

func storeCheck(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	return perform(c, &checkWork{Deep: c.Bool("deep"), JSON: c.Bool("json")}, cache.Open)
}

type checkWork struct{ Deep, JSON bool }

func (w *checkWork) do(ctx context.Context, o *owner, out *screen) error {
	r, err := o.store.Check(ctx, cache.CheckOptions{Deep: w.Deep})
	if err != nil {
		return err
	}
	if w.JSON {
		v := checkView{r.Deep, r.Snapshots, r.Blobs, r.Bytes, viewProblems(r.Problems), viewProblems(r.Notes)}
		if err := printJSON(out.stdout, v); err != nil {
			return err
		}
		return verdict(r)
	}
	for _, p := range r.Problems {
		printLine(out.stdout, "fault: %v", p)
	}
	for _, p := range r.Notes {
		printLine(out.stdout, "note: %v", p)
	}
	_, err = fmt.Fprintf(out.stdout, "checked %s, %s, %s: %s\n", counted(r.Snapshots, "snapshot"), counted(r.Blobs, "blob"), iec(r.Bytes), counted(len(r.Problems), "fault"))
	if err != nil {
		return err
	}
	return verdict(r)
}

// verdict is the error of a check that printed what it found.
func verdict(r *cache.Report) error {
	if r.OK() {
		return nil
	}
	return fmt.Errorf("the store has %s", counted(len(r.Problems), "fault"))
}
