package main

import (
	"github.com/urfave/cli/v2"

	"oxbow/mirror"
)

func snapshotDiffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "print what one snapshot publishes and another does not", ArgsUsage: "ID ID",
		Description: "From the first to the second, whichever is older. ID may be shortened to what is unique in the store.",
		Flags:       []cli.Flag{jsonFlag()}, Action: snapshotDiff,
	}
}

func snapshotDiff(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef(c, "want the ids of two snapshots; `oxbow snapshot list` prints those that there are")
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	from, err := findSnapshot(files, c.Args().Get(0))
	if err != nil {
		return err
	}
	to, err := findSnapshot(files, c.Args().Get(1))
	if err != nil {
		return err
	}
	d, err := mirror.DiffSnapshots(files, from, to)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, d)
	}
	return printDiff(c, d)
}

// printDiff prints a line for each difference, and then how many there are.
func printDiff(c *cli.Context, d *mirror.Diff) error {
	w := c.App.Writer
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
