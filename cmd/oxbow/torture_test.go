package main

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	tortureTime = flag.Duration("torture", 0, "torture for so long, and for 200 kills at least; without, for one kill in each phase")
	tortureSeed = flag.Uint64("torture.seed", 0, "make the same choices again; 0 makes new ones")
)

// leastKills is how many kills there are at least where -torture is given.
const leastKills = 200

// phases are what a process is killed in the midst of, each of them: those of a sync in their order, what else changes
// a store, and asking a server to do any of it.
var phases = []string{"fetch", "durable", "manifest", "index", "switch", "sweep", "fill", "rollback", "rebuild", "ask"}

// commanded are the phases that a command of that name is in.
var commanded = []string{"sweep", "rollback", "rebuild"}

// lines is how many lines of the log there are in a phase, as a rule. Others than phases are aimed at, too, and may be missed.
var lines = map[string]int{"fetch": 20, "durable": 8, "manifest": 4, "index": 2, "switch": 4, "sweep": 12, "fill": 10, "rollback": 16, "evict": 6, "rebuild": 6}

// Processes are killed again and again, in the midst of everything that changes a store: commands that have the store to
// themselves, a server with readers that pulls through, syncs, goes back, sweeps and makes its index anew, and commands that
// have asked it for that, all from an upstream that changes and goes wrong. After each restart the store is whole by
// `store check --deep`; what is current is what was, or what was to be; all that its metadata names is served with the right
// bytes; no acknowledged snapshot or pin is gone; a product that upstream has no more stays until it is dropped, and then not;
// and no reader has ever completed wrong bytes.
func TestTorture(t *testing.T) {
	x := newTorture(t)
	t.Logf("seed %d: -torture.seed makes the same choices of where to kill", x.seed)
	defer x.summary()
	for n := 0; !x.enough(n); n++ {
		x.round(n)
		if x.Failed() {
			t.Fatalf("in round %d", n)
		}
		if n%50 == 49 {
			x.Logf("%v: %d kills", time.Since(x.began).Round(time.Second), x.killed())
		}
	}
	if left := x.unhit(); len(left) > 0 {
		t.Errorf("nothing was killed in the midst of %q", left)
	}
}

// A torture is a store with what is promised of it, an upstream, and what became of them.
type torture struct {
	*testing.T
	seed  uint64
	began time.Time
	dir   string // removed at the end, unless the test fails
	up    *wild

	promised                // what the store has to have
	kills    map[string]int // by phase
	lives    int            // processes that were to be killed
	births   int            // processes with a log
	imports  tally
}

func newTorture(t *testing.T) *torture {
	x := &torture{T: t, seed: *tortureSeed, began: time.Now(), kills: map[string]int{}}
	if x.seed == 0 {
		x.seed = rand.Uint64()
	}
	dir, err := os.MkdirTemp("", "oxbow-torture-")
	if err != nil {
		t.Fatal(err)
	}
	x.dir = dir
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the store and the logs are left in %s", dir)
		} else {
			os.RemoveAll(dir)
		}
	})
	x.up = newWild(t)
	x.write("upstream.gpg", x.up.tree.Keyring())
	for name, schedule := range map[string]string{configuration: "", scheduled: ", sync: {every: 1h}"} {
		x.write(name, fmt.Appendf(nil, `store: {path: store, reserve: 0, cache_limit: 3MiB}
serve: {listen: "127.0.0.1:0"}
streams:
  - {name: stable, upstream: %[1]q, keyring: upstream.gpg, path: /stable/, select: release=noble, max_versions: 2,
     keep: {last: %[2]d, daily: 0, weekly: 0, grace: 0s}%[3]s}
  - {name: through, upstream: %[1]q, keyring: upstream.gpg, path: /through/, advertise: all,
     keep: {last: %[2]d, daily: 0, weekly: 0, grace: 0s}%[3]s}
`, x.up.url, keptSnapshots, schedule))
	}
	x.promise()
	x.must("mirror", "sync")
	x.settle(nil)
	return x
}

// The same site without a schedule, and with one.
const (
	configuration = "oxbow.yaml"
	scheduled     = "scheduled.yaml"
)

func (x *torture) write(name string, data []byte) {
	if err := os.WriteFile(filepath.Join(x.dir, name), data, 0o600); err != nil {
		x.Fatal(err)
	}
}

// firstRounds is how many rounds there are at most for one kill in each phase.
var firstRounds = 3 * len(phases)

func (x *torture) enough(round int) bool {
	if *tortureTime == 0 {
		return round == firstRounds || len(x.unhit()) == 0
	}
	return time.Since(x.began) > *tortureTime && x.killed() >= leastKills
}

// unhit returns the phases in which nothing was killed yet.
func (x *torture) unhit() (left []string) {
	for _, p := range phases {
		if x.kills[p] == 0 {
			left = append(left, p)
		}
	}
	return left
}

func (x *torture) killed() (n int) {
	for _, k := range x.kills {
		n += k
	}
	return n
}

// aim returns where a round kills: at first at the beginning of each phase, then, in turn, within each phase and anywhere.
func (x *torture) aim(round int, random *rand.Rand) death {
	if left := x.unhit(); len(left) > 0 && round < firstRounds {
		return death{step: left[random.IntN(len(left))], point: 1}
	}
	if round%2 == 0 {
		return death{step: anywhere, after: time.Duration(random.Int64N(int64(time.Second)))}
	}
	aims := slices.Sorted(maps.Keys(lines))
	phase := aims[round/2%len(aims)]
	d := death{step: phase, point: 1 + random.IntN(lines[phase])}
	if random.IntN(2) == 0 {
		d.after = time.Duration(random.Int64N(int64(2 * time.Millisecond)))
	}
	return d
}

// round has one process live until it is killed, or has done its work, and looks at what it leaves.
func (x *torture) round(n int) {
	if n%20 == 19 {
		x.age()
	}
	random := rand.New(rand.NewPCG(x.seed, uint64(n)))
	d := x.aim(n, random)
	serves := d.step == "fill" || d.step == "evict" || d.step == "ask"
	if n >= len(phases) {
		serves = serves || random.IntN(5) < 2
	}
	lives := x.command
	if serves {
		lives = x.server
	}
	killed, open := lives(random, d)
	if killed && n >= len(phases) {
		x.again(random)
	}
	x.up.behave()
	if killed {
		x.settle(open)
	} else {
		x.compare(open)
	}
	if x.drop == dropUnsure && x.up.away != nil && x.publishes() {
		x.must("mirror", "drop", "stable", wildProduct)
		x.forward(random)
	}
}

// again has the next process killed, too, while it puts things in order, or makes the index anew.
func (x *torture) again(random *rand.Rand) {
	switch random.IntN(4) {
	case 0:
		x.run(death{"open", 1 + random.IntN(6), time.Duration(random.Int64N(int64(10 * time.Millisecond)))}, "store", "check", "--deep")
	case 1:
		d := death{"rebuild", 1 + random.IntN(lines["rebuild"]), time.Duration(random.Int64N(int64(10 * time.Millisecond)))}
		if out, killed := x.run(d, "store", "rebuild"); !killed && out.Status != exitDone {
			x.Errorf("store rebuild: status %d: %s", out.Status, tailOf([]byte(out.Stderr)))
		}
	}
}

// age makes partial downloads so old that a sweep removes them.
func (x *torture) age() {
	parts, err := filepath.Glob(filepath.Join(x.dir, "store", "ingest", "*.part"))
	if err != nil {
		x.Fatal(err)
	}
	then := time.Now().Add(-48 * time.Hour)
	for _, name := range parts {
		if err := os.Chtimes(name, then, then); err != nil {
			x.Fatal(err)
		}
	}
}

// summary prints what was survived.
func (x *torture) summary() {
	table := func(counts map[string]int, names []string) string {
		var b strings.Builder
		for _, name := range names {
			fmt.Fprintf(&b, "\n    %-12s %5d", name, counts[name])
		}
		return b.String()
	}
	names := slices.Clone(phases)
	for _, name := range slices.Sorted(maps.Keys(x.kills)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	faults := 0
	for _, n := range x.up.faults {
		faults += n
	}
	x.Logf("seed %d: %d kills of %d processes, and %d faults of upstream, in %v\n  killed in the midst of:%s\n  faults of upstream:%s\n  a product that upstream did not have: %d syncs kept it, %d dropped it\n  %v",
		x.seed, x.killed(), x.lives, faults, time.Since(x.began).Round(time.Second),
		table(x.kills, names), table(x.up.faults, slices.Sorted(maps.Keys(x.up.faults))), x.stayed, x.dropped, &x.imports)
}
