package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"oxbow/cache"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// Options configures a [Mirror].
type Options struct {
	// Store holds everything; it must be open and outlive the Mirror.
	Store *cache.Store

	// Client fetches from upstream. If nil, one with the default options is used.
	Client *upstream.Client

	// Now is the clock. If nil, [time.Now] is used.
	Now func() time.Time

	// Log receives warnings. If nil, nothing is logged.
	Log *slog.Logger

	// Offline keeps every stream as it is: no upstream is asked.
	Offline bool

	// Observe, if not nil, is told of the end of every sync, by several
	// goroutines at once.
	Observe func(Event)

	// Settle bounds the time for which metadata that contradicts itself is
	// fetched again, since upstream may be publishing at that moment. If zero,
	// it is a minute.
	Settle time.Duration
}

// A Mirror keeps the streams of one store like their upstreams.
// Its methods may be called from several goroutines.
type Mirror struct {
	store   *cache.Store
	client  *upstream.Client
	now     func() time.Time
	log     *slog.Logger
	observe func(Event)
	settle  time.Duration
	offline bool

	mu  sync.Mutex // guards the rest and every read-modify-write of a state
	key *streams.SigningKey
	// syncing holds the streams with a sync, a refresh or a drop under way: one at a
	// time each.
	syncing map[string]*underway
	// lastAsked says when upstream was last asked for a stream's metadata.
	lastAsked map[string]time.Time
	// limits hold what is pulled through of each stream within its limit.
	limits map[limitKey]*rate.Limiter
	// configured holds the names that the configuration defines.
	configured map[string]bool
}

// An underway is a sync, a refresh or a drop under way.
type underway struct {
	done   chan struct{} // closed at its end
	cancel context.CancelCauseFunc
	// fetching: upstream's metadata was read, and what is wanted of it is on its way.
	fetching bool
}

// New returns a Mirror of o.Store. What a crash left of a rollback that had published nothing yet is taken back.
func New(o Options) *Mirror {
	m := &Mirror{store: o.Store, client: o.Client, now: o.Now, log: o.Log, observe: o.Observe, settle: o.Settle, offline: o.Offline,
		syncing: map[string]*underway{}, lastAsked: map[string]time.Time{}, limits: map[limitKey]*rate.Limiter{}}
	if m.client == nil {
		m.client = upstream.NewClient(nil)
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.observe == nil {
		m.observe = func(Event) {}
	}
	if m.settle == 0 {
		m.settle = time.Minute
	}
	m.undoHolds()
	return m
}

// Define records s. A stream of that name that has published something of another
// upstream, or that the configuration defines, is not replaced, and no two streams may share a URL path.
func (m *Mirror) Define(s Stream) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, err := m.stateFor(s)
	if err != nil || s.same(st.Stream) {
		return err
	}
	st.Stream = s
	return writeState(m.store, st)
}

// SyncNew defines s and syncs it. If that fails before anything is published, the
// stream is what it was before: a new one is not recorded, and one that has a
// snapshot or an earlier definition keeps it. When ctx ends the definition stays,
// since the same call goes on from there.
func (m *Mirror) SyncNew(ctx context.Context, s Stream, o SyncOptions) (*Result, error) {
	ctx, end, err := m.begin(ctx, s.Name, o.waiting(s.Name))
	if err != nil {
		return nil, err
	}
	defer end()
	before, _ := readState(m.store.Files(), s.Name) // nil if there is none, or none that can be read
	if err := m.Define(s); err != nil {
		return nil, err
	}
	res, err := m.attempt(ctx, s.Name, o)
	if err == nil || res != nil || ctx.Err() != nil || before != nil && s.same(before.Stream) {
		return res, err
	}
	return nil, errors.Join(err, m.undefine(s.Name, before))
}

// undefine gives a stream back the state that it had before Define; nil: none.
func (m *Mirror) undefine(name string, before *state) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.configured[name] {
		return nil // since a moment ago
	}
	if before != nil {
		return writeState(m.store, before)
	}
	if _, err := m.store.Current(name); err == nil {
		return nil // what is published outlived its definition, which is no new one then
	}
	return m.store.RemoveState(name)
}

// stateFor returns the state that s may become the definition of.
func (m *Mirror) stateFor(s Stream) (*state, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if m.configured[s.Name] {
		return nil, fmt.Errorf("stream %s is %w: `oxbow mirror sync %[1]s` syncs it, and the configuration file is where to change it", s.Name, ErrConfigured)
	}
	// A definition that cannot be read stands in nobody's way: its own stream's
	// takes its place.
	all, _ := Streams(m.store.Files())
	st := &state{}
	for _, other := range all {
		if other.Name != s.Name {
			if p := sharedPath(s, other); p != "" {
				return nil, fmt.Errorf("stream %s is served under %s already, and one stream's path cannot be part of another's; give another with --path", other.Name, p)
			}
			continue
		}
		if len(other.Upstream) > 0 && !slices.Equal(other.Upstream, s.Upstream) { // else it came from a tree
			if _, err := m.store.Current(s.Name); errors.Is(err, cache.ErrNoSnapshot) {
				continue // nothing came of it
			}
			return nil, fmt.Errorf("stream %s exists with upstream %s; give another name with --name", s.Name, shown(other.Upstream[0]))
		}
		var err error
		if st, err = readState(m.store.Files(), s.Name); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// sharedPath returns a path of b that is, or is above or below, one of a.
func sharedPath(a, b Stream) string {
	for _, theirs := range append([]string{b.Path}, b.Also...) {
		for _, ours := range append([]string{a.Path}, a.Also...) {
			if strings.HasPrefix(theirs, ours) || strings.HasPrefix(ours, theirs) {
				return theirs
			}
		}
	}
	return ""
}

// Stream returns the definition of a stream.
func (m *Mirror) Stream(name string) (Stream, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return Stream{}, err
	}
	return st.Stream, nil
}

// ErrSyncing: a sync of the stream is under way already. Wait for its end.
var ErrSyncing = errors.New("being synced already")

// begin marks the stream as being synced until the returned function is called. The
// returned context is for what a rollback may interrupt. Where the stream is marked
// already, begin calls waiting and waits for the end of that sync, or, if waiting is
// nil, fails with ErrSyncing.
func (m *Mirror) begin(ctx context.Context, name string, waiting func()) (_ context.Context, end func(), err error) {
	for {
		m.mu.Lock()
		other, busy := m.syncing[name]
		if !busy {
			work, cancel := context.WithCancelCause(ctx)
			done := make(chan struct{})
			m.syncing[name] = &underway{done: done, cancel: cancel}
			m.mu.Unlock()
			return work, func() {
				m.mu.Lock()
				defer m.mu.Unlock()
				delete(m.syncing, name)
				close(done)
				cancel(nil)
			}, nil
		}
		m.mu.Unlock()
		if waiting == nil {
			return nil, nil, fmt.Errorf("stream %s %w", name, ErrSyncing)
		}
		waiting()
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// update changes a stream's recorded state.
func (m *Mirror) update(name string, change func(*state)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return err
	}
	change(st)
	return writeState(m.store, st)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
