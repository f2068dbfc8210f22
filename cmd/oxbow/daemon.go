package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/proxy"
	"oxbow/proxy/control"
	"oxbow/streams"
)

// A daemon is what `oxbow serve` is once it has the store: the front end, the
// schedule, and what goes on beside them.
type daemon struct {
	o         *owner
	log       *slog.Logger
	ln        net.Listener
	forward   net.Listener // of the forward proxy; nil: there is none
	base      string       // URL of the front end
	front     front
	scheduler *mirror.Scheduler
	offline   bool           // no upstream is asked
	untold    *mirror.Stream // the default stream, where nobody said what to serve and nothing is published; else nil

	// At each of hangups reread finds out anew what the configuration says. If nil,
	// there is none.
	hangups <-chan os.Signal
	reread  func() (place, error)

	started     *site.Site                // with which it was started
	site        atomic.Pointer[site.Site] // in force
	served      atomic.Pointer[[]proxy.Stream]
	reloadNotes atomic.Pointer[[]string] // what the last reload could not do
	health      health
	unfinished  unfinished

	mu        sync.Mutex       // guards the rest: one refresh at a time
	announced map[string]error // what the log has told of streams: nil, that they are served
}

// newDaemon makes the daemon of an owner that does not listen yet.
func newDaemon(o *owner, ln net.Listener, f front, s *site.Site) *daemon {
	d := &daemon{o: o, log: o.log, ln: ln, base: f.scheme() + "://" + reachable(ln.Addr()), front: f, announced: map[string]error{}}
	d.started = s
	d.site.Store(s)
	d.reloadNotes.Store(new([]string))
	d.served.Store(new([]proxy.Stream))
	d.scheduler = mirror.NewScheduler(mirror.SchedulerOptions{
		Sync: func(ctx context.Context, name string) (*mirror.Result, error) {
			return o.mirror.Sync(ctx, name, mirror.SyncOptions{Progress: progressLog(o.log)})
		},
		Store:     o.store,
		OnFailure: func() string { return d.site.Load().Serve.OnFailure },
		Log:       o.log,
	})
	o.synced = func(e mirror.Event) {
		if !e.Refresh {
			d.front.metrics.Synced(e)
			d.scheduler.Note(e)
		}
		d.refresh()
	}
	d.health.republished = map[string]time.Time{}
	o.faults = d.noteFaults
	o.commanded = func(command string, status int) {
		d.front.metrics.Command(command, status)
		d.unfinished.forget()
		d.refresh()
	}
	return d
}

// close gives up the listeners of a daemon that does not run.
func (d *daemon) close() error {
	if d.forward == nil {
		return d.ln.Close()
	}
	return errors.Join(d.ln.Close(), d.forward.Close())
}

// refresh finds out anew which streams there are to serve and to sync. One that
// cannot be read keeps no other from it.
func (d *daemon) refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.o.mirror.Served()
	if err != nil {
		d.log.Error("a stream cannot be read; it is served as it was before, if it was", "reason", err)
		all = append(all, d.unreadable(all)...)
	}
	served := make([]proxy.Stream, len(all))
	schedules := make(map[string]mirror.Schedule, len(all))
	configured := d.site.Load()
	for i, st := range all {
		served[i] = proxy.Stream{Name: st.Name, Path: st.Path, Also: st.Also, Upstream: st.Upstream, View: d.o.mirror.View(st)}
		schedules[st.Name] = d.schedule(configured, st)
	}
	d.served.Store(&served)
	d.scheduler.Set(schedules)
	for _, st := range all {
		d.announce(st)
	}
}

// schedule returns when a stream is synced by itself.
func (d *daemon) schedule(configured *site.Site, st mirror.Stream) mirror.Schedule {
	if d.offline || st.Offline {
		return mirror.Schedule{}
	}
	if def, ok := configured.Stream(st.Name); ok {
		return def.Schedule
	}
	return usualSchedule(st)
}

// unreadable returns the streams that were served before, are not among those that
// can be read now, and are not gone: what is published is not lost with a definition
// that is damaged, or for want of descriptors.
func (d *daemon) unreadable(readable []mirror.Stream) (kept []mirror.Stream) {
	for _, was := range *d.served.Load() {
		if slices.ContainsFunc(readable, func(st mirror.Stream) bool { return st.Name == was.Name }) {
			continue
		}
		if _, err := d.o.mirror.Stream(was.Name); err != nil && !errors.Is(err, mirror.ErrNoStream) {
			kept = append(kept, mirror.Stream{Name: was.Name, Path: was.Path, Also: was.Also, Upstream: was.Upstream})
		}
	}
	return kept
}

// announce logs what a client has to know of a stream, and when there is nothing to
// serve, each time that this changes.
func (d *daemon) announce(st mirror.Stream) {
	_, err := d.o.store.Current(st.Name)
	if said, before := d.announced[st.Name]; before && (said == nil) == (err == nil) {
		return
	}
	d.announced[st.Name] = err
	switch {
	case errors.Is(err, cache.ErrNoSnapshot):
		d.log.Warn("nothing published yet", "stream", st.Name)
	case err != nil:
		d.log.Error("the current snapshot cannot be read", "stream", st.Name, "reason", err)
	default:
		d.log.Info("serving", "stream", st.Name, "boot_source", d.base+st.Path)
	}
}

// keyring returns what clients check signatures with: the site's keys, and those of
// the upstreams whose documents are served as they are. No key is needed to serve what
// was signed before.
func (d *daemon) keyring() []byte {
	ring, err := mirror.Keyring(d.o.store.Files())
	failed := []error{err}
	added := map[string]bool{}
	for _, served := range *d.served.Load() {
		if served.View != cache.Upstream {
			continue
		}
		st, err := d.o.mirror.Stream(served.Name)
		var keys []byte
		if err == nil {
			keys, err = st.Keys()
		}
		failed = append(failed, err)
		if !added[string(keys)] {
			ring, added[string(keys)] = append(ring, keys...), true
		}
	}
	if err := errors.Join(failed...); err != nil {
		d.log.Error("the keyring is not complete", "reason", err)
	}
	return ring
}

// greet logs where the front end is and what it lacks.
func (d *daemon) greet() {
	for _, w := range d.site.Load().Warnings {
		d.log.Warn(w)
	}
	published := slices.ContainsFunc(*d.served.Load(), func(st proxy.Stream) bool { return st.View == cache.Published && d.announced[st.Name] == nil })
	if _, err := mirror.SiteKey(d.o.store.Files()); published && errors.Is(err, cache.ErrMiss) && mirror.Signs(d.o.store.Files()) {
		d.log.Warn("the signing key is gone, and clients need its keyring: " + restoreKey)
	}
	if len(*d.served.Load()) == 0 {
		d.log.Warn("the store has no stream to serve; `oxbow mirror sync URL` defines one")
	}
	if d.offline {
		d.log.Info("offline: no upstream is asked")
	}
	d.log.Info("listening", "address", d.ln.Addr().String(), "keyring", d.base+"/-/keyring.gpg")
	if d.forward != nil {
		d.log.Info("listening as a forward proxy", "address", d.forward.Addr().String(), "http_proxy", "http://"+reachable(d.forward.Addr())+"/")
	}
}

// serve serves until ctx ends. A signal is the way to end it, and no error.
func (d *daemon) serve(ctx context.Context) error {
	if err := d.run(ctx); err != nil {
		return err
	}
	if _, ok := errors.AsType[control.Stop](context.Cause(ctx)); ok {
		return nil
	}
	return context.Cause(ctx)
}

// run goes on until ctx ends or something fails. Then syncs and works that are done
// for others are told to end, and running downloads may finish.
func (d *daemon) run(ctx context.Context) error {
	d.refresh()
	if d.untold != nil {
		d.scheduler.Due(d.untold.Name) // whatever became of it at an earlier start
	}
	d.greet()
	srv := proxy.New(&proxy.Options{
		Store:       d.o.store,
		Streams:     func() []proxy.Stream { return *d.served.Load() },
		Keyring:     d.keyring,
		Custody:     mirror.NewCustodian(d.o.store.Files(), "oxbow "+programVersion()),
		Pull:        d.o.mirror.Pull,
		Refresh:     d.o.mirror.Refresh,
		Damaged:     d.damaged,
		Allowed:     func() []proxy.Allowed { return d.site.Load().Serve.Forward.Allow },
		Certificate: d.front.certificate,
		Tokens:      d.front.tokens,
		Metrics:     d.front.metrics,
		Syncs:       d.scheduler.Standing,
		Notes:       d.notes,
		Unfinished:  d.unfinishedBundles,
		Log:         d.log,
	})
	g, running := errgroup.WithContext(ctx)
	defer cutAtSecond(running, srv)()
	g.Go(func() error { return srv.Serve(running, d.ln) })
	if d.forward != nil {
		g.Go(func() error { return srv.ServeForward(running, d.forward) })
	}
	for _, beside := range []func(context.Context){
		func(ctx context.Context) { _ = d.scheduler.Run(ctx) }, // that ctx ended
		func(ctx context.Context) { watch(ctx, d.alive) },
		d.reloads,
		d.tidy,
	} {
		g.Go(func() error {
			beside(running)
			return nil
		})
	}
	g.Go(func() error {
		<-running.Done()
		d.log.Info("ending", "reason", context.Cause(running))
		notify(sd.SdNotifyStopping, "STATUS=waiting for running downloads")
		return d.o.stopOthers()
	})
	d.ready()
	return g.Wait()
}

// cutAtSecond has a second signal, one that comes while running downloads finish, cut
// them, until stop is called. A third one ends the process.
func cutAtSecond(running context.Context, srv *proxy.Server) (stop func()) {
	done := make(chan struct{})
	context.AfterFunc(running, func() {
		second := make(chan os.Signal, 1)
		signal.Notify(second, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(second)
		select {
		case <-second:
			srv.Cut()
		case <-done:
		}
	})
	return func() { close(done) }
}

// ready tells systemd that requests are answered.
func (d *daemon) ready() {
	notify(sd.SdNotifyReady, fmt.Sprintf("STATUS=serving %s on %v", counted(len(*d.served.Load()), "stream"), d.ln.Addr()))
}

// alive returns when everything that a request needs has answered.
func (d *daemon) alive() {
	for _, st := range *d.served.Load() {
		_, _ = d.o.store.Find(st.Name, st.View, string(streams.UnsignedIndex)) // that it answers is enough
	}
}

// notes says what an operator should know beside the state of the streams.
func (d *daemon) notes() []string {
	return slices.Concat(*d.reloadNotes.Load(), d.health.note(), d.unfinished.notes(d.o.store.Files()))
}

// unfinishedBundles returns those of which volumes are missing; none, if that cannot be told now.
func (d *daemon) unfinishedBundles() []*mirror.UnfinishedBundle {
	all, _ := d.unfinished.bundles(d.o.store.Files())
	return all
}

// logEvery is how often a long sync is heard of in the log.
const logEvery = time.Minute

// progressLog returns what tells the log of one sync: what it fetches, and how far it
// has come.
func progressLog(log *slog.Logger) func(mirror.Progress) {
	var last time.Time
	phase := mirror.Phase("")
	return func(p mirror.Progress) {
		begins := p.Phase != phase
		phase = p.Phase
		if p.Phase != mirror.PhaseFetching || p.Files == 0 || !begins && time.Since(last) < logEvery {
			return
		}
		last = time.Now()
		log.Info("fetching", "stream", p.Stream, "files", p.Files, "files_done", p.FilesDone, "bytes", p.Bytes, "bytes_done", p.BytesDone)
	}
}
