package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

func bundleExportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "write a signed bundle of what is published, with all that it needs", ArgsUsage: "[STREAM|ID...]",
		Description: "Of each stream the current snapshot, or those that are named. What was written is kept when it is interrupted: the\n" +
			"same command goes on from there, as long as it means the same snapshots.\n" + aboutID,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write volumes into the directory `DIR`, or one to FILE, or to standard output (-)"},
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
	if err := w.resolve(files, c.Args().Slice(), c.String("since")); err != nil {
		return err
	}
	e, err := w.planOn(c.Context, files)
	if errors.Is(err, cache.ErrMiss) {
		return &hinted{err, "a site that only imports has no key: `oxbow key generate` makes one"}
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
		if err := w.write(c, e, v, out, say); err != nil {
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
	return printLine(w, "%s bundle %.12s: %s, %s, %s; the other side has %s, %s; shared, and in it once: %s, %s", verb, v.Bundle,
		counted(len(v.Volumes), "volume"), counted(v.Files, "file"), iec(v.Bytes), counted(v.Absent.Files, "file"), iec(v.Absent.Bytes), counted(v.Shared.Files, "file"), iec(v.Shared.Bytes))
}

// exportArgs reads the flags.
func exportArgs(c *cli.Context) (w *exportWork, out string, err error) {
	w = &exportWork{MadeBy: "oxbow " + programVersion()}
	out = c.String("out")
	switch {
	case out == "" && !c.Bool("dry-run"):
		return nil, "", usagef(c, "--out says where the bundle goes: a directory, a file, or `-`")
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
		w.Have, err = readInput(c.String("have"), streams.MaxDocument)
	}
	return w, out, err
}

// An exportWork writes a volume of a bundle. What it brings is said by ids, so that every process plans the same.
type exportWork struct {
	Snapshots map[string]cache.Digest // by stream
	Since     map[string]cache.Digest
	Have      []byte
	Split     int64
	MadeBy    string

	Bundle cache.Digest // that is meant
	Volume int
	From   int // the first member to be written

	files []*os.File // the volume, at the place where it goes on
}

func (w *exportWork) opened() []*os.File { return w.files }

func (w *exportWork) hand(files []*os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("%d files came for a volume", len(files))
	}
	w.files = files
	return nil
}

// resolve finds the snapshots that are meant: those that are named, or the current one of each stream.
func (w *exportWork) resolve(files *cache.Files, args []string, since string) error {
	w.Snapshots, w.Since = map[string]cache.Digest{}, map[string]cache.Digest{}
	if len(args) == 0 {
		names, err := files.Streams()
		if err != nil {
			return err
		}
		for _, name := range names {
			if s, err := files.Current(name); err == nil {
				w.Snapshots[name] = s.ID
			} else if !errors.Is(err, cache.ErrNoSnapshot) {
				return err
			}
		}
		if len(w.Snapshots) == 0 {
			return &hinted{errors.New("nothing is published that a bundle could bring"), "`oxbow mirror sync URL` publishes a stream"}
		}
	}
	for _, arg := range args {
		s, err := findSnapshot(files, arg)
		if err != nil {
			return err
		}
		if _, twice := w.Snapshots[s.Stream]; twice {
			return fmt.Errorf("stream %s is there twice: a bundle brings one snapshot of each", s.Stream)
		}
		w.Snapshots[s.Stream] = s.ID
	}
	if since == "" {
		return nil
	}
	s, err := findSnapshot(files, since)
	if err != nil {
		return err
	}
	if _, meant := w.Snapshots[s.Stream]; !meant {
		return fmt.Errorf("--since is a snapshot of stream %s, of which the bundle brings none", s.Stream)
	}
	w.Since[s.Stream] = s.ID
	return nil
}

// planOn plans the bundle.
func (w *exportWork) planOn(ctx context.Context, files *cache.Files) (*mirror.Export, error) {
	o := mirror.ExportOptions{Since: w.Since, Split: w.Split, MadeBy: w.MadeBy}
	for stream, id := range w.Snapshots {
		man, err := files.Manifest(stream, id)
		if err != nil {
			return nil, err
		}
		o.Snapshots = append(o.Snapshots, cache.Snapshot{ID: id, Stream: stream, Created: man.Created})
	}
	if w.Have != nil {
		var err error
		if o.Have, err = mirror.ReadHave(w.Have, nil, time.Now()); err != nil {
			return nil, err
		}
	}
	return mirror.PlanExport(ctx, files, o)
}

// write writes the volumes that are not there as a whole. All files are opened first: root may become another user to have the
// store read, who has no right to the medium.
func (w *exportWork) write(c *cli.Context, e *mirror.Export, v *exportView, out string, say io.Writer) error {
	names, err := volumeNames(e, out)
	if err != nil {
		return err
	}
	if len(names) > maxVolumes {
		return fmt.Errorf("%d volumes are more than %d: give a larger --split", len(names), maxVolumes)
	}
	var volumes []*begunVolume
	defer func() {
		for _, b := range volumes {
			b.file.Close()
		}
	}()
	for i, name := range names {
		b, err := beginVolume(name, e.Volume(i+1), e.Contents.ID())
		if err != nil {
			return err
		}
		volumes = append(volumes, b)
		v.Volumes[i].File = name
	}
	for i, b := range volumes {
		if b.from < 0 {
			printLine(c.App.ErrWriter, "oxbow: volume %d of %d is there: %s", i+1, len(names), names[i])
			continue
		}
		one := *w
		one.Bundle, one.Volume, one.From, one.files = e.Contents.ID(), i+1, b.from, []*os.File{b.file}
		if err := perform(c, &one, cache.Open); err != nil {
			return err
		}
		if out != "-" {
			printLine(c.App.ErrWriter, "oxbow: volume %d of %d, %s: %s", i+1, len(names), iec(v.Volumes[i].Bytes), names[i])
		}
	}
	return nil
}

// volumeNames returns the files of the volumes.
func volumeNames(e *mirror.Export, out string) ([]string, error) {
	info, err := os.Stat(out)
	if out == "-" || err != nil || !info.IsDir() {
		switch {
		case strings.HasSuffix(out, "/"):
			return nil, fmt.Errorf("cannot write a bundle: %s is no directory", out)
		case e.Contents.Volumes > 1:
			return nil, fmt.Errorf("cannot write %d volumes to %s: --out has to be a directory", e.Contents.Volumes, out)
		}
		return []string{out}, nil
	}
	what := "streams"
	if s := e.Contents.Snapshots; len(s) == 1 {
		what = s[0].Stream
	}
	var names []string
	for n := 1; n <= e.Contents.Volumes; n++ {
		names = append(names, filepath.Join(out, fmt.Sprintf("oxbow-%s-%.12s-%03d-of-%03d%s", what, e.Contents.ID(), n, e.Contents.Volumes, volumeSuffix)))
	}
	return names, nil
}

// A begunVolume is a file that a volume is written to.
type begunVolume struct {
	file *os.File
	from int // the first member that is missing; -1: none is
}

// beginVolume opens a file to write a volume to, or to go on with it behind the last member that is whole.
func beginVolume(name string, v *bundle.Volume, id cache.Digest) (*begunVolume, error) {
	if name == "-" {
		return &begunVolume{file: os.Stdout}, nil
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write a volume: %w", err)
	}
	b := &begunVolume{file: file}
	if err := b.goOn(v, id); err != nil {
		file.Close()
		return nil, fmt.Errorf("cannot go on with %s: %w", name, err)
	}
	return b, nil
}

// errOther: a file is not the beginning of the volume that is meant.
var errOther = errors.New("it is something else than the bundle that is meant: remove it, or choose another --out")

// goOn finds out how much of the volume is there, and cuts off the rest.
func (b *begunVolume) goOn(v *bundle.Volume, id cache.Digest) error {
	info, err := b.file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return err
	}
	whole, err := bundle.Whole(b.file, id)
	if err != nil {
		return fmt.Errorf("%w (%w)", errOther, err)
	}
	if whole == v.Members() && info.Size() == v.Size() {
		b.from = -1
		return nil
	}
	b.from = min(whole, v.Members())
	if err := b.file.Truncate(v.Offset(b.from)); err != nil {
		return err
	}
	_, err = b.file.Seek(v.Offset(b.from), io.SeekStart)
	return err
}

func (w *exportWork) do(ctx context.Context, o *owner, _ *screen) error {
	lease := o.store.Lease()
	defer lease.Release()
	e, err := w.planOn(ctx, o.store.Files())
	if err != nil {
		return err
	}
	if e.Contents.ID() != w.Bundle {
		return errors.New("what the bundle brings has changed meanwhile, or the program: run the same command again")
	}
	for _, d := range e.Digests() {
		lease.Add(d)
	}
	file := w.files[0]
	if err := e.Write(ctx, file, w.Volume, w.From); err != nil {
		return fmt.Errorf("cannot write volume %d: %w", w.Volume, err)
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("cannot make volume %d durable: %w", w.Volume, err)
	}
	return nil
}
