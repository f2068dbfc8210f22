package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
)

// An UnfinishedBundle is one of which an import took something in, and published nothing yet.
type UnfinishedBundle struct {
	Bundle    string            `json:"bundle"`
	Site      string            `json:"site,omitempty"`      // fingerprint of the key that signed it; empty, as what follows: an older program did not note it
	Created   time.Time         `json:"created,omitzero"`    // of its newest snapshot
	Snapshots map[string]string `json:"snapshots,omitempty"` // that it brings, by stream
	Since     time.Time         `json:"since"`               // when the first of it came
	Last      time.Time         `json:"last"`                // when something of it came last
	KeptUntil time.Time         `json:"kept_until"`          // unless more of it comes
	Volumes   int               `json:"volumes,omitempty"`
	Missing   []MissingVolume   `json:"missing,omitempty"` // none: all of it is here
}

// Brings reports whether the bundle has a snapshot of a stream.
func (u *UnfinishedBundle) Brings(stream string) bool { return u.Snapshots[stream] != "" }

// MissingBytes returns how many bytes of files are to come.
func (u *UnfinishedBundle) MissingBytes() (n int64) {
	for _, m := range u.Missing {
		n += m.Bytes
	}
	return n
}

// UnfinishedBundles returns the bundles that are not published yet, the oldest first: what is missing of each is what its files are
// found to lack now. It reads files only, and so needs no lock.
func UnfinishedBundles(f *cache.Files) ([]*UnfinishedBundle, error) {
	expected, err := f.Expected()
	if err != nil || len(expected) == 0 {
		return nil, err
	}
	names, err := f.Streams()
	if err != nil {
		return nil, err
	}
	var all []*UnfinishedBundle
	for _, e := range expected {
		if slices.ContainsFunc(names, func(stream string) bool { return e.ID == cache.Sum(aboutTree(stream)) }) {
			continue
		}
		u, err := unfinished(f, e)
		if err != nil {
			return nil, err
		}
		if u != nil {
			all = append(all, u)
		}
	}
	return all, nil
}

// unfinished returns the bundle of which something is expected; nil: it is of a tree, or the note outlived the bundle by a crash.
func unfinished(f *cache.Files, e cache.Expected) (*UnfinishedBundle, error) {
	u := &UnfinishedBundle{Bundle: e.ID.String(), Since: e.Since.UTC(), Last: e.Last.UTC(), KeptUntil: e.Until.UTC()}
	if e.About == nil {
		return u, nil // an older program noted it
	}
	c, err := bundle.Parse(e.About)
	if err != nil {
		return nil, nil
	}
	u.Site, u.Created, u.Volumes, u.Snapshots = c.Site, c.Created, c.Volumes, map[string]string{}
	u.Missing = missingOf(c, f.Holds)
	for _, s := range c.Snapshots {
		u.Snapshots[s.Stream] = s.ID.String()
	}
	brought, err := broughtAll(f, c)
	if err != nil || brought && len(u.Missing) == 0 {
		return nil, err
	}
	return u, nil
}

// missingOf returns the volumes of a bundle that have what is not there, by their number.
func missingOf(c *bundle.Contents, there func(d cache.Digest, size int64) bool) (all []MissingVolume) {
	for _, m := range c.Members {
		if m.Kind() != bundle.KindFile || there(m.Digest, m.Size) {
			continue
		}
		if len(all) == 0 || all[len(all)-1].Volume != m.Volume { // volume by volume
			all = append(all, MissingVolume{Volume: m.Volume})
		}
		all[len(all)-1].Files++
		all[len(all)-1].Bytes += m.Size
	}
	return all
}

// broughtAll reports whether all that a bundle brings is kept here.
func broughtAll(f *cache.Files, c *bundle.Contents) (bool, error) {
	for _, s := range c.Snapshots {
		_, err := f.Resolve(s.Stream, s.ID.String())
		if errors.Is(err, cache.ErrNoSnapshot) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

var (
	// ErrNoBundle: no bundle is unfinished that is called so.
	ErrNoBundle = errors.New("no unfinished bundle has that id")

	// ErrImporting: volumes of the bundle are being read. Wait for the end of that, or end it.
	ErrImporting = errors.New("it is being imported")
)

// AbandonBundle gives up a bundle that is not published yet, by its id or the beginning of that: the next sweep removes what came of it
// and is needed for nothing else. The error is ErrNoBundle or ErrImporting where it is refused.
func (m *Mirror) AbandonBundle(prefix string) (*UnfinishedBundle, error) {
	all, err := UnfinishedBundles(m.store.Files())
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(u *UnfinishedBundle) bool { return prefix == "" || !strings.HasPrefix(u.Bundle, prefix) })
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("%w: %q", ErrNoBundle, prefix)
	case len(all) > 1:
		return nil, fmt.Errorf("%q begins the ids of %d bundles, among them %.12s and %.12s: give more digits", prefix, len(all), all[0].Bundle, all[1].Bundle)
	}
	id, err := cache.ParseDigest(all[0].Bundle)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.importing[id] > 0 {
		return nil, fmt.Errorf("cannot give bundle %.12s up: %w", id, ErrImporting)
	}
	return all[0], m.store.Unexpect(id)
}
