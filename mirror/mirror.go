package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// Options configures a [Mirror].
type Options struct {
	// Store holds everything; it must be open and outlive the Mirror.
	Store *cache.Store

	// Client fetches from upstream. If nil, one with the default options is used.
	Client *Client

	// Now is the clock. If nil, [time.Now] is used.
	Now func() time.Time

	// Log receives warnings and a line for each sync. If nil, nothing is logged.
	Log *slog.Logger

	// Settle bounds the time for which metadata that contradicts itself is
	// fetched again, since upstream may be publishing at that moment. If zero,
	// it is a minute.
	Settle time.Duration
}

// A Mirror keeps the streams of one store like their upstreams.
// Its methods may be called from several goroutines.
type Mirror struct {
	store  *cache.Store
	client *Client
	now    func() time.Time
	log    *slog.Logger
	settle time.Duration

	mu  sync.Mutex // guards key, syncing and every read-modify-write of a state
	key *streams.SigningKey
	// syncing holds the streams with a sync under way: one at a time each.
	syncing map[string]bool
}

// New returns a Mirror of o.Store.
func New(o Options) *Mirror {
	m := &Mirror{store: o.Store, client: o.Client, now: o.Now, log: o.Log, settle: o.Settle, syncing: map[string]bool{}}
	if m.client == nil {
		m.client = NewClient(nil)
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.settle == 0 {
		m.settle = time.Minute
	}
	return m
}

// Define records s. A stream of that name that has another upstream is not
// replaced, and no two streams may share a URL path.
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

// stateFor returns the state that s may become the definition of.
func (m *Mirror) stateFor(s Stream) (*state, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	all, err := Streams(m.store.Files())
	if err != nil {
		return nil, err
	}
	st := &state{}
	for _, other := range all {
		if other.Name != s.Name {
			if p := sharedPath(s, other); p != "" {
				return nil, fmt.Errorf("stream %s is served under %s already; give another path with --path", other.Name, p)
			}
			continue
		}
		if !slices.Equal(other.Upstream, s.Upstream) {
			return nil, fmt.Errorf("stream %s exists with upstream %s; give another name with --name", s.Name, strings.Join(other.Upstream, ", "))
		}
		if st, err = readState(m.store.Files(), s.Name); err != nil {
			return nil, err
		}
	}
	return st, nil
}

func sharedPath(a, b Stream) string {
	mine := append([]string{a.Path}, a.Also...)
	for _, p := range append([]string{b.Path}, b.Also...) {
		if slices.Contains(mine, p) {
			return p
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

// begin marks the stream as being synced until the returned function is called.
func (m *Mirror) begin(name string) (end func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.syncing[name] {
		return nil, fmt.Errorf("stream %s is being synced already", name)
	}
	m.syncing[name] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.syncing, name)
	}, nil
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
