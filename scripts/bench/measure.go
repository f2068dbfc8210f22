package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A usage is what a finished command used.
type usage struct {
	wall time.Duration
	rss  int64 // peak, bytes
}

// measure runs a command to its end, on a disk with nothing left to write: what
// others wrote before must not be this command's burden at its fsync.
func measure(ctx context.Context, name string, args ...string) (usage, error) {
	syscall.Sync()
	return execute(ctx, name, args...)
}

// execute runs a command to its end. Its output is shown only if it fails.
func execute(ctx context.Context, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return usage{}, fmt.Errorf("%s %v: %w\n%s", name, args, err, out.Bytes())
	}
	return usage{wall, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10}, nil
}

// A pair is the same work done by oxbow and by a peer, several times in turn.
type pair struct {
	oxbow, peer []usage
}

// compare runs both sides in turn, each after its preparation.
func compare(runs int, oxbow, peer func() (usage, error)) (pair, error) {
	var p pair
	for range runs {
		u, err := peer()
		if err != nil {
			return p, err
		}
		p.peer = append(p.peer, u)
		if u, err = oxbow(); err != nil {
			return p, err
		}
		p.oxbow = append(p.oxbow, u)
	}
	return p, nil
}

// print writes one line: medians, the median of the ratios run by run, and,
// of a command, oxbow's peak memory over all runs.
func (p pair) print(what, peer string, bytes int64) {
	var ratios []float64
	var rss int64
	for i := range p.oxbow {
		ratios = append(ratios, p.oxbow[i].wall.Seconds()/p.peer[i].wall.Seconds())
		rss = max(rss, p.oxbow[i].rss)
	}
	o, q := median(walls(p.oxbow)), median(walls(p.peer))
	fmt.Printf("%s: oxbow %.2f s (%s), %s %.2f s (%s); time oxbow/%s %.2fx (%.2f to %.2f, %d runs)",
		what, o, perSecond(bytes, o), peer, q, perSecond(bytes, q), peer, median(ratios), slices.Min(ratios), slices.Max(ratios), len(ratios))
	if rss > 0 { // it is the clients that are measured where a server runs beside them
		fmt.Printf("; oxbow peak RSS %d MiB", rss>>20)
	}
	fmt.Println()
}

func walls(us []usage) (s []float64) {
	for _, u := range us {
		s = append(s, u.wall.Seconds())
	}
	return s
}

func median(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return s[len(s)/2]
}

func perSecond(bytes int64, seconds float64) string {
	return fmt.Sprintf("%.0f MB/s", float64(bytes)/seconds/1e6)
}

// A process is a server that runs until it is stopped.
type process struct{ cmd *exec.Cmd }

func start(name string, args ...string) (*process, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd}, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// peak returns the process's peak memory so far, in bytes.
func (p *process) peak() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}
