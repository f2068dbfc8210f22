package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// Pull brings a file that a kept snapshot of the stream names into an ingest of its
// content, and commits it: from the stream's upstreams in order, as [upstream.Client.Fetch]
// does. A path that no snapshot names is never asked for.
//
// Errors are ErrOffline, cache.ErrMiss for such a path, and those of Fetch.
func (m *Mirror) Pull(ctx context.Context, stream, path string, in *cache.Ingest, o upstream.FetchOptions) (cache.Blob, error) {
	return m.pull(ctx, stream, path, in, o, cache.KindKnown, cache.KindItem)
}

// pull is Pull for what snapshots name as one of the kinds.
func (m *Mirror) pull(ctx context.Context, stream, path string, in *cache.Ingest, o upstream.FetchOptions, kinds ...cache.Kind) (cache.Blob, error) {
	s, err := m.Stream(stream)
	if err == nil {
		err = m.mayAsk(s)
	}
	if err == nil {
		err = m.names(stream, path, in.Size(), kinds)
	}
	if err != nil {
		return cache.Blob{}, fmt.Errorf("cannot pull %s: %w", path, err)
	}
	urls := make([]string, len(s.Upstream))
	for i, base := range s.Upstream {
		urls[i] = fileURL(base, streams.Path(path))
	}
	return m.puller(s).Fetch(ctx, urls, in, in.Size(), o)
}

// names returns cache.ErrMiss unless a kept snapshot of the stream names a file of that
// size under path. The current one may have another file there than the one that a
// client began to read.
func (m *Mirror) names(stream, path string, size int64, kinds []cache.Kind) error {
	kept, err := m.store.Snapshots(stream)
	if err != nil {
		return err
	}
	for _, snap := range kept {
		e, err := m.store.Lookup(stream, snap.ID, cache.Upstream, path)
		if err == nil && slices.Contains(kinds, e.Kind) && e.Size == size {
			return nil
		}
	}
	return fmt.Errorf("%w: no snapshot of stream %s names it with %d bytes", cache.ErrMiss, stream, size)
}

// A limitKey names the limit of what is pulled through of a stream, in bytes a second.
type limitKey struct {
	stream string
	limit  int64
}

// puller returns a client for one file. All of a stream share its limit, and none its
// connections: a file that somebody waits for must not wait for others.
func (m *Mirror) puller(s Stream) *upstream.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := limitKey{s.Name, s.Limit}
	if m.limits[key] == nil {
		m.limits[key] = upstream.NewLimit(s.Limit)
	}
	return m.client.Within(m.limits[key]).Trying(pullAttempts)
}

// pullAttempts bounds the tries at one upstream that bring nothing new: a client waits
// for the next one, or to hear that there is none.
const pullAttempts = 3

// ErrOffline: upstream must not be asked.
var ErrOffline = errors.New("offline: upstream is not asked")

// mayAsk returns ErrOffline, and why, for a stream whose upstream must not be asked.
func (m *Mirror) mayAsk(s Stream) error {
	switch {
	case m.offline:
		return fmt.Errorf("stream %s is %w, as --offline says", s.Name, ErrOffline)
	case s.Offline:
		return fmt.Errorf("stream %s is %w, as `offline: true` of the stream says", s.Name, ErrOffline)
	}
	return nil
}
