package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

// tortured is this test binary as a program that kills itself where it is told to.
const tortured = "oxbow-tortured"

// deathVariable names, in the environment of such a program, the death that it dies. Without, it lives on.
const deathVariable = "OXBOW_TEST_DEATH"

// A death is where a process is killed.
type death struct {
	step  string        // in the midst of which; anywhere: wherever it is; never: it is not
	point int           // the line of the log within the step, from 1 on
	after time.Duration // after that line, or after the start
}

const (
	anywhere = "anywhere"
	never    = "never"
)

func (d death) String() string { return fmt.Sprintf("%s %d %v", d.step, d.point, d.after) }

func readDeath(text string) (d death, err error) {
	var after string
	if _, err := fmt.Sscan(text, &d.step, &d.point, &after); err != nil {
		return d, err
	}
	d.after, err = time.ParseDuration(after)
	return d, err
}

// dieAsTold is oxbow, but for its end.
func dieAsTold() {
	stderr := &doomed{w: os.Stderr}
	if text := os.Getenv(deathVariable); text != "" {
		d, err := readDeath(text)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s is %q: %v\n", deathVariable, text, err)
			os.Exit(exitUsage)
		}
		if d.step == anywhere {
			time.AfterFunc(d.after, die)
		}
		stderr.death = d
	}
	os.Exit(run(context.Background(), os.Args, os.Stdout, stderr))
}

// die is what a crash is: no deferred call runs, and no other goroutine goes on.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// A doomed is the standard error of a process that is to die. Since a step, and each operation within it, is told of
// before it is taken, the process dies at that very point.
type doomed struct {
	w     io.Writer
	death death

	mu    sync.Mutex // guards the rest
	steps steps
	point int
}

func (d *doomed) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.w.Write(p) // what is written outlives the process
	d.steps.read(p)
	if d.steps.phase() != d.death.step {
		return n, err
	}
	if d.point++; d.point == d.death.point {
		if d.death.after == 0 {
			die()
		}
		time.AfterFunc(d.death.after, die)
	}
	return n, err
}

// steps are the steps that a process is in the midst of, by its log, in the order in which they began.
type steps struct{ open []string }

var stepLine = regexp.MustCompile(`msg="step (begins|ends)" step=(\S+)`)

// read reads a line of the log.
func (s *steps) read(line []byte) {
	found := stepLine.FindSubmatch(line)
	if found == nil {
		return
	}
	name := string(found[2])
	if string(found[1]) == "begins" {
		s.open = append(s.open, name)
		return
	}
	for i, open := range slices.Backward(s.open) {
		if open == name {
			s.open = slices.Delete(s.open, i, i+1)
			return
		}
	}
}

// between is the phase of a process that is in the midst of no step.
const between = "between"

// phase says in one word what the process is in the midst of: a rollback, a sweep, a fill or a rebuild, which have other steps
// in them; else the step that began last.
func (s *steps) phase() string {
	for _, whole := range []string{"rollback", "sweep", "fill", "rebuild"} {
		if slices.Contains(s.open, whole) {
			return whole
		}
	}
	if len(s.open) == 0 {
		return between
	}
	return s.open[len(s.open)-1]
}

// phaseAtEnd returns what a process was in the midst of when its log ended.
func phaseAtEnd(log []byte) string {
	var s steps
	for line := range bytes.Lines(log) {
		s.read(line)
	}
	return s.phase()
}
