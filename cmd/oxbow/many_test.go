package main

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Twenty commands at once on one store each end with a result or with an error that
// says what is wrong, with a daemon or without, also when it is killed in the
// middle of them; and the store is whole.
func TestManyCommands(t *testing.T) {
	for _, tt := range []struct {
		name         string
		daemon, kill bool
	}{
		{name: "nobody has the store"},
		{name: "a daemon has it", daemon: true},
		{name: "a daemon is killed", kill: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSide(t)
			if out := s.oxbow("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg"); out.Status != 0 {
				t.Fatal(out.Stderr)
			}
			s.day()
			end := func() {}
			switch {
			case tt.kill:
				end = s.daemon(t).kill
			case tt.daemon:
				end = s.daemon(t).end
			}
			ended := s.runAll(manyCommands)
			if tt.kill {
				time.Sleep(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
				end()
				end = func() {}
			}
			for i, got := range ended() {
				args := manyCommands[i]
				if !tt.kill && got.Status != args.status || got.Status < 0 {
					t.Errorf("oxbow %q: status %d, want %d: %s", args.args, got.Status, args.status, got.Stderr)
				}
				if got.Status != exitDone && !strings.Contains(got.Stderr, "oxbow: ") || strings.Contains(got.Stderr, "goroutine ") {
					t.Errorf("oxbow %q: status %d without a clear error: %q", args.args, got.Status, got.Stderr)
				}
			}
			end()
			for _, args := range [][]string{{"mirror", "sync"}, {"store", "check", "--deep"}} {
				if out := s.oxbow(args...); out.Status != 0 {
					t.Errorf("then oxbow %q: status %d: %s%s", args, out.Status, out.Stdout, out.Stderr)
				}
			}
		})
	}
}

// manyCommands are run at once, with the status of each when nobody is killed.
var manyCommands = []struct {
	args   []string
	status int
}{
	{args: []string{"mirror", "sync"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"mirror", "sync", "--json"}},
	{args: []string{"mirror", "sync", "stable", "--dry-run"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "--name", "second", "--path", "/second/", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "--name", "third", "--path", "/third/", "arch=amd64", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"mirror", "sync", "absent"}, status: exitFailed},
	{args: []string{"mirror", "list"}},
	{args: []string{"mirror", "status"}},
	{args: []string{"mirror", "status", "--json"}},
	{args: []string{"store", "check"}},
	{args: []string{"store", "check", "--deep"}},
	{args: []string{"store", "sweep"}},
	{args: []string{"store", "sweep", "--dry-run"}},
	{args: []string{"store", "rebuild"}},
	{args: []string{"store", "rebuild", "--json"}},
	{args: []string{"store", "stats"}},
	{args: []string{"key", "show"}},
	{args: []string{"key", "generate"}, status: exitFailed},
	{args: []string{"key", "import", "DIR/first.asc"}},
}

// runAll starts commands, a process each, and returns what waits for their outcomes.
func (s *side) runAll(commands []struct {
	args   []string
	status int
}) func() []outcome {
	outcomes := make([]outcome, len(commands))
	var all sync.WaitGroup
	for i, c := range commands {
		all.Go(func() {
			cmd := exec.Command("oxbow", s.line(c.args...)[1:]...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			outcomes[i] = outcome{exitCode(cmd.Run()), stdout.String(), stderr.String()}
		})
	}
	return func() []outcome {
		all.Wait()
		return outcomes
	}
}
