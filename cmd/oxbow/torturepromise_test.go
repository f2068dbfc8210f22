package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/proxy/control"
)

// keptSnapshots is how many of the newest snapshots the streams keep, beside pinned ones.
const keptSnapshots = 3

// An attempt is a command that changes what a store has to have.
type attempt struct {
	kind string // the command's last word, or resume
	id   string // of the snapshot that it was about
}

// promised is what a store has to have by the word of those who had it.
type promised struct {
	streams []*promisedStream
	pins    map[string]bool

	had  bool // stable published wildProduct before the sync that was asked for last
	drop drop

	stayed, dropped int // syncs that kept wildProduct, which upstream did not have, and that did without
}

// A drop is what is known of a command to drop wildProduct that no sync has followed.
type drop int

const (
	noDrop drop = iota
	dropAsked
	dropUnsure // it may have been asked for, or a sync may have followed
)

// A promisedStream is what has to be there of a stream.
type promisedStream struct {
	name string
	kind cache.Kind // of the documents that clients read

	// new are the snapshots that were acknowledged since the last look, newest first, and seen those that were there then.
	new, seen []string
	held      bool
}

func (p *promised) promise() {
	p.streams = []*promisedStream{{name: "stable", kind: cache.KindSite}, {name: "through", kind: cache.KindUpstream}}
	p.pins = map[string]bool{}
}

func (p *promised) stream(name string) *promisedStream {
	return p.streams[slices.IndexFunc(p.streams, func(s *promisedStream) bool { return s.name == name })]
}

// known returns all that is known to have been kept, newest first.
func (s *promisedStream) known() []string { return slices.Concat(s.new, s.seen) }

func (s *promisedStream) acknowledge(id string) {
	if !slices.Contains(s.known(), id) {
		s.new = append([]string{id}, s.new...)
	}
}

// ended takes the word of a command that has ended: what it says was done is promised, and what failed has changed nothing. Where
// the server that did the work has died, it is open whether it was done.
func (x *torture) ended(a attempt, out outcome) (open []attempt) {
	if strings.Contains(out.Stderr, control.ErrLost.Error()) {
		return []attempt{a}
	}
	allowed := []int{exitDone, exitFailed}
	if a.kind == "sync" { // upstream may be to blame
		allowed = []int{exitDone, exitFailed, exitPartial, exitUnverified}
	}
	if !slices.Contains(allowed, out.Status) {
		x.Errorf("%s ends with status %d: %s", a.kind, out.Status, tailOf([]byte(out.Stderr)))
	}
	switch {
	case a.kind == "sync":
		x.synced(out)
	case out.Status != exitDone:
	case a.kind == "rollback":
		var res mirror.RolledBack
		x.unmarshal(out.Stdout, &res)
		x.stream("stable").acknowledge(res.Snapshot)
		x.stream("stable").held = true
	case a.kind == "resume":
		x.stream("stable").held = false
	case a.kind == "pin":
		x.pins[a.id] = true
	case a.kind == "unpin":
		delete(x.pins, a.id)
	case a.kind == "drop":
		x.drop = dropAsked
	}
	return nil
}

// publishes reports whether stable publishes wildProduct.
func (x *torture) publishes() bool {
	files := x.files()
	defer files.Close()
	now, err := files.Current("stable")
	if err != nil {
		x.Fatal(err)
	}
	m, err := files.Manifest("stable", now.ID)
	if err != nil {
		x.Fatal(err)
	}
	lists, err := mirror.ReadLists(files, m)
	if err != nil {
		x.Fatal(err)
	}
	for _, l := range lists {
		if slices.ContainsFunc(l.Products, func(p mirror.PlannedProduct) bool { return p.Name == wildProduct }) {
			return true
		}
	}
	return false
}

// followed looks at wildProduct after a sync of stable that was acknowledged.
func (x *torture) followed() {
	has := x.publishes()
	switch {
	case x.up.away == nil: // upstream has it, and so has the mirror, as far as it can
	case x.drop == dropAsked && has:
		x.Errorf("%s is published still, which was dropped", wildProduct)
	case x.drop == dropAsked:
		x.dropped++
	case x.drop == noDrop && x.had && !has:
		x.Errorf("%s is gone, which nobody dropped", wildProduct)
	case x.drop == noDrop && x.had:
		x.stayed++
	}
	x.drop = noDrop
}

// synced takes the word of a sync, a word for each stream.
func (x *torture) synced(out outcome) {
	var results []struct {
		Stream, Snapshot, Error string
		Held                    bool
	}
	if out.Stdout == "" {
		x.Fatalf("a sync says nothing: status %d: %s", out.Status, tailOf([]byte(out.Stderr)))
	}
	x.unmarshal(out.Stdout, &results)
	for _, res := range results {
		if res.Error == "" {
			x.stream(res.Stream).acknowledge(res.Snapshot)
		}
		if res.Stream == "stable" && res.Error == "" && !res.Held {
			x.followed()
		}
	}
}

func (x *torture) unmarshal(text string, v any) {
	if err := json.Unmarshal([]byte(text), v); err != nil {
		x.Fatalf("%v: %q", err, text)
	}
}

// files returns what can be read of the store beside whoever has it.
func (x *torture) files() *cache.Files {
	files, err := cache.OpenFiles(filepath.Join(x.dir, "store"))
	if err != nil {
		x.Fatal(err)
	}
	return files
}

// kept returns the ids of the kept snapshots of a stream, newest first.
func (x *torture) kept(stream string) (ids []string) {
	files := x.files()
	defer files.Close()
	for _, s := range x.snapshots(files, stream) {
		ids = append(ids, s.ID.String())
	}
	return ids
}

// snapshots returns the kept snapshots of a stream, newest first.
func (x *torture) snapshots(files *cache.Files, stream string) []cache.Snapshot {
	for try := 0; ; try++ {
		kept, err := files.Snapshots(stream)
		if errors.Is(err, cache.ErrNoSnapshot) && try < 10 { // it was swept between the list and the manifest
			continue
		}
		if err != nil {
			x.Fatalf("stream %s: %v", stream, err)
		}
		return kept
	}
}

// pinned returns the ids of the pinned snapshots.
func (x *torture) pinned() (ids []string) {
	files := x.files()
	defer files.Close()
	pins, err := files.Pins()
	if err != nil {
		x.Fatal(err)
	}
	for _, p := range pins {
		ids = append(ids, p.Snapshot.String())
	}
	return ids
}

// target returns a kept snapshot of stable to go back to, one with other content than what is current; "": there is none.
func (x *torture) target(random *rand.Rand) string {
	files := x.files()
	defer files.Close()
	var others []string
	content := func(id string) string {
		d, err := cache.ParseDigest(id)
		if err != nil {
			x.Fatal(err)
		}
		m, err := files.Manifest("stable", d)
		if err != nil {
			return "" // swept at this moment
		}
		var lines []string
		for _, e := range m.Entries {
			if e.Kind != cache.KindSite {
				lines = append(lines, fmt.Sprint(e))
			}
		}
		return strings.Join(lines, "\n")
	}
	kept := x.kept("stable")
	now := content(kept[0])
	for _, id := range kept[1:] {
		if c := content(id); c != "" && c != now {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return ""
	}
	return others[random.IntN(len(others))]
}

// settle looks at what a process that was killed has left, with what is open since then. The first to open the store is a
// deep check.
func (x *torture) settle(open []attempt) {
	x.Helper()
	if out := x.plain("store", "check", "--deep"); out.Status != exitDone {
		x.Fatalf("store check --deep: status %d: %s%s", out.Status, out.Stdout, out.Stderr)
	}
	x.compare(open)
	x.served()
}

// compare compares what is kept, pinned and held with what was promised, and takes it as promised from now on.
func (x *torture) compare(open []attempt) {
	x.Helper()
	files := x.files()
	defer files.Close()
	may := func(kind, id string) bool { return slices.Contains(open, attempt{kind, id}) }
	pins := map[string]bool{}
	for _, id := range x.pinned() {
		pins[id] = true
		if !x.pins[id] && !may("pin", id) {
			x.Errorf("snapshot %s is pinned", id)
		}
	}
	for id := range x.pins {
		if !pins[id] && !may("unpin", id) {
			x.Errorf("the pin of snapshot %s is gone", id)
		}
	}
	for _, s := range x.streams {
		kept := x.snapshots(files, s.name)
		if err := s.compare(kept, open, pins); err != nil {
			x.Errorf("stream %s: %v; open is %v, promised %.12s, kept:", s.name, err, open, s.known())
			for _, snap := range kept {
				x.Errorf("  %.12s after %.12s: %s", snap.ID, snap.Parent, snap.Reason)
			}
		}
		status, err := mirror.ReadStatus(files, s.name)
		if err != nil {
			x.Fatal(err)
		}
		held := status.Held != nil
		if want := s.wantHeld(kept, open); held != want && !slices.ContainsFunc(open, func(a attempt) bool { return a.kind == "resume" }) {
			x.Errorf("stream %s is held by a rollback: %v, want %v", s.name, held, want)
		}
		s.new, s.seen, s.held = nil, nil, held
		for _, snap := range kept {
			s.seen = append(s.seen, snap.ID.String())
		}
	}
	x.pins = pins
	for _, a := range open {
		if a.kind == "drop" || a.kind == "sync" && x.drop == dropAsked {
			x.drop = dropUnsure
		}
	}
}

// compare says what is wrong with what is kept of a stream, newest first.
func (s *promisedStream) compare(kept []cache.Snapshot, open []attempt, pins map[string]bool) error {
	known := s.known()
	unknown := 0 // snapshots that an open attempt has published
	last := -1
	for i, snap := range kept {
		id := snap.ID.String()
		at := slices.Index(known, id)
		switch {
		case at < 0 && last >= len(s.new):
			return fmt.Errorf("snapshot %.12s comes from nowhere", id)
		case at < 0:
			unknown++
		case at <= last:
			return fmt.Errorf("snapshot %.12s is out of its turn", id)
		default:
			last = at
		}
		if i+1 < min(keptSnapshots, len(kept)) && snap.Parent != kept[i+1].ID {
			return fmt.Errorf("snapshot %.12s does not follow the one before it", id)
		}
	}
	publishing := 0
	for _, a := range open {
		if a.kind == "sync" || a.kind == "rollback" && s.name == "stable" || a.kind == "refresh" && s.name == "through" {
			publishing++
		}
	}
	if unknown > publishing {
		return fmt.Errorf("%d snapshots were published that nobody asked for", unknown-publishing)
	}
	for i, id := range known {
		if (i+unknown < keptSnapshots || pins[id]) && !slices.ContainsFunc(kept, func(snap cache.Snapshot) bool { return snap.ID.String() == id }) {
			return fmt.Errorf("snapshot %.12s is gone", id)
		}
	}
	return nil
}

// wantHeld says whether a rollback holds the stream: one that was acknowledged, or one whose snapshot is there.
func (s *promisedStream) wantHeld(kept []cache.Snapshot, open []attempt) bool {
	now := kept[0]
	rolled := s.name == "stable" && !slices.Contains(s.known(), now.ID.String()) && strings.HasPrefix(now.Reason, "rollback to ") &&
		slices.ContainsFunc(open, func(a attempt) bool { return a.kind == "rollback" })
	return s.held || rolled
}

// served has a server serve the store, and reads all that the metadata of what is current names, and of what is pinned.
func (x *torture) served() {
	x.Helper()
	v := x.bear("oxbow", death{step: never}, configuration, "serve")
	defer v.kill()
	url := v.listens(x)
	files := x.files()
	defer files.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, s := range x.streams {
		now, err := files.Current(s.name)
		if err != nil {
			x.Fatal(err)
		}
		base := url + "/" + s.name + "/"
		x.servedStream(client, s, now, base, url)
	}
	for id := range x.pins {
		base := url + "/-/snapshots/stable/" + id + "/"
		if _, err := auditTree(x.Context(), client, base, url+"/-/keyring.gpg"); err != nil {
			x.Errorf("pinned snapshot %s: %v", id, err)
		}
	}
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		x.Error(err)
	}
	v.await(x)
	if log := v.log(); v.cmd.ProcessState.ExitCode() != exitDone || bytes.Contains(log, []byte("level=ERROR")) {
		x.Errorf("serve: %v: %s", v.cmd.ProcessState, tailOf(log))
	}
}

// servedStream reads all that a stream serves, and has it be the current snapshot.
func (x *torture) servedStream(client *http.Client, s *promisedStream, now cache.Snapshot, base, server string) {
	x.Helper()
	files := x.files()
	defer files.Close()
	m, err := files.Manifest(s.name, now.ID)
	if err != nil {
		x.Fatal(err)
	}
	families := []string{"sjson"}
	if slices.ContainsFunc(m.Entries, func(e cache.Entry) bool { return e.Path == "streams/v1/index.json" }) {
		families = append(families, "json") // upstream's is left out where it contradicts what is signed
	}
	a, err := auditFamilies(x.Context(), client, base, server+"/-/keyring.gpg", families...)
	for tries := 0; errors.Is(err, io.ErrUnexpectedEOF) && tries < len(m.Entries); tries++ {
		// A fill that was killed may have left wrong bytes of upstream's. Who follows the next one is cut, and tries again.
		a, err = auditFamilies(x.Context(), client, base, server+"/-/keyring.gpg", families...)
	}
	if err != nil {
		x.Errorf("stream %s, snapshot %v: %v", s.name, now.ID, err)
		return
	}
	items := 0
	for _, e := range m.Entries {
		switch e.Kind {
		case cache.KindItem, cache.KindKnown:
			items++
		case s.kind:
			data, err := a.get(x.Context(), base+e.Path)
			if err != nil || cache.Sum(data) != e.Digest {
				x.Errorf("stream %s: %s is not that of snapshot %v (%v)", s.name, e.Path, now.ID, err)
			}
		}
	}
	if a.Files != items {
		x.Errorf("stream %s: %d files are served of %d", s.name, a.Files, items)
	}
}
