package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func storeStatsCommand() *cli.Command {
	return &cli.Command{Name: "stats", Usage: "print what the store holds", Flags: []cli.Flag{jsonFlag()}, Action: storeStats}
}

// statsView is what `store stats --json` prints. Blobs are distinct files.
type statsView struct {
	Blobs        int               `json:"blobs"`
	Bytes        int64             `json:"bytes"`
	Named        int               `json:"named"` // of the blobs, those that a kept snapshot names
	NamedBytes   int64             `json:"named_bytes"`
	Pulled       int               `json:"pulled"` // of the others, those that were pulled through and may be evicted
	PulledBytes  int64             `json:"pulled_bytes"`
	Partials     int               `json:"partials"` // unfinished downloads
	PartialBytes int64             `json:"partial_bytes"`
	Streams      []streamStatsView `json:"streams"`

	Unfinished []*mirror.UnfinishedBundle `json:"unfinished_bundles"` // of which what came counts among the blobs
}

type streamStatsView struct {
	Stream    string `json:"stream"`
	Snapshots int    `json:"snapshots"`
	Current   string `json:"current"`
	Blobs     int    `json:"blobs"` // of all kept snapshots; streams may share them
	Bytes     int64  `json:"bytes"`
}

func storeStats(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	st, err := files.Stats(c.Context)
	if err != nil {
		return err
	}
	bundles, err := mirror.UnfinishedBundles(files)
	if err != nil {
		return err
	}
	noteUnreadable(c.App.ErrWriter, st)
	if c.Bool("json") {
		v := viewStats(st)
		v.Unfinished = append(v.Unfinished, bundles...)
		return printJSON(c.App.Writer, v)
	}
	t := newTable(c.App.Writer, "STREAM", "SNAPSHOTS", "CURRENT", "BLOBS", "SIZE")
	for _, s := range st.Streams {
		current := "-"
		if s.Snapshots > 0 {
			current = s.Current.ID.String()[:12]
		}
		t.row(s.Name, s.Snapshots, current, s.Blobs, iec(s.Bytes))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, b := range bundles {
		printLine(c.App.Writer, "%s", unfinishedText(b))
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s, %s; named by a snapshot: %d, %s; pulled: %d, %s; %s, %s\n", counted(st.Blobs, "blob"), iec(st.Bytes),
		st.Named, iec(st.NamedBytes), st.Pulled, iec(st.PulledBytes), counted(st.Partials, "partial download"), iec(st.PartialBytes))
	return err
}

// noteUnreadable says what st does not count.
func noteUnreadable(stderr io.Writer, st *cache.Stats) {
	if st.Unreadable > 0 {
		printLine(stderr, "oxbow: %s cannot be read and counts for nothing here; `oxbow store check` says more", counted(st.Unreadable, "kept snapshot"))
	}
}

func viewStats(st *cache.Stats) statsView {
	v := statsView{st.Blobs, st.Bytes, st.Named, st.NamedBytes, st.Pulled, st.PulledBytes, st.Partials, st.PartialBytes, []streamStatsView{}, []*mirror.UnfinishedBundle{}}
	for _, s := range st.Streams {
		v.Streams = append(v.Streams, streamStatsView{s.Name, s.Snapshots, digestText(s.Current.ID), s.Blobs, s.Bytes})
	}
	return v
}
