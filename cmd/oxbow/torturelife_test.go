package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// command runs a command that has the store to itself. It returns whether it was killed, and what nobody knows then of
// whether it was done.
func (x *torture) command(random *rand.Rand, d death) (killed bool, open []attempt) {
	a := attempt{kind: "sync"}
	switch {
	case d.step == "rollback" || d.step == "sweep":
		a.kind = d.step
	case d.step == anywhere:
		a.kind = []string{"sync", "sync", "sync", "rollback", "resume", "sweep", "pin", "unpin"}[random.IntN(8)]
	}
	x.prepare(a.kind, d.step, random)
	args := x.choose(&a, d.step, random)
	if args == nil {
		return false, nil
	}
	out, killed := x.run(d, args...)
	if killed {
		return true, []attempt{a}
	}
	if out.Status != exitDone && a.kind != "sync" && a.kind != "resume" {
		x.Errorf("oxbow %q: status %d: %s", args, out.Status, tailOf([]byte(out.Stderr)))
	}
	return false, x.ended(a, out)
}

// prepare makes that there is something to do for a process of which a command is to be killed in a phase.
func (x *torture) prepare(kind, phase string, random *rand.Rand) {
	switch kind {
	case "sync":
		if x.stream("stable").held {
			x.must("snapshot", "rollback", "stable", "--resume")
		}
		x.up.day(random.IntN(8) == 0, random)
		x.up.publish()
		moves := random.IntN(4) == 0
		if moves {
			x.up.day(false, random)
		}
		x.up.misbehave(rand.New(rand.NewPCG(random.Uint64(), 0)), random.IntN(4), moves)
	case "rollback":
		for x.target(random) == "" {
			x.forward(random)
		}
	case "sweep":
		for phase == "sweep" && !strings.Contains(x.plain("store", "sweep", "--dry-run").Stdout, "superseded") {
			x.forward(random)
		}
	}
}

// forward has a day published upstream and here.
func (x *torture) forward(random *rand.Rand) {
	if x.stream("stable").held {
		x.must("snapshot", "rollback", "stable", "--resume")
	}
	x.up.day(false, random)
	x.up.publish()
	x.must("mirror", "sync")
	x.compare(nil)
}

// choose returns the command line of an attempt; nil: there is nothing to attempt.
func (x *torture) choose(a *attempt, phase string, random *rand.Rand) []string {
	switch a.kind {
	case "sync":
		args := []string{"mirror", "sync", "--json"}
		if random.IntN(3) == 0 && phase != "durable" && phase != "fetch" { // all of it is fetched for the other
			return append(args, "through")
		}
		return args
	case "rollback":
		if a.id = x.target(random); a.id == "" {
			return nil
		}
		return []string{"snapshot", "rollback", "--json", "stable", a.id}
	case "resume":
		return []string{"snapshot", "rollback", "stable", "--resume"}
	case "sweep":
		return []string{"store", "sweep"}
	}
	pins := x.pinned()
	if a.kind == "pin" && len(pins) < 3 {
		kept := x.kept("stable")
		a.id = kept[random.IntN(len(kept))]
		return []string{"snapshot", "pin", a.id, "tortured"}
	}
	if len(pins) == 0 {
		return nil
	}
	*a = attempt{"unpin", pins[random.IntN(len(pins))]}
	return []string{"snapshot", "unpin", a.id}
}

// server runs a server with readers, and commands that it does, until it is killed: that death, or after a while.
func (x *torture) server(random *rand.Rand, d death) (killed bool, open []attempt) {
	if d.step == "rollback" || d.step == "sweep" {
		x.prepare(d.step, d.step, random)
	}
	x.prepare("sync", d.step, random)
	config := configuration
	open = []attempt{{kind: "refresh"}} // for a reader who asks for what was swept
	if random.IntN(2) == 0 {
		config, open = scheduled, append(open, attempt{kind: "sync"})
		if err := os.Remove(filepath.Join(x.dir, "store", "schedule.json")); err != nil && !os.IsNotExist(err) { // all streams are due then
			x.Fatal(err)
		}
	}
	last := patience / 3
	if d.step == anywhere {
		last, d = 2*d.after, death{step: never}
	}
	x.lives++
	v := x.bear(tortured, d, config, "serve")
	if url := v.listens(x); url != "" {
		kill := time.AfterFunc(last, v.kill)
		defer kill.Stop()
		ctx, cancel := context.WithCancel(context.Background())
		var readers sync.WaitGroup
		for range 3 {
			r := x.reader(url, random)
			readers.Go(func() { r.run(ctx) })
		}
		go func() {
			<-v.ended
			cancel()
		}()
		open = append(open, x.commands(v, random, d.step)...)
		readers.Wait()
	}
	v.await(x)
	return v.killed(x), open
}

// commands has a server do one command after the other until it is killed.
func (x *torture) commands(v *victim, random *rand.Rand, phase string) (open []attempt) {
	kinds := []string{"sync", "rollback", "resume", "sync", "sweep", "pin", "unpin"}
	for first := true; ; first = false {
		a := attempt{kind: kinds[random.IntN(len(kinds))]}
		switch {
		case first && (phase == "rollback" || phase == "sweep"):
			a.kind = phase
		case first:
			a.kind = "sync"
		}
		if a.kind == "sync" && !first {
			x.up.day(random.IntN(8) == 0, random)
			x.up.publish()
			x.up.misbehave(rand.New(rand.NewPCG(random.Uint64(), 0)), random.IntN(4), false)
		}
		if args := x.choose(&a, phase, random); args != nil {
			if open = x.ended(a, x.plain(args...)); open != nil {
				return open
			}
		}
		select {
		case <-v.ended:
			return open
		case <-time.After(time.Duration(random.Int64N(int64(50 * time.Millisecond)))):
		}
	}
}
