package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

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
	Stream    string           `json:"stream"`
	Path      string           `json:"path"`
	Snapshot  string           `json:"snapshot,omitempty"` // the current one; absent: nothing is published yet
	Published time.Time        `json:"published,omitzero"`
	Files     int              `json:"files"`
	Bytes     int64            `json:"bytes"` // on disk, some of which other snapshots may share
	Kept      int              `json:"kept"`  // snapshots, the current one included
	Advertise mirror.Advertise `json:"advertise"`
	Offline   bool             `json:"offline"`
	Held      *mirror.Held     `json:"held,omitempty"` // by a rollback
	Hold      []string         `json:"hold,omitempty"` // filters of versions that are held back, by definition or command
	LastSync  *mirror.Last     `json:"last_sync,omitempty"`

	Age           int64     `json:"age"` // of the current snapshot, in seconds
	LastAttempt   time.Time `json:"last_attempt,omitzero"`
	LastGood      time.Time `json:"last_good,omitzero"`
	Failures      int       `json:"failures"`                // in a row
	NextRun       time.Time `json:"next_run,omitzero"`       // absent: only by command; in the past: due
	UpstreamIndex time.Time `json:"upstream_index,omitzero"` // the date of the one accepted last
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
	now := time.Now()
	found := []streamStatus{}
	for _, name := range names {
		st, err := mirror.ReadStatus(files, name)
		if errors.Is(err, mirror.ErrNoStream) {
			continue // dropped meanwhile
		}
		if err != nil {
			return err
		}
		found = append(found, viewStatus(st, now))
	}
	if c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, found), unreadable)
	}
	t := newTable(c.App.Writer, "STREAM", "SNAPSHOT", "PUBLISHED", "AGE", "FILES", "SIZE", "KEPT", "NEXT RUN", "LAST SYNC")
	for _, st := range found {
		snapshot := "-"
		if st.Snapshot != "" {
			snapshot = st.Snapshot[:12]
		}
		t.row(st.Stream, snapshot, stamp(st.Published), age(st), st.Files, iec(st.Bytes), st.Kept, nextRun(st, now), lastSync(st))
	}
	return errors.Join(t.flush(), unreadable)
}

func viewStatus(s mirror.Status, now time.Time) streamStatus {
	v := streamStatus{Stream: s.Stream, Path: s.Path, Snapshot: s.Snapshot, Published: s.Published, Files: s.Files, Bytes: s.Bytes, Kept: s.Kept,
		Advertise: cmp.Or(s.Advertise, mirror.AdvertiseSelected), Offline: s.Offline, Held: s.Held, Hold: s.Hold, LastSync: s.Last, LastAttempt: s.LastAttempt, LastGood: s.LastGood, Failures: s.Failures, NextRun: s.Next, UpstreamIndex: s.UpstreamIndex}
	if s.Snapshot != "" {
		v.Age = int64(max(now.Sub(s.Published), 0) / time.Second)
	}
	return v
}

// age renders the age of what is served in its largest unit.
func age(st streamStatus) string {
	if st.Snapshot == "" {
		return "-"
	}
	for _, unit := range []struct {
		seconds int64
		name    string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}} {
		if st.Age >= 2*unit.seconds {
			return strconv.FormatInt(st.Age/unit.seconds, 10) + unit.name
		}
	}
	return strconv.FormatInt(st.Age, 10) + "s"
}

// nextRun renders when a stream is synced next by its schedule.
func nextRun(st streamStatus, now time.Time) string {
	switch at := st.NextRun; {
	case st.Held != nil:
		return "held"
	case st.Offline:
		return "offline"
	case at.IsZero():
		return "-"
	case !at.After(now):
		return "due"
	}
	return stamp(st.NextRun)
}

// lastSync says how the last sync ended. One that finds nothing new after a good one
// leaves no other trace than the time.
func lastSync(st streamStatus) string {
	l := st.LastSync
	if l == nil {
		return "never"
	}
	at := l.Time
	if l.Outcome == mirror.OutcomeDone && st.LastGood.After(at) {
		at = st.LastGood
	}
	text := string(l.Outcome) + " " + stamp(at)
	if st.Failures > 1 {
		text += fmt.Sprintf(" (%d in a row)", st.Failures)
	}
	if l.Reason != "" {
		text += ": " + short(l.Reason)
	}
	return text
}
