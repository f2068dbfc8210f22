package mirror

import (
	"context"
	"errors"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// refreshAge is how old what was read of upstream's metadata may be before a request
// for a path that it does not name has it read anew.
const refreshAge = time.Minute

// errFresh: what was read of upstream's metadata will do, or clients do not see it.
var errFresh = errors.New("nothing to refresh")

// Refresh brings the published metadata of a stream that advertises all of upstream's
// up to date, and fetches no files. It returns nil once that was tried, by this call or
// by another one that it waited for; else an error, such as ErrOffline: the stream is
// another one, or upstream was asked within the last minute, and is not asked again.
//
// It tries once: a client waits for it, and the next sync is more patient, and has the custody that upstream may offer.
func (m *Mirror) Refresh(ctx context.Context, stream string) error {
	if !m.stale(stream) {
		return errFresh
	}
	st, err := readState(m.store.Files(), stream)
	if err == nil {
		err = m.mayAsk(st.Stream)
	}
	if err == nil && (!st.Stream.all() || st.Held != nil) {
		err = errFresh
	}
	if err != nil {
		m.asked(stream) // the next requests need not find that out again
		return err
	}
	ctx, end, err := m.begin(ctx, stream, func() {})
	if err != nil {
		return err
	}
	defer end()
	if !m.stale(stream) {
		return nil // it was read meanwhile
	}
	began := m.now()
	res, err := m.refresh(ctx, stream)
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx) // the client went away, and the next one tries; or a rollback came
	}
	m.asked(stream)
	if err != nil {
		m.log.Warn("upstream's metadata cannot be refreshed: what was read before is served", "stream", stream, "reason", err)
		return err
	}
	if res.Changed {
		e := newEvent(stream, m.now(), res, nil)
		e.Duration, e.Refresh = e.Time.Sub(began), true
		m.observe(e)
	}
	return nil
}

// refresh publishes what upstream's metadata says now.
func (m *Mirror) refresh(ctx context.Context, stream string) (*Result, error) {
	st, err := readState(m.store.Files(), stream)
	if err != nil {
		return nil, err
	}
	if st.Held != nil { // since a moment ago
		return nil, errFresh
	}
	reader, err := m.reader(st, SyncOptions{})
	if err != nil {
		return nil, err
	}
	reader.client, reader.brief = reader.client.Trying(1), true
	return m.follow(ctx, st, reader, SyncOptions{}, (*run).show)
}

// stale reports whether upstream's metadata may be asked for on behalf of a client. It
// may not while a sync that has read it fetches files, which takes hours.
func (m *Mirror) stale(stream string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.syncing[stream]; u != nil && u.fetching {
		return false
	}
	age := m.now().Sub(m.lastAsked[stream])
	return age < 0 || age >= refreshAge // the clock may have been set back
}

// asked notes that upstream was asked for a stream's metadata.
func (m *Mirror) asked(stream string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastAsked[stream] = m.now()
}

// fetches notes that the sync of a stream has read the metadata and goes on to files.
func (m *Mirror) fetches(stream string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.syncing[stream]; u != nil {
		u.fetching = true
	}
}

// View returns which documents clients of a stream are shown: those that its current
// snapshot has, also where the stream's definition has changed since.
func (m *Mirror) View(s Stream) cache.View {
	_, err := m.store.Current(s.Name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		if s.all() {
			return cache.Upstream
		}
		return cache.Published
	}
	found, err := m.store.Find(s.Name, cache.Published, string(streams.UnsignedIndex))
	if errors.Is(err, cache.ErrMiss) || err == nil && !found.Current {
		return cache.Upstream
	}
	return cache.Published
}
