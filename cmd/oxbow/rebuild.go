package main

import (
	"fmt"
	"log/slog"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func storeRebuildCommand() *cli.Command {
	return &cli.Command{
		Name: "rebuild", Usage: "make the index anew from the files, which are the truth",
		Flags: []cli.Flag{jsonFlag()}, Action: storeRebuild,
	}
}

// rebuildView is what `store rebuild --json` prints: what the new index holds.
type rebuildView struct {
	Streams   int   `json:"streams"` // those with a snapshot
	Snapshots int   `json:"snapshots"`
	Blobs     int   `json:"blobs"`
	Bytes     int64 `json:"bytes"`
}

func storeRebuild(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	return withStore(c, c.App.ErrWriter, slog.LevelWarn, cache.Open, func(s *cache.Store, _ *slog.Logger) error {
		if err := s.Rebuild(c.Context); err != nil {
			return err
		}
		st, err := s.Files().Stats(c.Context)
		if err != nil {
			return err
		}
		v := rebuildView{Streams: len(st.Streams), Blobs: st.Blobs, Bytes: st.Bytes}
		for _, s := range st.Streams {
			v.Snapshots += s.Snapshots
		}
		if c.Bool("json") {
			return printJSON(c.App.Writer, v)
		}
		_, err = fmt.Fprintf(c.App.Writer, "rebuilt the index: %s, %s, %s, %s\n", counted(v.Streams, "stream"),
			counted(v.Snapshots, "snapshot"), counted(v.Blobs, "blob"), iec(v.Bytes))
		return err
	})
}
