package main

import (
	"errors"
	"fmt"
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
		Description: "ID may be shortened to what is unique in the store.",
		Flags:       []cli.Flag{jsonFlag()}, Action: snapshotShow,
	}
}

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
	Files    int                  `json:"files"`
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

// viewSnapshots returns views of all the snapshots that are kept of a stream, newest first, as far as they can be read.
func viewSnapshots(files *cache.Files, stream string) (views []snapshotView, err error) {
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
			Current: s.Current, Files: s.Items, Bytes: s.Bytes}
		if i := slices.IndexFunc(pins, func(p cache.Pin) bool { return p.Snapshot == s.ID }); i >= 0 {
			v.Pinned = &pinView{pins[i].Time, pins[i].Reason}
		}
		man, failed := files.Manifest(stream, s.ID)
		if failed == nil {
			v.New = newBytes(man, seen)
			v.Products, failed = mirror.CountProducts(files, man)
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
	views := []snapshotView{}
	for _, name := range names {
		of, err := viewSnapshots(files, name)
		failed = errors.Join(failed, err)
		views = append(views, of...)
	}
	if c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, views), failed)
	}
	t := newTable(c.App.Writer, "STREAM", "SNAPSHOT", "CREATED", "REASON", "PRODUCTS", "FILES", "SIZE", "NEW", "")
	for _, v := range views {
		t.row(v.Stream, v.ID[:12], stamp(v.Created), v.Reason, v.Products, v.Files, iec(v.Bytes), iec(v.New), marks(v))
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
	of, err := viewSnapshots(files, s.Stream)
	i := slices.IndexFunc(of, func(v snapshotView) bool { return v.ID == s.ID.String() })
	if i < 0 {
		return err
	}
	v := of[i]
	if v.Lists, err = mirror.ReadLists(files, m); err != nil {
		return err
	}
	for _, e := range m.Entries {
		v.Entries = append(v.Entries, entryView{e.Kind, e.Digest.String(), e.Size, e.Path})
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, v)
	}
	head := newTable(c.App.Writer)
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
	head.row("products", fmt.Sprintf("%d, with %s", v.Products, counted(countVersions(v.Lists), "version")))
	head.row("files", fmt.Sprintf("%d, %s, of which %s new", v.Files, iec(v.Bytes), iec(v.New)))
	if err := head.flush(); err != nil {
		return err
	}
	fmt.Fprintln(c.App.Writer)
	t := newTable(c.App.Writer, "KIND", "SHA256", "SIZE", "PATH")
	for _, e := range v.Entries {
		t.row(e.Kind, e.Digest[:12], iec(e.Size), e.Path)
	}
	return t.flush()
}

func countVersions(lists []mirror.PlannedList) (n int) {
	for _, l := range lists {
		for _, p := range l.Products {
			n += len(p.Versions)
		}
	}
	return n
}

// findSnapshot returns the one kept snapshot, of any stream, whose id begins with
// prefix.
func findSnapshot(files *cache.Files, prefix string) (cache.Snapshot, error) {
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
			if strings.HasPrefix(s.ID.String(), prefix) {
				found = append(found, s)
			}
		}
	}
	switch len(found) {
	case 0:
		return cache.Snapshot{}, &hinted{fmt.Errorf("no kept snapshot has an id that begins with %q", prefix), "`oxbow snapshot list` prints those that there are"}
	case 1:
		return found[0], nil
	}
	return cache.Snapshot{}, fmt.Errorf("%q begins the ids of %d snapshots, among them %.12s and %.12s: give more digits", prefix, len(found), found[0].ID, found[1].ID)
}
