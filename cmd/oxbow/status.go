package main

import (
	"errors"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func mirrorStatusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "print what is published of each stream, and how its last sync ended", ArgsUsage: "[STREAM...]",
		Flags: []cli.Flag{jsonFlag()}, Action: mirrorStatus,
	}
}

// streamStatus is what `mirror status` says of a stream.
type streamStatus struct {
	Stream    string       `json:"stream"`
	Path      string       `json:"path"`
	Snapshot  string       `json:"snapshot,omitempty"` // the current one; absent: nothing is published yet
	Published time.Time    `json:"published,omitzero"`
	Files     int          `json:"files"`
	Bytes     int64        `json:"bytes"` // on disk, some of which other snapshots may share
	Kept      int          `json:"kept"`  // snapshots, the current one included
	LastSync  *mirror.Last `json:"last_sync,omitempty"`
}

func mirrorStatus(c *cli.Context) error {
	if err := checkNames(c); err != nil {
		return err
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	names, unreadable := streamNames(files, c.Args().Slice())
	if len(names) == 0 {
		return unreadable
	}
	all, _ := mirror.Streams(files) // what cannot be read is told by names
	found := []streamStatus{}
	for _, name := range names {
		i := slices.IndexFunc(all, func(s mirror.Stream) bool { return s.Name == name })
		if i < 0 {
			continue // dropped meanwhile
		}
		st, err := statusOf(files, all[i])
		if err != nil {
			return err
		}
		found = append(found, st)
	}
	if c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, found), unreadable)
	}
	t := newTable(c.App.Writer, "STREAM", "SNAPSHOT", "PUBLISHED", "FILES", "SIZE", "KEPT", "LAST SYNC")
	for _, st := range found {
		snapshot := "-"
		if st.Snapshot != "" {
			snapshot = st.Snapshot[:12]
		}
		t.row(st.Stream, snapshot, stamp(st.Published), st.Files, iec(st.Bytes), st.Kept, lastSync(st.LastSync))
	}
	return errors.Join(t.flush(), unreadable)
}

func statusOf(files *cache.Files, s mirror.Stream) (streamStatus, error) {
	st := streamStatus{Stream: s.Name, Path: s.Path}
	last, err := mirror.LastSync(files, s.Name)
	if err != nil {
		return st, err
	}
	st.LastSync = last
	kept, err := files.Snapshots(s.Name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	current := kept[0]
	st.Snapshot, st.Published, st.Files, st.Bytes, st.Kept = current.ID.String(), current.Created, current.Items, current.Bytes, len(kept)
	return st, nil
}

func lastSync(l *mirror.Last) string {
	switch {
	case l == nil:
		return "never"
	case l.Reason == "":
		return string(l.Outcome) + " " + stamp(l.Time)
	}
	return string(l.Outcome) + " " + stamp(l.Time) + ": " + short(l.Reason)
}
