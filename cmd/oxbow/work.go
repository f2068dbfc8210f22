package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/proxy/control"
)

// A work is what a changing command asks for, its flags read and its files
// opened: so any process can do it that has the store. It travels as JSON.
type work interface {
	// do does the work. What it finds goes to out, as it would to a terminal.
	do(ctx context.Context, o *owner, out *screen) error
}

// works makes an empty work of each command that has one. That of `snapshot diff` is for upstream, whose validators it keeps.
var works = map[string]func() work{
	"mirror sync":        func() work { return new(syncWork) },
	"mirror drop":        func() work { return new(dropWork) },
	"mirror import-tree": func() work { return new(treeWork) },
	"mirror export-tree": func() work { return new(leaseWork) },
	"snapshot rollback":  func() work { return new(rollbackWork) },
	"snapshot hold":      func() work { return new(holdWork) },
	"snapshot pin":       func() work { return new(pinWork) },
	"snapshot unpin":     func() work { return new(unpinWork) },
	"snapshot diff":      func() work { return new(diffWork) },
	"bundle export":      func() work { return new(exportWork) },
	"bundle import":      func() work { return new(importBundleWork) },
	"bundle have":        func() work { return new(haveWork) },
	"store check":        func() work { return new(checkWork) },
	"store sweep":        func() work { return new(sweepWork) },
	"store rebuild":      func() work { return new(rebuildWork) },
	"key generate":       func() work { return new(generateWork) },
	"key import":         func() work { return new(importWork) },
}

// readWork returns the work of a request. A field that is not known here is one
// that a newer program wants obeyed.
func readWork(r *control.Request) (work, error) {
	empty, known := works[r.Command]
	if !known {
		return nil, fmt.Errorf("oxbow %s has the store and does not know `oxbow %s` of oxbow %s: restart it", programVersion(), r.Command, r.Version)
	}
	w := empty()
	dec := json.NewDecoder(bytes.NewReader(r.Work))
	dec.DisallowUnknownFields()
	if err := dec.Decode(w); err != nil {
		return nil, fmt.Errorf("oxbow %s has the store and does not understand oxbow %s: restart it: %v", programVersion(), r.Version, err)
	}
	if f, ok := w.(fileWork); ok {
		return w, handOver(f, r.Files)
	}
	return w, nil
}

// A screen is what a work shows itself on: that of this process, or that of the
// command which asked for it.
type screen struct {
	stdout   io.Writer              // results
	stderr   io.Writer              // everything else, in whole lines
	progress func(*mirror.Progress) // nil: what is under way has ended
}

func detachFlag() cli.Flag {
	return &cli.BoolFlag{Name: "detach", Usage: "leave the work to the server that has the store, and end; its log tells how it went"}
}

// perform has the owner of the store do a work or, where there is none, becomes
// it: what is printed and the exit status are the same.
func perform(c *cli.Context, w work, open opening) error { return performOn(c, w, open, c.App.Writer) }

// performOn is perform with another standard output.
func performOn(c *cli.Context, w work, open opening, stdout io.Writer) error {
	p, err := placeOf(c)
	if err != nil {
		return err
	}
	log, err := logger(c, c.App.ErrWriter, slog.LevelWarn)
	if err != nil {
		return err
	}
	out := newConsole(c.App.ErrWriter)
	for queue := (queue{w: out}); ; {
		err := ask(c, p.dir, w, out, stdout)
		if !errors.Is(err, control.ErrNobody) {
			return err
		}
		if c.Bool("detach") {
			return errors.New("--detach leaves the work to `oxbow serve`, and none has the store: start it, or leave --detach out")
		}
		o, err := own(p, open, log)
		if errors.Is(err, cache.ErrLocked) {
			if err := queue.wait(c.Context, err); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return noStore(p.dir, err)
		}
		return o.once(c.Context, w, out, stdout)
	}
}

// ask has the owner of the store in dir do a work; the error is
// control.ErrNobody where there is none.
func ask(c *cli.Context, dir string, w work, out *console, stdout io.Writer) error {
	conn, err := control.Dial(dir)
	if err != nil {
		return err
	}
	defer conn.Close()
	log, err := logger(c, c.App.ErrWriter, slog.LevelWarn)
	if err != nil {
		return err
	}
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	r := control.Request{Version: programVersion(), Command: strings.TrimPrefix(c.Command.HelpName, "oxbow "), Detach: c.Bool("detach"), Work: data}
	if f, ok := w.(fileWork); ok {
		r.Files = f.opened().files
	}
	defer out.end()
	defer cache.Step(log, "ask", "command", r.Command)()
	status, err := conn.Do(c.Context, r, control.Screen{Stdout: stdout, Stderr: out, Progress: func(data json.RawMessage) {
		var p *mirror.Progress
		if json.Unmarshal(data, &p) == nil {
			out.show(p)
		}
	}})
	switch {
	case errors.Is(err, control.ErrLost):
		return &hinted{err, "what was done is kept; look with `oxbow mirror status`, or run the same command again"}
	case err != nil:
		return err
	case r.Detach:
		printLine(out, "oxbow: left to %v", conn.Owner)
	}
	return told(status)
}

// A told status is that of a work whose owner has said all there is to say.
type toldStatus int

func (s toldStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func told(status int) error {
	if status == exitDone {
		return nil
	}
	return toldStatus(status)
}

const (
	// queuePause is how often a store that another process has is tried again.
	queuePause = 50 * time.Millisecond

	// queueSilence is how long nothing is said of waiting.
	queueSilence = time.Second

	// queueLimit is how long an owner may be silent: it may be opening the store,
	// which after a crash takes a while, or closing it.
	queueLimit = 2 * time.Minute
)

// A queue waits for an owner that has the lock and does not listen.
type queue struct {
	w     io.Writer
	began time.Time
	said  bool
}

// wait waits a moment. It fails when ctx ends, and with locked when it has been
// long enough.
func (q *queue) wait(ctx context.Context, locked error) error {
	if q.began.IsZero() {
		q.began = time.Now()
	}
	waited := time.Since(q.began)
	if waited > queueLimit {
		return fmt.Errorf("%w; it has not answered on its control socket for %v", locked, queueLimit)
	}
	if e, ok := errors.AsType[*cache.LockedError](locked); ok && waited > queueSilence && !q.said {
		q.said = true
		printLine(q.w, "oxbow: waiting for %v", e.Holder)
	}
	return pause(ctx, queuePause)
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
