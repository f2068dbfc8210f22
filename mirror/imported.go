package mirror

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
)

// Imported says how a stream came by bundles.
type Imported struct {
	Arrival           // of the newest that came; of no snapshot: the first is being published
	Site    string    `json:"site"`    // fingerprint of the key that signs its bundles
	Created time.Time `json:"created"` // when the newest was made
	Bundle  string    `json:"bundle"`  // by which it came
	Signers []byte    `json:"signers"` // the public keys that sign what its clients read
	Earlier []Arrival `json:"earlier,omitempty"`

	// Publishing is what is being published, or was as a crash came, as long as nothing came before. Older programs did not note it.
	Publishing string `json:"publishing,omitempty"`
}

// An Arrival says how a snapshot came by a bundle.
type Arrival struct {
	Snapshot  string    `json:"snapshot"`
	Time      time.Time `json:"time"`                // when
	Handovers []string  `json:"handovers,omitempty"` // signed by the sites that handed it over, the first first
}

// of reports whether the arrival is that of a snapshot.
func (a Arrival) of(s cache.Snapshot) bool { return a.Snapshot == s.ID.String() }

// before reports whether a rollback published the content anew that came so.
func (a Arrival) before(s cache.Snapshot) bool {
	digits, ok := strings.CutPrefix(s.Reason, rollbackReason)
	return ok && digits != "" && strings.HasPrefix(a.Snapshot, digits)
}

// arrival returns how the content of a snapshot came by a bundle; nil: it did not.
func (rec *Imported) arrival(s cache.Snapshot) *Arrival {
	all := rec.arrivals()
	i := slices.IndexFunc(all, func(a Arrival) bool { return a.of(s) })
	if i < 0 {
		i = slices.IndexFunc(all, func(a Arrival) bool { return a.before(s) })
	}
	if i < 0 {
		return nil
	}
	return &all[i]
}

// arrivals returns the newest and those before it.
func (rec *Imported) arrivals() []Arrival {
	if rec == nil || rec.Snapshot == "" {
		return nil
	}
	return append([]Arrival{rec.Arrival}, rec.Earlier...)
}

// earlier returns, as something newer came, the arrivals of what is kept.
func (rec *Imported) earlier(newer string, kept []cache.Snapshot) []Arrival {
	return slices.DeleteFunc(rec.arrivals(), func(a Arrival) bool {
		return a.Snapshot == newer || !slices.ContainsFunc(kept, func(s cache.Snapshot) bool { return a.of(s) || a.before(s) })
	})
}

// comes reports whether a stream comes by bundles: whether a snapshot was published that came so.
func (st *state) comes(f *cache.Files) bool {
	if st.Imported == nil || st.Imported.Snapshot != "" {
		return st.Imported != nil
	}
	kept, err := f.Snapshots(st.Stream.Name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		return false
	}
	return err != nil || st.Imported.Publishing == "" || slices.ContainsFunc(kept, func(s cache.Snapshot) bool { return s.ID.String() == st.Imported.Publishing })
}

// ComesByBundles reports whether the snapshots of a stream come by bundles.
func (m *Mirror) ComesByBundles(name string) bool {
	st, err := readState(m.store.Files(), name)
	return err == nil && st.comes(m.store.Files())
}

// forgetComing takes back what was noted of streams before their first snapshot was published that was to come by a bundle, and did
// not: they are synced as before, or come by other bundles.
func (m *Mirror) forgetComing() {
	all, _ := m.store.Files().Streams()
	for _, name := range all {
		st, err := readState(m.store.Files(), name)
		if err != nil || st.Imported == nil || st.comes(m.store.Files()) {
			continue
		}
		if err := m.update(name, func(st *state) { st.Imported = nil }); err != nil {
			m.log.Error("a stream is noted as one that comes by bundles, and none has come", "stream", name, "reason", err)
		}
	}
}

// signers returns the keys that sign what came, and those of what comes: older snapshots are still kept.
func (rec *Imported) signers(new []byte) []byte {
	switch {
	case rec == nil:
		return new
	case bytes.Contains(rec.Signers, new):
		return rec.Signers
	}
	return slices.Concat(rec.Signers, new)
}
