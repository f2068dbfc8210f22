package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func snapshotPinCommand() *cli.Command {
	return &cli.Command{
		Name: "pin", Usage: "keep a snapshot until it is unpinned, whatever is given up otherwise", ArgsUsage: "ID [REASON...]",
		Description: aboutID + " One that is\npinned gets the new reason, if there is one.",
		Action:      snapshotPin,
	}
}

func snapshotUnpinCommand() *cli.Command {
	return &cli.Command{
		Name: "unpin", Usage: "keep a snapshot only as long as others are", ArgsUsage: "ID",
		Description: "An ID is as much of one as tells it from those of other pinned snapshots.",
		Action:      snapshotUnpin,
	}
}

func snapshotPin(c *cli.Context) error {
	if c.NArg() < 1 {
		return usagef(c, "want the id of one snapshot, and perhaps why it is to be kept; `oxbow snapshot list` prints those that there are")
	}
	if c.Args().First() == "" { // from a variable that is not set: a certain snapshot is meant
		return usagef(c, "the id of the snapshot is empty")
	}
	return perform(c, &pinWork{ID: c.Args().First(), Reason: strings.Join(c.Args().Tail(), " ")}, cache.Open)
}

func snapshotUnpin(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want the id of one snapshot; `oxbow snapshot list` prints which are pinned")
	}
	if c.Args().First() == "" {
		return usagef(c, "the id of the snapshot is empty")
	}
	return perform(c, &unpinWork{ID: c.Args().First()}, cache.Open)
}

type pinWork struct{ ID, Reason string }

func (w *pinWork) do(ctx context.Context, o *owner, out *screen) error {
	s, err := findSnapshot(o.store.Files(), w.ID)
	if err != nil {
		return err
	}
	reason := w.Reason
	if reason == "" { // one that is there stays
		pins, err := o.store.Files().Pins()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(pins, func(p cache.Pin) bool { return p.Snapshot == s.ID }); i >= 0 {
			reason = pins[i].Reason
		}
	}
	if err := o.store.Pin(ctx, s.ID, reason); err != nil {
		return err
	}
	return printLine(out.stdout, "%s: snapshot %.12s is pinned", s.Stream, s.ID)
}

type unpinWork struct{ ID string }

func (w *unpinWork) do(ctx context.Context, o *owner, out *screen) error {
	pins, err := o.store.Files().Pins()
	if err != nil {
		return err
	}
	p, err := findPin(pins, w.ID)
	if err != nil {
		return err
	}
	if err := o.store.Unpin(ctx, p.Snapshot); err != nil {
		return err
	}
	return printLine(out.stdout, "snapshot %.12s is not pinned any more", p.Snapshot)
}

// findPin returns the one pin of a snapshot whose id begins with a word.
func findPin(pins []cache.Pin, word string) (cache.Pin, error) {
	var found []cache.Pin
	for _, p := range pins {
		if strings.HasPrefix(p.Snapshot.String(), word) {
			found = append(found, p)
		}
	}
	switch {
	case word == "" || len(found) == 0:
		return cache.Pin{}, &hinted{fmt.Errorf("no pinned snapshot has an id that begins with %q", word), "`oxbow snapshot list` prints which are pinned"}
	case len(found) > 1:
		return cache.Pin{}, fmt.Errorf("%q begins the ids of %d pinned snapshots, among them %.12s and %.12s: give more digits", word, len(found), found[0].Snapshot, found[1].Snapshot)
	}
	return found[0], nil
}
