package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func storeRebuildCommand() *cli.Command {
	return &cli.Command{
		Name: "rebuild", Usage: "make the index anew from the files, which are the truth",
		Flags: []cli.Flag{jsonFlag(), detachFlag()}, Action: storeRebuild,
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
	return perform(c, &rebuildWork{JSON: c.Bool("json")}, cache.Open)
}

type rebuildWork struct{ JSON bool }

func (w *rebuildWork) do(ctx context.Context, o *owner, out *screen) error {
	if err := o.store.Rebuild(ctx); err != nil {
		return err
	}
	st, err := o.store.Files().Stats(ctx)
	if err != nil {
		return err
	}
	v := rebuildView{Streams: len(st.Streams), Blobs: st.Blobs, Bytes: st.Bytes}
	for _, s := range st.Streams {
		v.Snapshots += s.Snapshots
	}
	noteUnreadable(out.stderr, st)
	if w.JSON {
		return printJSON(out.stdout, v)
	}
	_, err = fmt.Fprintf(out.stdout, "rebuilt the index: %s, %s, %s, %s\n", counted(v.Streams, "stream"),
		counted(v.Snapshots, "snapshot"), counted(v.Blobs, "blob"), iec(v.Bytes))
	return err
}
