package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

// planNew plans with a temporary store where there is none yet, since a dry
// run makes nothing.
func planNew(c *cli.Context, out *console, s mirror.Stream) error {
	var open opening = cache.Open
	switch files, err := openFiles(c); {
	case err == nil:
		files.Close()
	case errors.Is(err, cache.ErrNoStore):
		temp, err := os.MkdirTemp("", "oxbow-plan-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		open = func(_ string, o *cache.Options) (*cache.Store, error) {
			o.Ballast, o.Reserve = -1, -1
			return cache.Create(temp, o)
		}
	}
	return withMirror(c, out, slog.LevelWarn, open, func(m *mirror.Mirror, _ *cache.Store, _ *slog.Logger) error {
		printChanges(out, m, s)
		return planAll(c, []string{s.Name}, func(ctx context.Context, _ string, o mirror.SyncOptions) (*mirror.Plan, error) {
			return m.PlanNew(ctx, s, o)
		})
	})
}

type planner func(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.Plan, error)

// planAll prints what syncs of the streams would do. A stream that cannot be
// planned does not keep the others from it.
func planAll(c *cli.Context, names []string, plan planner) error {
	plans := []any{} // of *mirror.Plan and streamError
	var failed []error
	for _, name := range names {
		p, err := plan(c.Context, name, syncOptions(c))
		if err != nil && c.Context.Err() != nil {
			failed = append(failed, context.Cause(c.Context))
			break
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("cannot plan a sync of %s: %w", name, err))
			plans = append(plans, streamError{name, err.Error()})
			continue
		}
		plans = append(plans, p)
		if !c.Bool("json") {
			failed = append(failed, printPlan(c.App.Writer, p))
		}
	}
	if c.Bool("json") {
		failed = append(failed, printJSON(c.App.Writer, plans))
	}
	return errors.Join(failed...)
}

func printPlan(w io.Writer, p *mirror.Plan) error {
	if p.NothingNew {
		return printLine(w, "%s: nothing new at %s", p.Stream, p.Upstream)
	}
	t := newTable(w, "PRODUCT", "VERSIONS")
	for _, l := range p.Lists {
		for _, prod := range l.Products {
			t.row(prod.Name, strings.Join(prod.Versions, " "))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, s := range p.Warnings {
		printLine(w, "warning: %s", s)
	}
	for _, o := range p.LeftOut {
		printLine(w, "left out: %s", o)
	}
	_, err := fmt.Fprintf(w, "%s: would publish %s, %s, %s of %s; has %s, %s; would fetch %s, %s\n", p.Stream,
		counted(p.Products, "product"), counted(p.Versions, "version"), counted(p.Items, "item"), p.Upstream,
		counted(p.Kept.Files, "file"), iec(p.Kept.Bytes), counted(p.Fetch.Files, "file"), iec(p.Fetch.Bytes))
	return err
}
