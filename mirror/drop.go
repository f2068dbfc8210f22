package mirror

import (
	"context"
	"fmt"
	"slices"
)

// Dropped says what goes, or went, with a stream.
type Dropped struct {
	Stream    string   `json:"stream"`
	Snapshots int      `json:"snapshots"`
	Files     int      `json:"files"`            // that no other stream names: the next sweep removes them
	Bytes     int64    `json:"bytes"`            // of these
	Pinned    []string `json:"pinned,omitempty"` // snapshots that keep the stream from being dropped
}

// DropPlan says what Drop would do, and whether it is refused because of the
// configuration.
func (m *Mirror) DropPlan(ctx context.Context, name string) (*Dropped, error) {
	names, err := m.store.Files().Streams()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("%w: %s", ErrNoStream, name)
	}
	m.mu.Lock()
	configured := m.configured[name]
	m.mu.Unlock()
	if configured {
		return nil, fmt.Errorf("cannot drop stream %s: it is %w; take it out of the configuration file first", name, ErrConfigured)
	}
	plan, err := m.store.Files().PlanDrop(ctx, name)
	if err != nil {
		return nil, err
	}
	d := &Dropped{Stream: name, Snapshots: plan.Snapshots, Files: plan.Files, Bytes: plan.Bytes}
	for _, id := range plan.Pinned {
		d.Pinned = append(d.Pinned, id.String())
	}
	return d, nil
}

// Drop removes a stream: its snapshots, then its definition and state. The error is
// ErrConfigured, ErrSyncing or cache.ErrPinned where it is refused. After any other
// error, and after a crash, the same call finishes what is left.
func (m *Mirror) Drop(ctx context.Context, name string) (*Dropped, error) {
	_, end, err := m.begin(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	defer end()
	d, err := m.DropPlan(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := m.store.Drop(ctx, name); err != nil {
		return nil, err
	}
	return d, m.forget(name)
}

// forget removes the state of a stream, unless it came into the configuration
// meanwhile.
func (m *Mirror) forget(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.configured[name] {
		return nil
	}
	return m.store.RemoveState(name)
}
