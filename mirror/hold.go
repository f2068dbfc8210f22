package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// A Held stream is left as it is by syncs and refreshes, since a rollback brought back older content.
type Held struct {
	Since time.Time `json:"since"`
	To    string    `json:"to"` // the snapshot whose content was asked for
}

// warning says that a stream is held, and how that ends.
func (h *Held) warning(stream string) string {
	return fmt.Sprintf("held since %s by a rollback to %.12s, and left as it is: `oxbow snapshot rollback %s --resume` has syncs go on",
		h.Since.UTC().Format(time.RFC3339), h.To, stream)
}

// ErrRolledBack ends a sync that a rollback came in between of. The stream is held; another sync is no use.
var ErrRolledBack = errors.New("interrupted: the stream is being rolled back, and held from now on")

// ErrNotHeld is returned by [Mirror.Resume] for a stream that syncs bring forward as ever.
var ErrNotHeld = errors.New("not held by a rollback")

// held is the result of a sync of a stream that is held; nil: it is not.
func (m *Mirror) held(name string) (*Result, error) {
	st, err := readState(m.store.Files(), name)
	if err != nil || st.Held == nil {
		return nil, err
	}
	pub, err := m.published(name)
	if err != nil {
		return nil, err
	}
	res := pub.result(name)
	res.Held, res.Warnings = true, []string{st.Held.warning(name)}
	return res, nil
}

// Resume has syncs of a stream go on that a rollback holds: the next one publishes what upstream has, whether that is new or not.
func (m *Mirror) Resume(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, err := readState(m.store.Files(), name)
	switch {
	case err != nil:
		return err
	case st.Held == nil:
		return fmt.Errorf("stream %s is %w", name, ErrNotHeld)
	}
	st.Held, st.Undo, st.Accepted.Whole = nil, nil, false
	return writeState(m.store, st)
}

// HoldBack has further syncs of a stream leave versions out that the filters match, beside those that its definition holds back. A
// hold that is there already is none further.
func (m *Mirror) HoldBack(name, filters string) error {
	return m.changeHold(name, filters, func(st *state, hold string) error {
		if st.Stream.all() {
			return errHoldAll
		}
		if !slices.Contains(st.Hold, hold) {
			st.Hold = append(st.Hold, hold)
		}
		return nil
	})
}

// LetGo ends a hold that HoldBack made.
func (m *Mirror) LetGo(name, filters string) error {
	return m.changeHold(name, filters, func(st *state, hold string) error {
		i := slices.Index(st.Hold, hold)
		switch {
		case i < 0 && slices.Contains(st.Stream.Hold, hold):
			return fmt.Errorf("the hold %q is %w: take it out of the configuration file", hold, ErrConfigured)
		case i < 0 && len(st.Hold) == 0:
			return errors.New("nothing is held back on the command line")
		case i < 0:
			return fmt.Errorf("there is no hold %q; there is %q", hold, st.Hold)
		}
		st.Hold = slices.Delete(st.Hold, i, i+1)
		return nil
	})
}

// changeHold changes what is held back of a stream on the command line. The filters are in their one form then.
func (m *Mirror) changeHold(name, filters string, change func(st *state, hold string) error) error {
	sel, err := streams.ParseSelection(filters)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st, err := readState(m.store.Files(), name)
	if err != nil {
		return err
	}
	if err := change(st, sel.String()); err != nil {
		return fmt.Errorf("stream %s: %w", name, err)
	}
	return writeState(m.store, st)
}

// heldIn returns the versions of a list that a hold matches.
func heldIn(l *streams.Products, hold streams.Selection) (held []versionID) {
	without := l.Choose(streams.Choice{Hold: streams.Selections{hold}})
	for _, prod := range l.Products {
		for _, v := range prod.Versions {
			if len(v.Items) > 0 && without.Version(prod.Name, v.Name) == nil {
				held = append(held, versionID{l.ContentID, prod.Name, v.Name})
			}
		}
	}
	return held
}

// IdleHolds returns a warning for each hold that matches no version which the current snapshot of a stream has, or which upstream
// listed when that was published: a slip of the pen, unless such a version is still to come. Of a stream without a snapshot nothing
// is known, and nothing is warned of. It needs no lock.
func IdleHolds(f *cache.Files, stream string, holds []string) (warnings []string, err error) {
	if len(holds) == 0 {
		return nil, nil
	}
	snap, err := f.Current(stream)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	man, err := f.Manifest(stream, snap.ID)
	if err != nil {
		return nil, err
	}
	parsed, err := parseSelections(holds)
	if err != nil {
		return nil, err
	}
	idle := slices.Clone(parsed)
	for _, e := range man.Entries {
		if len(idle) == 0 {
			return nil, nil
		}
		if e.Kind != cache.KindSite && e.Kind != cache.KindUpstream && e.Kind != cache.KindEvidence || strings.HasSuffix(e.Path, ".gpg") {
			continue
		}
		l, err := readList(f, e)
		if err != nil {
			return nil, err
		}
		if l != nil {
			idle = slices.DeleteFunc(idle, func(sel streams.Selection) bool { return len(heldIn(l, sel)) > 0 })
		}
	}
	for _, sel := range idle {
		warnings = append(warnings, fmt.Sprintf("the hold %q matches no version that is published, nor one that upstream listed then: it counts once there is one", sel))
	}
	return warnings, nil
}
