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

// dryRun plans, with a temporary store where there is none yet and the work, or the
// configuration, defines a stream: a dry run makes nothing.
func dryRun(c *cli.Context, w work, defines bool, stdout io.Writer) error {
	p, err := placeOf(c)
	if err != nil {
		return err
	}
	files, err := cache.OpenFiles(p.dir)
	if err == nil {
		files.Close()
	}
	if !errors.Is(err, cache.ErrNoStore) || !defines && len(p.site.Streams) == 0 {
		return performOn(c, w, cache.Open, stdout)
	}
	log, err := logger(c, c.App.ErrWriter, slog.LevelWarn)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "oxbow-plan-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	s, err := cache.Create(temp, &cache.Options{Ballast: -1, Reserve: -1, Log: log})
	if err != nil {
		return err
	}
	o := newOwner(s, log, false)
	o.configure(p.site)
	out := newConsole(c.App.ErrWriter)
	err = w.do(c.Context, o, &screen{stdout: stdout, stderr: out, progress: out.show})
	return errors.Join(err, o.close())
}

type planner func(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.Plan, error)

// planAll prints what syncs of the streams would do. A stream that cannot be
// planned does not keep the others from it.
func (w *syncWork) planAll(ctx context.Context, out *screen, names []string, plan planner) error {
	plans := []any{} // of *mirror.Plan and streamError
	var failed []error
	for _, name := range names {
		p, err := plan(ctx, name, w.options())
		if err != nil && ctx.Err() != nil {
			failed = append(failed, context.Cause(ctx))
			break
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("cannot plan a sync of %s: %w", name, err))
			plans = append(plans, streamError{name, err.Error()})
			continue
		}
		plans = append(plans, p)
		if !w.JSON {
			failed = append(failed, printPlan(out.stdout, p))
		}
	}
	if w.JSON {
		failed = append(failed, printJSON(out.stdout, plans))
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
	_, err := fmt.Fprintf(w, "%s: would publish %s, %s, %s of %s%s; has %s, %s; would fetch %s, %s\n", p.Stream,
		counted(p.Products, "product"), counted(p.Versions, "version"), counted(p.Items, "item"), p.Upstream, knownText(p.Known),
		counted(p.Kept.Files, "file"), iec(p.Kept.Bytes), counted(p.Fetch.Files, "file"), iec(p.Fetch.Bytes))
	return err
}
