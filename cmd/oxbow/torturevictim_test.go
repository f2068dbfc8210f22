package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// line returns a command line with a configuration of the torture.
func (x *torture) line(config string, args ...string) []string {
	return append(slices.Clone(args), "--config", filepath.Join(x.dir, config), "--log-format", "text")
}

// plain runs a command that lives on.
func (x *torture) plain(args ...string) outcome {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "oxbow", x.line(configuration, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return outcome{exitCode(err), stdout.String(), stderr.String()}
}

// must runs a command that has to be done, and takes it as acknowledged.
func (x *torture) must(args ...string) {
	x.Helper()
	a := attempt{kind: args[1]}
	if args[len(args)-1] == "--resume" {
		a.kind = "resume"
	}
	if a.kind == "sync" {
		args = append(args, "--json")
	}
	out := x.plain(args...)
	if out.Status != exitDone {
		x.Fatalf("oxbow %q: status %d: %s%s", args, out.Status, out.Stdout, out.Stderr)
	}
	x.ended(a, out)
}

// run runs a command that dies that death, unless it is done before.
func (x *torture) run(d death, args ...string) (out outcome, killed bool) {
	x.Helper()
	x.lives++
	v := x.bear(tortured, d, configuration, args...)
	v.await(x)
	return outcome{v.cmd.ProcessState.ExitCode(), v.stdout.String(), string(v.log())}, v.killed(x)
}

// A victim is a process that may be killed.
type victim struct {
	cmd    *exec.Cmd
	args   []string
	stdout bytes.Buffer
	stderr string        // name of a file
	ended  chan struct{} // closed when it has
}

// bear starts a victim.
func (x *torture) bear(program string, d death, config string, args ...string) *victim {
	x.Helper()
	name := fmt.Sprintf("client-%d", x.births%20) // beside the log of the server
	if d.step != "ask" {
		name = fmt.Sprintf("log-%d", x.births%20)
		x.births++
	}
	v := &victim{args: args, stderr: filepath.Join(x.dir, name), ended: make(chan struct{})}
	stderr, err := os.Create(v.stderr)
	if err != nil {
		x.Fatal(err)
	}
	defer stderr.Close()
	if program == tortured {
		args = append(args, "--log-level", "debug")
	}
	v.cmd = exec.Command(program, x.line(config, args...)...)
	v.cmd.Env = append(os.Environ(), deathVariable+"="+d.String())
	v.cmd.Stdout, v.cmd.Stderr = &v.stdout, stderr
	if err := v.cmd.Start(); err != nil {
		x.Fatal(err)
	}
	go func() {
		defer close(v.ended)
		_ = v.cmd.Wait() // its status is read from cmd
	}()
	return v
}

func (v *victim) kill() { _ = v.cmd.Process.Kill() } // it may have ended

// listens waits for a server and returns its URL; "": it has ended.
func (v *victim) listens(x *torture) (url string) {
	x.Helper()
	err := until(func() bool {
		if found := listening.FindSubmatch(v.log()); found != nil {
			url = "http://" + string(found[1])
			return true
		}
		select {
		case <-v.ended:
			return true
		default:
			return false
		}
	})
	if err != nil {
		x.Fatalf("it does not listen: %s", tailOf(v.log()))
	}
	return url
}

// await waits for the end of a victim.
func (v *victim) await(x *torture) {
	select {
	case <-v.ended:
	case <-time.After(2 * patience):
		_ = v.cmd.Process.Signal(syscall.SIGQUIT)
		<-v.ended
		x.Fatalf("oxbow %q goes on: %s", v.args, tailOf(v.log()))
	}
}

func (v *victim) log() []byte {
	data, err := os.ReadFile(v.stderr)
	if err != nil {
		return nil
	}
	return data
}

// killed reports whether a victim that has ended was killed, and counts that. It is called once.
func (v *victim) killed(x *torture) (killed bool) {
	log := v.log()
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if bytes.Contains(log, []byte(sign)) {
			x.Errorf("oxbow %q: %s", v.args, tailOf(log))
		}
	}
	status, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	if killed {
		x.kills[phaseAtEnd(log)]++
	}
	return killed
}

// tailOf returns the end of a log.
func tailOf(log []byte) []byte { return log[max(0, len(log)-8<<10):] }
