package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func snapshotListCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "print the snapshots that are kept, newest first", ArgsUsage: "[STREAM...]",
		Flags: []cli.Flag{jsonFlag()}, Action: snapshotList,
	}
}

func snapshotShowCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "print what a snapshot holds", ArgsUsage: "ID",
		Description: aboutID,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "custody", Usage: "print in its place which signed document of upstream's vouches for each version, and verify that"},
			&cli.StringFlag{Name: "keyring", Usage: "with --custody: want keys of `FILE` to have signed, such as Canonical's, in place of the stream's"},
			jsonFlag(),
		},
		Action: snapshotShow,
	}
}

// aboutID is the help on what findSnapshot takes.
const aboutID = "ID may be shortened to what is unique in the store; a stream's name stands for its current snapshot."

// snapshotView is what `snapshot list --json` prints of a snapshot, and `snapshot
// show --json` with its entries.
type snapshotView struct {
	ID       string               `json:"id"`
	Stream   string               `json:"stream"`
	Created  time.Time            `json:"created"`
	Parent   string               `json:"parent,omitempty"`
	Reason   string               `json:"reason"`
	Current  bool                 `json:"current"`
	Pinned   *pinView             `json:"pinned,omitempty"`
	Products int                  `json:"products"`
	Versions int                  `json:"versions"`
	Files    int                  `json:"files"`
	Known    int                  `json:"known"`     // further files, which may be pulled through
	Bytes    int64                `json:"bytes"`     // on disk, some of which other snapshots may share
	New      int64                `json:"new_bytes"` // of these, of what no older kept snapshot of the stream has
	Lists    []mirror.PlannedList `json:"lists,omitempty"`
	Entries  []entryView          `json:"entries,omitempty"`
}

type pinView struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

type entryView struct {
	Kind   cache.Kind `json:"kind"`
	Digest string     `json:"digest"`
	Size   int64      `json:"size"`
	Path   string     `json:"path"`
}

// viewSnapshots returns views of all the snapshots that are kept of a stream, newest first, as far as they can be read. What they list
// is counted if there is a counter.
func viewSnapshots(files *cache.Files, stream string, counter *mirror.Counter) (views []snapshotView, err error) {
	kept, err := files.Snapshots(stream)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pins, err := files.Pins()
	seen := map[cache.Digest]bool{}
	for _, s := range slices.Backward(kept) {
		v := snapshotView{ID: s.ID.String(), Stream: s.Stream, Created: s.Created, Parent: digestText(s.Parent), Reason: s.Reason,
			Current: s.Current, Files: s.Items, Known: s.Known, Bytes: s.Bytes}
		if i := slices.IndexFunc(pins, func(p cache.Pin) bool { return p.Snapshot == s.ID }); i >= 0 {
			v.Pinned = &pinView{pins[i].Time, pins[i].Reason}
		}
		man, failed := files.Manifest(stream, s.ID)
		if failed == nil {
			v.New = newBytes(man, seen)
		}
		if failed == nil && counter != nil {
			v.Products, v.Versions, failed = counter.Count(man)
		}
		err = errors.Join(err, failed)
		views = append(views, v)
	}
	slices.Reverse(views)
	return views, err
}

// newBytes returns the size of what is on disk of a snapshot and not yet seen, and makes that seen.
func newBytes(m *cache.Manifest, seen map[cache.Digest]bool) (n int64) {
	for _, e := range m.Entries {
		if e.Kind != cache.KindKnown && !seen[e.Digest] {
			seen[e.Digest] = true
			n += e.Size
		}
	}
	return n
}

func snapshotList(c *cli.Context) error {
	if err := checkNames(c); err != nil {
		return err
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	names, failed := streamNames(files, c.Args().Slice())
	if len(names) == 0 {
		return failed
	}
	views, counter := []snapshotView{}, mirror.NewCounter(files)
	for _, name := range names {
		of, err := viewSnapshots(files, name, counter)
		failed = errors.Join(failed, err)
		views = append(views, of...)
	}
	if c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, views), failed)
	}
	t := newTable(c.App.Writer, "STREAM", "SNAPSHOT", "CREATED", "REASON", "PRODUCTS", "VERSIONS", "FILES", "SIZE", "NEW", "")
	for _, v := range views {
		t.row(v.Stream, v.ID[:12], stamp(v.Created), v.Reason, v.Products, v.Versions, v.Files, iec(v.Bytes), iec(v.New), marks(v))
	}
	return errors.Join(t.flush(), failed)
}

// marks says what sets a snapshot apart from the others of its stream.
func marks(v snapshotView) string {
	var all []string
	if v.Pinned != nil {
		all = append(all, pinText(v.Pinned))
	}
	if v.Current {
		all = append(all, "current")
	}
	return strings.Join(all, ", ")
}

func pinText(p *pinView) string {
	if p.Reason == "" {
		return "pinned"
	}
	return "pinned (" + p.Reason + ")"
}

func snapshotShow(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want the id of one snapshot; `oxbow snapshot list` prints those that there are")
	}
	if c.IsSet("keyring") && !c.Bool("custody") {
		return usagef(c, "--keyring goes with --custody: it says who has to have signed what vouches for the images")
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	s, err := findSnapshot(files, c.Args().First())
	if err != nil {
		return err
	}
	m, err := files.Manifest(s.Stream, s.ID)
	if err != nil {
		return err
	}
	if c.Bool("custody") {
		return showCustody(c, files, s, m)
	}
	of, err := viewSnapshots(files, s.Stream, nil)
	i := slices.IndexFunc(of, func(v snapshotView) bool { return v.ID == s.ID.String() })
	if i < 0 {
		return err
	}
	v := of[i]
	if v.Lists, err = mirror.ReadLists(files, m); err != nil {
		return err
	}
	v.Products, v.Versions = countLists(v.Lists)
	for _, e := range m.Entries {
		v.Entries = append(v.Entries, entryView{e.Kind, e.Digest.String(), e.Size, e.Path})
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, v)
	}
	return printSnapshot(c.App.Writer, v)
}

func printSnapshot(w io.Writer, v snapshotView) error {
	head := newTable(w)
	head.row("snapshot", v.ID)
	head.row("stream", v.Stream)
	head.row("created", stamp(v.Created))
	head.row("reason", v.Reason)
	if v.Parent != "" {
		head.row("follows", v.Parent)
	}
	head.row("current", v.Current)
	if v.Pinned != nil {
		head.row("pinned", strings.TrimSpace(stamp(v.Pinned.Time)+" "+v.Pinned.Reason))
	}
	head.row("products", fmt.Sprintf("%d, with %s", v.Products, counted(v.Versions, "version")))
	head.row("files", fmt.Sprintf("%d, %s, of which %s new", v.Files, iec(v.Bytes), iec(v.New)))
	if v.Known > 0 {
		head.row("on demand", counted(v.Known, "further file"))
	}
	if err := head.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t := newTable(w, "KIND", "SHA256", "SIZE", "PATH")
	for _, e := range v.Entries {
		t.row(e.Kind, e.Digest[:12], iec(e.Size), e.Path)
	}
	return t.flush()
}

func countLists(lists []mirror.PlannedList) (products, versions int) {
	for _, l := range lists {
		products += len(l.Products)
		for _, p := range l.Products {
			versions += len(p.Versions)
		}
	}
	return products, versions
}

// findSnapshot returns the one kept snapshot, of any stream, whose id begins with a word, or the current one of the stream of that name.
func findSnapshot(files *cache.Files, word string) (cache.Snapshot, error) {
	names, err := files.Streams()
	if err != nil {
		return cache.Snapshot{}, err
	}
	var found []cache.Snapshot
	for _, name := range names {
		kept, err := files.Snapshots(name)
		if err != nil && !errors.Is(err, cache.ErrNoSnapshot) {
			return cache.Snapshot{}, err
		}
		for _, s := range kept {
			if strings.HasPrefix(s.ID.String(), word) {
				found = append(found, s)
			}
		}
	}
	named := slices.Contains(names, word)
	switch {
	case named && len(found) > 0:
		return cache.Snapshot{}, fmt.Errorf("%q is the name of a stream, and begins the id of snapshot %.12s: give more digits of the id that is meant", word, found[0].ID)
	case named:
		return currentSnapshot(files, word)
	case word == "" || len(found) == 0 && (strings.Trim(word, "0123456789abcdef") == "" || len(names) == 0):
		return cache.Snapshot{}, &hinted{fmt.Errorf("no kept snapshot has an id that begins with %q", word), "`oxbow snapshot list` prints those that there are"}
	case len(found) == 0:
		return cache.Snapshot{}, &hinted{fmt.Errorf("no stream is called %q, and no kept snapshot has an id that begins so", word), streamsHint(names, word) + "; `oxbow snapshot list` prints the snapshots"}
	case len(found) > 1:
		return cache.Snapshot{}, fmt.Errorf("%q begins the ids of %d snapshots, among them %.12s and %.12s: give more digits", word, len(found), found[0].ID, found[1].ID)
	}
	return found[0], nil
}

func currentSnapshot(files *cache.Files, stream string) (cache.Snapshot, error) {
	s, err := files.Current(stream)
	if errors.Is(err, cache.ErrNoSnapshot) {
		err = nothingYet(stream)
	}
	return s, err
}

// nothingYet is the error about a stream without a snapshot.
func nothingYet(stream string) error {
	return &hinted{fmt.Errorf("stream %s has published nothing yet", stream), "`oxbow mirror sync " + stream + "` does"}
}
