package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// command runs a command that has the store to itself. It returns whether it was killed, and what nobody knows then of
// whether it was done.
func (x *torture) command(random *rand.Rand, d death) (killed bool, open []attempt) {
	a := attempt{kind: "sync"}
	switch {
	case slices.Contains(commanded, d.step):
		a.kind = d.step
	case d.step == anywhere:
		a.kind = []string{"sync", "sync", "sync", "rollback", "resume", "sweep", "pin", "unpin", "rebuild", "drop"}[random.IntN(10)]
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
	open = x.ended(a, out)
	if a.kind == "drop" {
		x.forward(random)
	}
	return false, open
}

// prepare makes that there is something to do for a process of which a command is to be killed in a phase.
func (x *torture) prepare(kind, phase string, random *rand.Rand) {
	switch kind {
	case "sync":
		if x.stream("stable").held {
			x.must("snapshot", "rollback", "stable", "--resume")
		}
		x.news(random)
		moves := random.IntN(4) == 0
		if moves {
			x.up.day(false, random)
		}
		x.up.misbehave(rand.New(rand.NewPCG(random.Uint64(), 0)), random.IntN(4), moves)
	case "rollback":
		for x.target(random) == "" {
			x.forward(random)
		}
	case "drop": // which upstream has no more, and the mirror has
		for x.up.away == nil || !x.publishes() {
			x.up.turn()
			x.forward(random)
		}
	case "sweep":
		for phase == "sweep" && !strings.Contains(x.plain("store", "sweep", "--dry-run").Stdout, "superseded") {
			x.forward(random)
		}
	}
}

// news has a day published upstream, and now and then has wildProduct go or come, unless it is being dropped.
func (x *torture) news(random *rand.Rand) {
	if x.drop != dropAsked && random.IntN(3) == 0 {
		x.up.turn()
	}
	x.up.day(random.IntN(8) == 0, random)
	x.up.publish()
}

// forward has a day published upstream and here.
func (x *torture) forward(random *rand.Rand) {
	if x.stream("stable").held {
		x.must("snapshot", "rollback", "stable", "--resume")
	}
	x.up.day(false, random)
	x.up.publish()
	x.had = x.publishes()
	x.must("mirror", "sync")
	x.compare(nil)
}

// choose returns the command line of an attempt; nil: there is nothing to attempt.
func (x *torture) choose(a *attempt, phase string, random *rand.Rand) []string {
	switch a.kind {
	case "sync":
		x.had = x.publishes()
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
	case "sweep", "rebuild":
		return []string{"store", a.kind}
	case "drop":
		if !x.publishes() {
			return nil
		}
		return []string{"mirror", "drop", "stable", wildProduct}
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
	if slices.Contains(commanded, d.step) {
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
	last, phase := patience/3, d.step
	if d.step == anywhere || d.step == "ask" {
		last, d = 2*d.after, death{step: never}
	}
	if phase == "ask" {
		last = patience / 6
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
		open = append(open, x.commands(v, random, phase, open)...)
		readers.Wait()
	}
	v.await(x)
	return v.killed(x), open
}

// commands has a server do one command after the other until it is killed, and kills some of those that ask. What is open besides
// them is what the server does by itself.
func (x *torture) commands(v *victim, random *rand.Rand, phase string, itself []attempt) (open []attempt) {
	kinds := []string{"sync", "rollback", "resume", "sync", "sweep", "pin", "unpin", "rebuild", "drop"}
	for first := true; ; first = false {
		a := attempt{kind: kinds[random.IntN(len(kinds))]}
		switch {
		case first && slices.Contains(commanded, phase):
			a.kind = phase
		case first:
			a.kind = "sync"
		}
		if a.kind == "sync" && !first {
			x.news(random)
			x.up.misbehave(rand.New(rand.NewPCG(random.Uint64(), 0)), random.IntN(4), false)
		}
		if args := x.choose(&a, phase, random); args != nil {
			if phase == "ask" || random.IntN(4) == 0 {
				open = x.ask(v, random, a, itself, args...)
			} else {
				open = x.ended(a, x.plain(args...))
			}
			if open != nil {
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

// ask has a server do a command, of which the process is killed that asks. The server then gives the work up, or has done it: what
// became of it is looked at once it has said so.
func (x *torture) ask(v *victim, random *rand.Rand, a attempt, itself []attempt, args ...string) (open []attempt) {
	x.Helper()
	x.lives++
	c := x.bear(tortured, death{"ask", 1, time.Millisecond + time.Duration(random.Int64N(int64(200*time.Millisecond)))}, configuration, args...)
	c.await(x)
	if !c.killed(x) {
		return x.ended(a, outcome{c.cmd.ProcessState.ExitCode(), c.stdout.String(), string(c.log())})
	}
	said := regexp.MustCompile(fmt.Sprintf(`(?m)msg=command .* pid=%d$`, c.cmd.Process.Pid))
	for deadline := time.Now().Add(patience / 6); !said.Match(v.log()) && time.Now().Before(deadline); { // it may have died before it said what it wants
		select {
		case <-v.ended:
			return []attempt{a}
		case <-time.After(10 * time.Millisecond):
		}
	}
	x.compare(append(slices.Clone(itself), a))
	return nil
}
