package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/streams"
)

func bundleExportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "write a signed bundle of what is published, with all that it needs", ArgsUsage: "[STREAM|ID...]",
		Description: "Of each stream the current snapshot, or those that are named. What was written is kept when it is interrupted: the\n" +
			"same command goes on from there, as long as it means the same snapshots.\n" + aboutID,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write volumes into the directory `DIR`, or one to a file whose name ends with .tar, or to standard output (-)"},
			&cli.StringFlag{Name: "since", Usage: "leave out what snapshot `ID` of the stream has: the other side has it"},
			&cli.StringFlag{Name: "have", Usage: "leave out what the other side has, as `FILE` says that `oxbow bundle have` printed there"},
			&cli.StringFlag{Name: "split", Usage: "make volumes of up to `SIZE`, such as 4GB: what a medium holds"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be written, and write nothing"},
			jsonFlag(),
		},
		Action: bundleExport,
	}
}

// exportView is what `bundle export --json` prints.
type exportView struct {
	DryRun    bool           `json:"dry_run"`
	Bundle    string         `json:"bundle"`
	Site      string         `json:"site"`
	Snapshots []snapshotOf   `json:"snapshots"`
	Files     int            `json:"files"`
	Bytes     int64          `json:"bytes"`  // of all volumes
	Shared    mirror.Amount  `json:"shared"` // what snapshots share, and the bundle has once
	Absent    mirror.Amount  `json:"absent"` // what the other side has
	Volumes   []exportVolume `json:"volumes"`
}

type snapshotOf struct {
	Stream   string `json:"stream"`
	Snapshot string `json:"snapshot"`
	Since    string `json:"since,omitempty"`
}

type exportVolume struct {
	Volume int    `json:"volume"`
	Bytes  int64  `json:"bytes"`
	File   string `json:"file,omitempty"`
}

func viewExport(e *mirror.Export) *exportView {
	v := &exportView{Bundle: e.Contents.ID().String(), Site: e.Contents.Site, Shared: e.Shared, Absent: e.Absent}
	for _, s := range e.Contents.Snapshots {
		v.Snapshots = append(v.Snapshots, snapshotOf{s.Stream, s.ID.String(), digestText(s.Since)})
	}
	v.Files, _ = e.Contents.Files()
	for n := 1; n <= e.Contents.Volumes; n++ {
		size := e.Volume(n).Size()
		v.Bytes += size
		v.Volumes = append(v.Volumes, exportVolume{Volume: n, Bytes: size})
	}
	return v
}

func bundleExport(c *cli.Context) error {
	w, out, err := exportArgs(c)
	if err != nil {
		return err
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	if _, err := mirror.SiteKey(files); errors.Is(err, cache.ErrMiss) {
		return &hinted{errors.New("the site has no key to sign a bundle with"), "a site that only imports has none: `oxbow key generate` makes one; one that is lost has to be put back"}
	}
	if err := w.resolve(files, c.Args().Slice(), c.String("since")); err != nil {
		return err
	}
	e, err := w.planOn(c.Context, files)
	if errors.Is(err, cache.ErrMiss) {
		return &hinted{err, "`oxbow store check --repair` says what is lost, and fetches it again"}
	}
	if err != nil {
		return err
	}
	v := viewExport(e)
	v.DryRun = c.Bool("dry-run")
	say := c.App.Writer
	if out == "-" && !v.DryRun {
		say = c.App.ErrWriter
	}
	if !v.DryRun {
		if err := w.write(c, e, v, out); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return printJSON(say, v)
	}
	return v.print(say)
}

// print prints what the bundle has.
func (v *exportView) print(w io.Writer) error {
	verb := "wrote"
	if v.DryRun {
		verb = "would write"
	}
	for _, s := range v.Snapshots {
		since := ""
		if s.Since != "" {
			since = fmt.Sprintf(", since %.12s", s.Since)
		}
		printLine(w, "%s: snapshot %.12s%s", s.Stream, s.Snapshot, since)
	}
	text := fmt.Sprintf("%s bundle %.12s: %s, %s, %s", verb, v.Bundle, counted(len(v.Volumes), "volume"), counted(v.Files, "file"), iec(v.Bytes))
	if a := v.Absent; a.Files > 0 {
		text += fmt.Sprintf("; left out, since the other side has them: %s, %s", counted(a.Files, "file"), iec(a.Bytes))
	}
	if s := v.Shared; s.Files > 0 {
		text += fmt.Sprintf("; several paths share %s, %s, which it has once", counted(s.Files, "file"), iec(s.Bytes))
	}
	return printLine(w, "%s", text)
}

// exportArgs reads the flags.
func exportArgs(c *cli.Context) (w *exportWork, out string, err error) {
	w = &exportWork{MadeBy: "oxbow " + programVersion()}
	out = c.String("out")
	switch {
	case out == "" && !c.Bool("dry-run"):
		return nil, "", usagef(c, "--out says where the bundle goes: a directory, a file whose name ends with .tar, or `-`")
	case c.IsSet("since") && c.IsSet("have"):
		return nil, "", usagef(c, "--since and --have both say what the other side has: give one")
	}
	if c.IsSet("split") {
		var ok bool
		if w.Split, ok = site.ParseSize(c.String("split")); !ok || w.Split <= 0 {
			return nil, "", usagef(c, "--split is %q; want a size such as 4GB or 700MiB", c.String("split"))
		}
	}
	if c.IsSet("have") {
		if w.Have, err = readInput(c.String("have"), streams.MaxDocument); err != nil {
			return nil, "", fmt.Errorf("--have: %w", err)
		}
		if _, err := mirror.ReadHave(w.Have); err != nil {
			return nil, "", fmt.Errorf("--have %s: %w", c.String("have"), err)
		}
	}
	return w, out, nil
}
