package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/proxy/control"
)

// An owner is this process while it has the store: it does its own work, and
// that of the commands that ask on the control socket.
type owner struct {
	store  *cache.Store
	mirror *mirror.Mirror
	log    *slog.Logger

	client  *upstream.Client
	control *control.Server // nil: nobody else can ask

	// What happens is told to who has the store for long. They are set before
	// listen, if at all.
	synced    func(mirror.Event)
	commanded func(command string, status int)
	faults    func(left int) // that a check or a repair has left
}

// errEnding is the cause with which works end that an owner did for others.
var errEnding = errors.New("the process that has the store was told to end")

// An opening is how a command that needs the store to itself gets it.
type opening func(dir string, o *cache.Options) (*cache.Store, error)

// own opens the store of a place for this process alone, and records the streams of
// the configuration.
func own(p place, open opening, log *slog.Logger) (*owner, error) {
	if err := becomeUserOf(p.dir); err != nil {
		return nil, err
	}
	store, err := open(p.dir, &cache.Options{Owner: commandLine(os.Args), Reserve: p.site.Store.Reserve, CacheLimit: p.site.Store.CacheLimit, Log: log})
	if err != nil {
		return nil, err
	}
	o := newOwner(store, log, p.offline)
	o.configure(p.site)
	return o, nil
}

// configure records the streams of the configuration. One that cannot be recorded
// keeps no other from being synced and served.
func (o *owner) configure(s *site.Site) {
	defs := make([]mirror.Stream, len(s.Streams))
	for i, st := range s.Streams {
		defs[i] = st.Stream
	}
	warnings, err := o.mirror.Configure(defs)
	for _, w := range warnings {
		o.log.Warn(w)
	}
	if err != nil {
		o.log.Error("not all of the configuration is in force", "reason", err)
	}
}

// newOwner returns an owner that nobody else can ask yet, and that asks no upstream if
// offline is set.
func newOwner(store *cache.Store, log *slog.Logger, offline bool) *owner {
	o := &owner{store: store, log: log}
	o.client = upstream.NewClient(&upstream.Options{UserAgent: "oxbow/" + programVersion(), Log: log})
	o.mirror = mirror.New(mirror.Options{Store: store, Client: o.client, Offline: offline, Log: log, Observe: func(e mirror.Event) {
		if o.synced != nil {
			o.synced(e)
		}
	}})
	return o
}

// listen begins to do the work of others.
func (o *owner) listen(role control.Role) (err error) {
	o.control, err = control.Listen(control.Options{
		Dir:    o.store.Files().Dir(),
		Owner:  control.Owner{Version: programVersion(), Role: role, Command: commandLine(os.Args)},
		Handle: o.handle,
		Log:    o.log,
	})
	return err
}

// stopOthers ends the works that are done for others, and takes no more.
func (o *owner) stopOthers() error {
	if o.control == nil {
		return nil
	}
	return o.control.Close(errEnding)
}

// close gives the store up. Works that are done for others end before.
func (o *owner) close() error {
	err := o.stopOthers()
	o.client.Close()
	return errors.Join(err, o.store.Close())
}

// once does one work, and what others ask for meanwhile, and gives the store up.
func (o *owner) once(ctx context.Context, w work, out *console, stdout io.Writer) error {
	if err := o.listen(control.Once); err != nil {
		return errors.Join(err, o.close())
	}
	err := w.do(ctx, o, &screen{stdout: stdout, stderr: out, progress: out.show})
	out.end()
	reminder := time.AfterFunc(queueSilence, func() {
		for _, other := range o.control.Running() {
			printLine(out, "oxbow: done; this process has the store and goes on with: %s", other)
		}
	})
	_ = o.control.Finish(ctx) // told to end: what is left is ended by close
	reminder.Stop()
	return errors.Join(err, o.close())
}

// foundFaults tells how many faults of the store are left.
func (o *owner) foundFaults(left int) {
	if o.faults != nil {
		o.faults(left)
	}
}

// handle does the work of another process.
func (o *owner) handle(ctx context.Context, r *control.Request, s *control.Session) int {
	began := time.Now()
	out := &screen{stdout: s.Stdout(), stderr: s.Stderr(), progress: func(p *mirror.Progress) { s.Progress(p) }}
	var kept tail
	if r.Detach { // nobody sees it
		out = &screen{stdout: &kept, stderr: &kept, progress: func(*mirror.Progress) {}}
	}
	w, err := readWork(r)
	if err == nil {
		err = w.do(ctx, o, out)
	}
	err = ended(ctx, err)
	report(out.stderr, err)
	status := exitStatus(err)
	attrs := []any{"command", r.Command, "status", status, "seconds", time.Since(began).Seconds(), "uid", s.Peer.UID, "pid", s.Peer.PID}
	if r.Detach {
		attrs = append(attrs, "output", kept.String())
	}
	o.log.Info("command", attrs...)
	if o.commanded != nil {
		o.commanded(r.Command, status)
	}
	return status
}

// tailSize is how much of the output of a detached work is logged, in bytes.
const tailSize = 4 << 10

// A tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex // guards the rest
	buf []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf, t.cut = append([]byte(nil), t.buf[over:]...), true
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut {
		return fmt.Sprintf("…%s", t.buf)
	}
	return string(t.buf)
}
