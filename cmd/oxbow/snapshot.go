package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
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
	ID      string      `json:"id"`
	Stream  string      `json:"stream"`
	Created time.Time   `json:"created"`
	Parent  string      `json:"parent,omitempty"`
	Reason  string      `json:"reason"`
	Current bool        `json:"current"`
	Files   int         `json:"files"`
	Bytes   int64       `json:"bytes"` // on disk, some of which other snapshots may share
	Entries []entryView `json:"entries,omitempty"`
}

type entryView struct {
	Kind   cache.Kind `json:"kind"`
	Digest string     `json:"digest"`
	Size   int64      `json:"size"`
	Path   string     `json:"path"`
}

func viewSnapshot(s cache.Snapshot) snapshotView {
	return snapshotView{ID: s.ID.String(), Stream: s.Stream, Created: s.Created, Parent: digestText(s.Parent), Reason: s.Reason,
		Current: s.Current, Files: s.Items, Bytes: s.Bytes}
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
		kept, err := files.Snapshots(name)
		if errors.Is(err, cache.ErrNoSnapshot) {
			continue
		}
		failed = errors.Join(failed, err)
		for _, s := range kept {
			views = append(views, viewSnapshot(s))
		}
	}
	if c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, views), failed)
	}
	t := newTable(c.App.Writer, "STREAM", "SNAPSHOT", "CREATED", "REASON", "FILES", "SIZE", "")
	for _, v := range views {
		t.row(v.Stream, v.ID[:12], stamp(v.Created), v.Reason, v.Files, iec(v.Bytes), currentMark(v))
	}
	return errors.Join(t.flush(), failed)
}

func currentMark(v snapshotView) string {
	if v.Current {
		return "current"
	}
	return ""
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
	v := viewSnapshot(s)
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
	head.row("files", fmt.Sprintf("%d, %s", v.Files, iec(v.Bytes)))
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
