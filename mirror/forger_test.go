package mirror_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A forger makes snapshots of a site that no correct oxbow would make, signed by the site's key.
type forger struct {
	*site
	key    *streams.SigningKey
	honest *cache.Manifest
}

func newForger(t *testing.T, tree *streamstest.Tree) *forger {
	t.Helper()
	near := newSite(t, tree)
	near.mustSync()
	return forgerOf(t, near)
}

// forgerOf returns the forger of a site that has synced.
func forgerOf(t *testing.T, near *site) *forger {
	t.Helper()
	honest, err := near.store.Manifest(stable, current(t, near.store, stable))
	if err != nil {
		t.Fatal(err)
	}
	return &forger{near, keyOf(t, near.m), honest}
}

func (f *forger) put(data []byte) cache.Digest {
	f.t.Helper()
	d, err := f.store.Put(f.t.Context(), data)
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func (f *forger) signed(text []byte) []byte {
	f.t.Helper()
	doc, err := f.key.Clearsign(text, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	return doc
}

// apart is a signature of text.
func (f *forger) apart(text []byte) []byte {
	f.t.Helper()
	sig, err := f.key.Detach(text, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	return sig
}

// publish publishes entries as the next snapshot.
func (f *forger) publish(reason string, entries []cache.Entry) {
	f.t.Helper()
	man := &cache.Manifest{Stream: stable, Parent: current(f.t, f.store, stable), Created: time.Now().UTC().Truncate(time.Second), Reason: reason, Entries: entries}
	man.Sort()
	if err := f.store.Flush(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.store.Publish(f.t.Context(), man); err != nil {
		f.t.Fatalf("%s: %v", reason, err)
	}
}

// changed returns the honest entries with documents of the site's changed: texts as all their forms say them, signed anew.
func (f *forger) changed(change func(text []byte) []byte) []cache.Entry {
	f.t.Helper()
	var entries []cache.Entry
	plain := map[string][]byte{}
	for _, e := range f.honest.Entries {
		if e.Kind == cache.KindSite && strings.HasSuffix(e.Path, ".json") {
			plain[e.Path] = change(readPath(f.t, f.store, stable, e.Path))
		}
	}
	for _, e := range f.honest.Entries {
		if e.Kind == cache.KindSite {
			doc := plain[e.Path]
			if sig, ok := strings.CutSuffix(e.Path, ".gpg"); ok {
				doc = f.apart(plain[sig])
			} else if doc == nil {
				text, err := streams.ClearText(readPath(f.t, f.store, stable, e.Path))
				if err != nil {
					f.t.Fatal(err)
				}
				doc = f.signed(change(text))
			}
			e.Digest, e.Size = f.put(doc), int64(len(doc))
		}
		entries = append(entries, e)
	}
	return entries
}

// with returns the honest entries, each as change returns it; one without a path is left out.
func (f *forger) with(change func(e cache.Entry) cache.Entry, more ...cache.Entry) []cache.Entry {
	var entries []cache.Entry
	for _, e := range f.honest.Entries {
		if e = change(e); e.Path != "" {
			entries = append(entries, e)
		}
	}
	return append(entries, more...)
}

// replaced puts other bytes at a path of a kind.
func (f *forger) replaced(kind cache.Kind, path string, data []byte) []cache.Entry {
	return f.with(func(e cache.Entry) cache.Entry {
		if e.Kind == kind && e.Path == path {
			e.Digest, e.Size = f.put(data), int64(len(data))
		}
		return e
	})
}

// without leaves a path of a kind out.
func (f *forger) without(kind cache.Kind, path string) []cache.Entry {
	return f.with(func(e cache.Entry) cache.Entry {
		if e.Kind == kind && e.Path == path {
			e.Path = ""
		}
		return e
	})
}

// item returns an item of the honest snapshot.
func (f *forger) item() cache.Entry {
	i := slices.IndexFunc(f.honest.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindItem })
	return f.honest.Entries[i]
}
