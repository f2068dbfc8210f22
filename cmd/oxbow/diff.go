package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func snapshotDiffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "print what one snapshot publishes and another does not", ArgsUsage: "ID ID | ID upstream",
		Description: "From the first to the second, whichever is older. `upstream`, as one of them, is what a sync of the stream would\n" +
			"publish now: its metadata is read and verified, and nothing is changed.\n" + aboutID,
		Flags: []cli.Flag{jsonFlag()}, Action: snapshotDiff,
	}
}

func snapshotDiff(c *cli.Context) error {
	w := &diffWork{From: c.Args().Get(0), To: c.Args().Get(1), JSON: c.Bool("json")}
	switch {
	case c.NArg() != 2:
		return usagef(c, "want the ids of two snapshots, or of one and `upstream`; `oxbow snapshot list` prints those that there are")
	case w.From == mirror.UpstreamNow && w.To == mirror.UpstreamNow:
		return usagef(c, "want the id of a snapshot to compare upstream with")
	case w.From == mirror.UpstreamNow || w.To == mirror.UpstreamNow:
		return perform(c, w, cache.Open)
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	from, err := findSnapshot(files, w.From)
	if err != nil {
		return err
	}
	to, err := findSnapshot(files, w.To)
	if err != nil {
		return err
	}
	d, err := mirror.DiffSnapshots(files, from, to)
	if err != nil {
		return err
	}
	return w.print(c.App.Writer, d)
}

// diffWork is what `snapshot diff` asks for, if it asks upstream.
type diffWork struct {
	From, To string // one is mirror.UpstreamNow
	JSON     bool
}

func (w *diffWork) do(ctx context.Context, o *owner, out *screen) error {
	id := w.From
	if id == mirror.UpstreamNow {
		id = w.To
	}
	s, err := findSnapshot(o.store.Files(), id)
	if err != nil {
		return err
	}
	d, err := o.mirror.DiffUpstream(ctx, s, mirror.SyncOptions{})
	if err != nil {
		return err
	}
	if w.From == mirror.UpstreamNow {
		d = d.Reverse()
	}
	for _, warning := range d.Warnings {
		printLine(out.stderr, "oxbow: %s: warning: %s", s.Stream, warning)
	}
	for _, left := range d.LeftOut {
		printLine(out.stderr, "oxbow: %s: would be left out: %s", s.Stream, left)
	}
	return w.print(out.stdout, d)
}

func (w *diffWork) print(to io.Writer, d *mirror.Diff) error {
	if w.JSON {
		return printJSON(to, d)
	}
	return printDiff(to, d)
}

// printDiff prints a line for each difference, and then how many there are.
func printDiff(w io.Writer, d *mirror.Diff) error {
	for _, p := range d.Products.Removed {
		printLine(w, "- product %s", p)
	}
	for _, p := range d.Products.Added {
		printLine(w, "+ product %s", p)
	}
	for _, v := range d.Versions.Removed {
		printLine(w, "- version %s %s", v.Product, v.Version)
	}
	for _, v := range d.Versions.Added {
		printLine(w, "+ version %s %s", v.Product, v.Version)
	}
	for _, f := range d.Files.Removed {
		printLine(w, "- file %s (%s)", f.Path, iec(f.Size))
	}
	for _, f := range d.Files.Added {
		printLine(w, "+ file %s (%s)", f.Path, iec(f.Size))
	}
	return printLine(w, "%.12s to %.12s: products +%d -%d, versions +%d -%d, files +%d -%d, +%s -%s", d.From, d.To,
		len(d.Products.Added), len(d.Products.Removed), len(d.Versions.Added), len(d.Versions.Removed),
		len(d.Files.Added), len(d.Files.Removed), iec(d.Bytes.Added), iec(d.Bytes.Removed))
}
