package mirror

import (
	"context"
	"errors"
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

// PlanDrop says what Drop would do, and whether it is refused because of the
// configuration.
func (m *Mirror) PlanDrop(ctx context.Context, name string) (*Dropped, error) {
	names, err := m.store.Files().Streams()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, &NoStreamError{name}
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
	d, err := m.PlanDrop(ctx, name)
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

// DroppedProduct says what goes with a product.
type DroppedProduct struct {
	Stream   string   `json:"stream"`
	Product  string   `json:"product"`
	Versions []string `json:"versions"`
}

// ErrNoProduct: a stream publishes no product of that name.
var ErrNoProduct = errors.New("no such product is published")

// PlanDropProduct says what DropProduct would have go.
func (m *Mirror) PlanDropProduct(_ context.Context, name, product string) (*DroppedProduct, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return nil, err
	}
	if st.Stream.all() {
		return nil, fmt.Errorf("cannot drop %s: stream %s passes on all that upstream lists, and nothing else", product, name)
	}
	snap, err := m.store.Current(name)
	if err != nil {
		return nil, err
	}
	man, err := m.store.Manifest(name, snap.ID)
	if err != nil {
		return nil, err
	}
	lists, err := ReadLists(m.store.Files(), man)
	if err != nil {
		return nil, err
	}
	d := &DroppedProduct{Stream: name, Product: product}
	for _, l := range lists {
		for _, p := range l.Products {
			if p.Name == product {
				d.Versions = append(d.Versions, p.Versions...)
			}
		}
	}
	if len(d.Versions) == 0 {
		return nil, fmt.Errorf("cannot drop %q of stream %s: %w", product, name, ErrNoProduct)
	}
	return d, nil
}

// DropProduct has the next publication of a stream do without a product that upstream no longer has, which would stay for good
// otherwise. One that upstream has is not dropped: the sync warns of that.
func (m *Mirror) DropProduct(ctx context.Context, name, product string) (*DroppedProduct, error) {
	d, err := m.PlanDropProduct(ctx, name, product)
	if err != nil {
		return nil, err
	}
	return d, m.update(name, func(st *state) {
		if !slices.Contains(st.Dropped, product) {
			st.Dropped = append(st.Dropped, product)
		}
	})
}
