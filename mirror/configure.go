package mirror

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// ErrConfigured is wrapped by the refusal to change on the command line what the
// configuration file defines.
var ErrConfigured = errors.New("defined by the configuration")

// Configure records the streams of the configuration, and makes these names the ones
// that no command may define or drop. It is called by whoever owns the store when it
// starts, and at each reload with all of them. A stream that is not among them any
// more stays as one of the store.
//
// Where the store has a stream of that name, with an upstream in common, it is that
// one: its snapshots and what was accepted of upstream stay. With no upstream in
// common what was accepted is forgotten, or its dates would refuse the new one. The
// warnings say that, and which streams of the store are not served where they were
// (see [Mirror.Served]). The error is about the definitions that cannot be used; the
// others are.
func (m *Mirror) Configure(defs []Stream) (warnings []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.configured = map[string]bool{}
	var usable []Stream
	var failed []error
	for _, s := range defs {
		err := s.Validate()
		if err == nil {
			err = apart(s, usable)
		}
		m.configured[s.Name] = true
		if err != nil {
			failed = append(failed, err)
			continue
		}
		usable = append(usable, s)
		warning, err := m.configure(s)
		if err != nil {
			failed = append(failed, fmt.Errorf("cannot record stream %s: %w", s.Name, err))
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
	}
	all, err := Streams(m.store.Files())
	_, hidden := served(all, m.configured)
	return append(warnings, hidden...), errors.Join(append(failed, err)...)
}

// apart reports whether s can be defined beside others.
func apart(s Stream, others []Stream) error {
	for _, other := range others {
		if s.Name == other.Name {
			return fmt.Errorf("stream %s is defined twice", s.Name)
		}
		if p := sharedPath(s, other); p != "" {
			return fmt.Errorf("stream %s: stream %s is served under %s, and one stream's path cannot be part of another's", s.Name, other.Name, p)
		}
	}
	return nil
}

// configure records one stream of the configuration. The caller holds m.mu.
func (m *Mirror) configure(s Stream) (warning string, err error) {
	st, err := readState(m.store.Files(), s.Name)
	switch {
	case errors.Is(err, ErrNoStream):
		st = &state{}
	case err != nil:
		warning = fmt.Sprintf("stream %s: its state is made anew from the configuration: %v", s.Name, err)
		st = &state{}
	case s.same(st.Stream):
		return "", nil
	case !related(st.Stream, s):
		warning = fmt.Sprintf("stream %s: by the configuration its upstream is %s; that of the store was %s, of which the snapshots stay and the dates are forgotten",
			s.Name, shownAll(s.Upstream), shownAll(st.Stream.Upstream))
		st.Accepted = accepted{}
	}
	st.Stream = s
	return warning, writeState(m.store, st)
}

// related reports whether two definitions have an upstream in common, whatever the
// passwords, or one of them has none.
func related(a, b Stream) bool {
	if len(a.Upstream) == 0 || len(b.Upstream) == 0 {
		return true // it came from a tree, and its dates are those of whoever signed that
	}
	return slices.ContainsFunc(a.Upstream, func(u string) bool {
		return slices.ContainsFunc(b.Upstream, func(v string) bool { return sameUpstream(u, v) })
	})
}

func sameUpstream(a, b string) bool {
	u, err := url.Parse(a)
	v, err2 := url.Parse(b)
	if err != nil || err2 != nil {
		return a == b
	}
	return strings.TrimRight(upstream.Display(u), "/") == strings.TrimRight(upstream.Display(v), "/")
}

// shownAll returns URLs for people.
func shownAll(urls []string) string {
	all := make([]string, len(urls))
	for i, u := range urls {
		all[i] = shown(u)
	}
	return strings.Join(all, " ")
}

// Served returns the streams to serve: those of the configuration first, then those
// that only the store has, without the paths that overlap one of the configuration's,
// and last those of the configuration that have nothing published yet: until then
// they take no path from another, as from the one whose name was changed. Of equal
// paths the first counts. The error is about streams that cannot be read.
func (m *Mirror) Served() ([]Stream, error) {
	all, err := Streams(m.store.Files())
	m.mu.Lock()
	configured := maps.Clone(m.configured)
	m.mu.Unlock()
	var now, later []Stream
	for _, s := range all {
		if _, err := m.store.Current(s.Name); configured[s.Name] && errors.Is(err, cache.ErrNoSnapshot) {
			later = append(later, s)
		} else {
			now = append(now, s)
		}
	}
	list, _ := served(now, configured)
	return append(list, later...), err
}

// served is Served for streams that are all published; the warnings say what it
// leaves out.
func served(all []Stream, configured map[string]bool) (list []Stream, warnings []string) {
	for _, s := range all {
		if configured[s.Name] {
			list = append(list, s)
		}
	}
	first := list
	for _, s := range all {
		if configured[s.Name] {
			continue
		}
		var free []string
		for _, p := range append([]string{s.Path}, s.Also...) {
			i := slices.IndexFunc(first, func(c Stream) bool { return sharedPath(c, Stream{Path: p}) != "" })
			if i < 0 {
				free = append(free, p)
				continue
			}
			warnings = append(warnings, fmt.Sprintf("stream %s of the configuration takes the path %s: stream %s of the store is not served there once that is published", first[i].Name, p, s.Name))
		}
		if len(free) > 0 {
			s.Path, s.Also = free[0], free[1:]
			list = append(list, s)
		}
	}
	return list, warnings
}
