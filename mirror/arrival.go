package mirror

import (
	"slices"
	"strings"
	"time"

	"oxbow/cache"
)

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
