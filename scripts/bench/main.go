// Command bench measures oxbow beside what people would use instead, in the
// same minutes on the same machine, and prints ratios: absolute times say
// little on a shared machine.
//
//	go run ./scripts/bench [-runs N] [-only clone,limited,tiny,hot,cold,crowd,narrow,carry] [-dir DIR]
//
// It runs in the root of the repository, needs bin/oxbow (`make build`), nginx,
// curl, varnish and some 8 GiB of disk below DIR, and talks to loopback only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

// A bench is what the scenarios share.
type bench struct {
	oxbow string // the binary under test
	dir   string // scratch space
	runs  int
}

// scenarios in the order they run.
var scenarios = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"clone", mirroring{"clone of 3024 MiB in 24 files", imageSizes(), "", "8 curls", curls(8)}.run},
	{"limited", mirroring{"one file of 400 MiB at 20 MB/s a connection", []int64{400 * mib}, "20m", "1 curl", curls(1)}.run},
	{"tiny", mirroring{"8000 files below 1 KiB", tinySizes(), "", "curl --parallel", (*bench).curlConfig}.run},
	{"hot", hot},
	{"cold", cold((*bench).coldBesideVarnish)},
	{"crowd", cold((*bench).crowd)},
	{"narrow", cold((*bench).narrow)},
	{"carry", carry},
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "fileserver" {
		exit(fileServer(os.Args[2], os.Args[3]))
	}
	runs := flag.Int("runs", 3, "measure each pair `N` times")
	only := flag.String("only", "", "run these scenarios, separated by commas")
	dir := flag.String("dir", os.TempDir(), "make scratch files below `DIR`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exit(run(ctx, *runs, *only, *dir))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, runs int, only, dir string) (err error) {
	if runs < 1 {
		return errors.New("-runs is 1 or more")
	}
	scratch, err := os.MkdirTemp(dir, "oxbow-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	oxbow, err := filepath.Abs("bin/oxbow")
	if err != nil {
		return err
	}
	b := &bench{oxbow: oxbow, dir: scratch, runs: runs}
	wanted := strings.Split(only, ",")
	for _, s := range scenarios {
		if only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}
