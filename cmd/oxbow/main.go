// Command oxbow mirrors SimpleStreams trees and serves them to MAAS.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/proxy/control"
)

func main() {
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); value == "" && strings.HasPrefix(name, "OXBOW_") {
			os.Unsetenv(name) // an empty one says nothing, not an empty answer
		}
	}
	ctx, stop := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals) // a second one ends the process at once
		stop(stoppedBy(s))
	}()
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// stoppedBy is the cause of a context that a signal ended.
func stoppedBy(s os.Signal) error { return control.Stop{Reason: "stopped by signal: " + s.String()} }

// Exit statuses, as the README lists them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitUnverified  = 4
	exitInterrupted = 130
)

// run executes one command line, args[0] being the program's name, and
// returns the exit status. Results go to stdout, everything else to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name:                      "oxbow",
		Usage:                     "keeps verified copies of SimpleStreams trees and serves them to MAAS",
		Writer:                    stdout,
		ErrWriter:                 stderr,
		Commands:                  commands(),
		HideHelpCommand:           true,
		HideVersion:               true,
		Flags:                     []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}}, // arrange makes it a command
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // the status is chosen below
	}
	line, err := arrange(app.Commands, args)
	if err == nil {
		err = app.RunContext(ctx, line)
	}
	err = ended(ctx, err)
	report(stderr, err)
	return exitStatus(err)
}

// ended returns the error of what ctx may have ended: a library says only that it
// was cancelled.
func ended(ctx context.Context, err error) error {
	if _, known := errors.AsType[control.Stop](err); !known && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return context.Cause(ctx)
	}
	return err
}

func exitStatus(err error) int {
	if err == nil {
		return exitDone
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*site.Error](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[control.Stop](err); ok {
		return exitInterrupted
	}
	if status, ok := errors.AsType[toldStatus](err); ok {
		return int(status)
	}
	switch {
	case errors.Is(err, mirror.ErrVerification):
		return exitUnverified
	case errors.Is(err, errPartial):
		return exitPartial
	}
	return exitFailed
}

// errPartial says that something was left out and the rest was done.
var errPartial = errors.New("done in part")

// A usageError is a command line that makes no sense.
type usageError struct {
	problem string
	command string // whose help says what does
}

func (e *usageError) Error() string { return e.problem }

func usagef(c *cli.Context, format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
}

// A hinted error comes with what the operator can do about it.
type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// report prints err, a line for each error in it, with a hint where there is one.
// An indented line belongs to the error above it.
func report(w io.Writer, err error) {
	if _, said := errors.AsType[toldStatus](err); said || err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		prefix := "oxbow: "
		if strings.HasPrefix(line, " ") {
			prefix = ""
		}
		printLine(w, "%s%s", prefix, strings.TrimSuffix(line, "\n"))
	}
	if h := hint(err); h != "" {
		fmt.Fprintf(w, "oxbow: hint: %s\n", h)
	}
}

func hint(err error) string {
	if e, ok := errors.AsType[*hinted](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*usageError](err); ok {
		return fmt.Sprintf("see `%s --help`", e.command)
	}
	if _, ok := errors.AsType[*site.Error](err); ok {
		return "" // it has its own
	}
	if _, ok := errors.AsType[*cache.DamagedError](err); ok {
		return "`oxbow store check` says what that hurts, and what heals it"
	}
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the file system of the store takes no writes: `dmesg` may tell why, and `mount -o remount,rw` ends it; for the service, ReadWritePaths= has to name the store (`systemctl edit oxbow`)"
	case errors.Is(err, mirror.ErrNoStream):
		return "`oxbow mirror list` prints those that there are"
	case errors.Is(err, mirror.ErrKeyExists):
		return "--replace puts this one in its place; every client needs the new keyring before that"
	case errors.Is(err, fs.ErrPermission):
		return "run it as the user who owns the store, or name another store with --store"
	}
	return ""
}
