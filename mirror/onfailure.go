package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

const (
	// commandTime bounds a command of the operator, commandOutput what is logged of its
	// output in bytes, and leftoverTime the wait for output of what it left behind.
	// lastTime bounds a command further once the scheduler is to end: it is not to be
	// the last that others wait for.
	commandTime   = time.Minute
	lastTime      = 10 * time.Second
	commandOutput = 4 << 10
	leftoverTime  = time.Second
)

// onFailure runs the operator's command line after a sync that ended with e. It does not end
// with ctx: who is told of failures is told of the last one before a shutdown, too.
func (s *Scheduler) onFailure(ctx context.Context, line string, e Event, st *scheduled) {
	running, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer time.AfterFunc(s.commandTime, func() { end(fmt.Errorf("it took longer than %v", s.commandTime)) }).Stop()
	defer context.AfterFunc(ctx, func() {
		if sleep(running, s.lastTime) == nil {
			end(fmt.Errorf("it went on for %v when the scheduler had to end", s.lastTime))
		}
	})()
	cmd := exec.CommandContext(running, "/bin/sh", "-c", line)
	cmd.Env = append(s.facts(e, st), inherited("PATH", "HOME", "LANG")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = leftoverTime
	out := &head{limit: commandOutput}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if cause := context.Cause(running); err != nil && cause != nil {
		err = cause
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // which is no failure of the shell's
		s.o.Log.Error("the on_failure command failed", "stream", e.Stream, "reason", err, "output", out.String())
		return
	}
	s.o.Log.Info("the on_failure command was run", "stream", e.Stream, "output", out.String())
}

// inherited returns those variables of the environment that are set.
func inherited(names ...string) (env []string) {
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// facts returns the environment that tells a command what happened.
func (s *Scheduler) facts(e Event, st *scheduled) []string {
	var snapshot, published, age, upstream string
	if s.o.Store != nil {
		if current, err := s.o.Store.Current(e.Stream); err == nil {
			snapshot, published = current.ID.String(), stampOf(current.Created)
			age = strconv.FormatInt(int64(max(e.Time.Sub(current.Created), 0)/time.Second), 10)
		}
		if st, err := readState(s.o.Store.Files(), e.Stream); err == nil {
			upstream = shownAll(st.Stream.Upstream)
		}
	}
	s.mu.Lock()
	next, failures := st.Next, st.Failures
	s.mu.Unlock()
	return []string{
		"OXBOW_STREAM=" + e.Stream,
		"OXBOW_OUTCOME=" + string(e.Outcome),
		"OXBOW_REASON=" + oneLine(e.Reason),
		"OXBOW_FAILURES=" + strconv.Itoa(failures),
		"OXBOW_TIME=" + stampOf(e.Time),
		"OXBOW_SNAPSHOT=" + snapshot,
		"OXBOW_PUBLISHED=" + published,
		"OXBOW_AGE=" + age,
		"OXBOW_NEXT=" + stampOf(next),
		"OXBOW_UPSTREAM=" + upstream,
	}
}

// stampOf returns t as RFC 3339; the zero time is "".
func stampOf(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// A head keeps the beginning of what is written to it. Only one goroutine writes:
// os/exec sees to that where standard output and error are one.
type head struct {
	limit int
	buf   bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), h.limit-h.buf.Len())])
	return len(p), nil
}

func (h *head) String() string { return h.buf.String() }
