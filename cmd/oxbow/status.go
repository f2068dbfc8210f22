package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

	NoCustody string `json:"custody_missing,omitempty"` // why what upstream offered is not here

	Unfinished []*mirror.UnfinishedBundle `json:"unfinished_bundles,omitempty"` // that bring the stream, or may
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
	bundles, err := mirror.UnfinishedBundles(files)
	if err != nil {
		return err
	}
	names, coming, unreadable := statusNames(files, c.Args().Slice(), bundles)
	if len(names) == 0 && unreadable != nil {
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
	for _, name := range coming {
		found = append(found, streamStatus{Stream: name, Advertise: mirror.AdvertiseSelected, Offline: true})
	}
	told := tellUnfinished(found, bundles)
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
	if err := t.flush(); err != nil {
		return err
	}
	for _, st := range found {
		if st.NoCustody != "" {
			printLine(c.App.Writer, "stream %s: %s", st.Stream, st.NoCustody)
		}
	}
	for _, b := range told {
		printLine(c.App.Writer, "%s", unfinishedText(b))
	}
	return unreadable
}

// tellUnfinished adds the unfinished bundles to the streams that they bring, or may, and returns those that are to be told of.
func tellUnfinished(found []streamStatus, bundles []*mirror.UnfinishedBundle) (told []*mirror.UnfinishedBundle) {
	for _, b := range bundles {
		unknown := len(b.Snapshots) == 0 // an older program did not note what it brings
		tell := unknown
		for i := range found {
			if unknown || b.Brings(found[i].Stream) {
				found[i].Unfinished, tell = append(found[i].Unfinished, b), true
			}
		}
		if tell {
			told = append(told, b)
		}
	}
	return told
}

// statusNames returns the streams that are there of those that are wanted, or of all, and those that unfinished bundles are to bring
// first. The error is about the others.
func statusNames(files *cache.Files, wanted []string, bundles []*mirror.UnfinishedBundle) (names, coming []string, err error) {
	all, _ := files.Streams()
	for _, b := range bundles {
		for _, stream := range slices.Sorted(maps.Keys(b.Snapshots)) {
			if (len(wanted) == 0 || slices.Contains(wanted, stream)) && !slices.Contains(all, stream) && !slices.Contains(coming, stream) {
				coming = append(coming, stream)
			}
		}
	}
	rest := slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return slices.Contains(coming, name) })
	if len(rest) == 0 && (len(wanted) > 0 || len(all) == 0 && len(bundles) > 0) {
		return nil, coming, nil
	}
	names, err = streamNames(files, rest)
	if len(names) == 0 {
		return nil, nil, err
	}
	return names, coming, err
}

func viewStatus(s mirror.Status, now time.Time) streamStatus {
	v := streamStatus{Stream: s.Stream, Path: s.Path, Snapshot: s.Snapshot, Published: s.Published, Files: s.Files, Bytes: s.Bytes, Kept: s.Kept,
		Advertise: cmp.Or(s.Advertise, mirror.AdvertiseSelected), Offline: s.Offline, Held: s.Held, Hold: s.Hold, LastSync: s.Last, LastAttempt: s.LastAttempt, LastGood: s.LastGood, Failures: s.Failures, NextRun: s.Next, UpstreamIndex: s.UpstreamIndex, NoCustody: s.NoCustody}
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
