package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// newAllSite makes a site that advertises all of tree, and has beforehand what is
// selected.
func newAllSite(t *testing.T, tree *streamstest.Tree, selected ...string) *site {
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Advertise, st.Select = mirror.AdvertiseAll, selected })
	return s
}

// kinds returns what the current snapshot says of each path.
func (s *site) kinds() map[string]cache.Kind {
	s.t.Helper()
	snap, err := s.store.Current(stable)
	if err != nil {
		s.t.Fatal(err)
	}
	man, err := s.store.Manifest(stable, snap.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string]cache.Kind{}
	for _, e := range man.Entries {
		all[e.Path] = e.Kind
	}
	return all
}

// verbatim fails the test unless upstream's documents are served byte for byte, and
// nothing else is but the files that they name.
func (s *site) verbatim(tree *streamstest.Tree) {
	s.t.Helper()
	want := map[string]bool{}
	for path, doc := range tree.Render().Documents() {
		want[path] = true
		found, err := s.store.Find(stable, cache.Upstream, path)
		if err != nil || !found.Current {
			s.t.Errorf("%s: %+v, %v", path, found, err)
			continue
		}
		got, err := s.store.Files().ReadFile(found.Digest, 64<<20)
		if err != nil || !bytes.Equal(got, doc) {
			s.t.Errorf("%s is not upstream's (%v)", path, err)
		}
	}
	for path, file := range tree.Files() {
		want[path] = true
		found, err := s.store.Find(stable, cache.Upstream, path)
		if err != nil || !found.Current || found.Size != int64(len(file.Bytes())) {
			s.t.Errorf("%s: %+v, %v", path, found, err)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(s.kinds()))); diff != "" {
		s.t.Errorf("paths (-upstream +site):\n%s", diff)
	}
}

// Where all of upstream's is advertised, its documents are served byte for byte, the
// unsigned family included; every file is known by digest and size, and none fetched. A
// sync that finds nothing new asks one conditional question and writes nothing.
func TestAdvertiseAll(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{Notifications: true})
	s := newAllSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Profile = streams.Legacy }) // which reads notifications
	res, err := s.sync()
	if err != nil || len(res.Warnings) > 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if !res.Changed || res.Fetched.Files != 0 || res.Known != len(tree.Files()) {
		t.Errorf("the first sync: %+v", res)
	}
	s.verbatim(tree)
	for path := range tree.Files() {
		if got := s.kinds()[path]; got != cache.KindKnown {
			t.Errorf("%s is %s, want %s", path, got, cache.KindKnown)
		}
	}
	if got := s.m.View(s.stream); got != cache.Upstream {
		t.Errorf("view %v", got)
	}
	s.upstream.Reset()
	before := s.files()
	again, err := s.sync()
	if err != nil || again.Changed || again.Snapshot != res.Snapshot || again.Known != res.Known {
		t.Errorf("the second sync: %+v, %v", again, err)
	}
	if requests := s.upstream.Requests(); len(requests) != 1 || s.upstream.TotalBytes() != 0 {
		t.Errorf("requests of the second sync: %+v", requests)
	}
	if diff := cmp.Diff(before, s.files()); diff != "" {
		t.Errorf("files of the store (-before +after):\n%s", diff)
	}
}

// What is selected is here beforehand, with the boot loaders; all else is known, on the
// next day, too, when the files of the day before are still found.
func TestAdvertiseAllSelected(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newAllSite(t, tree, "release=noble")
	check := func(serial string) {
		t.Helper()
		res, err := s.sync()
		if err != nil || len(res.LeftOut) > 0 || len(res.Warnings) > 0 || !res.Changed {
			t.Fatalf("%+v, %v", res, err)
		}
		s.verbatim(tree)
		for path, want := range map[string]cache.Kind{
			"noble/amd64/" + serial + "/squashfs": cache.KindItem, "jammy/amd64/" + serial + "/squashfs": cache.KindKnown,
		} {
			if got := s.kinds()[path]; got != want {
				t.Errorf("%s is %s, want %s", path, got, want)
			}
		}
	}
	check("20250718")
	tree = tree.Clone()
	tree.AddDay()
	tree.Trim(2)
	s.upstream.Publish(tree)
	check("20250719")
	if found, err := s.store.Find(stable, cache.Upstream, "jammy/amd64/20250717/squashfs"); err != nil || found.Current {
		t.Errorf("a file of the day before: %+v, %v", found, err)
	}
}

// A file that is selected and cannot be had is known, and had by another sync.
func TestAdvertiseAllPartial(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	const path = "noble/amd64/20250718/squashfs"
	tree.Break(path, streamstest.Flipped)
	s := newAllSite(t, tree, "release=noble")
	res, err := s.sync()
	if err != nil || len(res.LeftOut) == 0 || s.kinds()[path] != cache.KindKnown {
		t.Fatalf("%+v, %v, %s", res, err, s.kinds()[path])
	}
	s.verbatim(tree)
	tree.Break(path, streamstest.Whole)
	s.upstream.Publish(tree)
	res, err = s.sync()
	if err != nil || len(res.LeftOut) > 0 || s.kinds()[path] != cache.KindItem {
		t.Errorf("%+v, %v, %s", res, err, s.kinds()[path])
	}
}

// An unsigned family that does not say what the signed one says is not published, as a
// whole, and read again by the next sync.
func TestAdvertiseAllFamily(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	other := tree.Clone()
	other.AddDay()
	index := other.Render().Document("streams/v1/index.json")
	tests := []struct {
		summary string
		fault   func(*http.Request) streamstest.Fault
		warning string // "": none
	}{
		{"another index", streamstest.At("/index.json", streamstest.Fault{Body: index}), "is not what is signed"},
		{"a key that is there twice", streamstest.At("/index.json", streamstest.Fault{Body: []byte(`{"index":{},"index":{}}`)}), "is not what is signed"},
		{"no index", streamstest.At("/index.json", streamstest.Fault{Status: http.StatusNotFound}), ""},
		{"a list is gone", streamstest.At(":download.json", streamstest.Fault{Status: http.StatusNotFound}), "404"},
		{"a signature of another text", streamstest.At("/index.json.gpg", streamstest.Fault{Body: other.Render().Document("streams/v1/index.json.gpg")}), "does not belong to it"},
	}
	for _, test := range tests {
		t.Run(test.summary, func(t *testing.T) {
			s := newAllSite(t, tree)
			s.upstream.SetFault(test.fault)
			res, err := s.sync()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(res.Warnings, "\n"); (test.warning == "") != (got == "") || !strings.Contains(got, test.warning) {
				t.Errorf("warnings %q, want %q", got, test.warning)
			}
			for path, kind := range s.kinds() {
				if kind == cache.KindUpstream && !strings.HasSuffix(path, ".sjson") {
					t.Errorf("%s is published", path)
				}
			}
			s.upstream.SetFault(nil)
			if res, err = s.sync(); err != nil || test.warning != "" && !res.Changed {
				t.Errorf("the next sync: %+v, %v", res, err)
			}
			if test.warning != "" {
				s.verbatim(tree)
			}
		})
	}
}

// A stream that is to be advertised in another way is served as it was until a sync
// has published it so.
func TestAdvertiseChanged(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	for _, step := range []struct {
		advertise     mirror.Advertise
		before, after cache.View
	}{
		{mirror.AdvertiseAll, cache.Upstream, cache.Upstream},
		{mirror.AdvertiseSelected, cache.Upstream, cache.Published},
		{mirror.AdvertiseAll, cache.Published, cache.Upstream},
	} {
		s.redefine(func(st *mirror.Stream) { st.Advertise = step.advertise })
		if got := s.m.View(s.stream); got != step.before {
			t.Errorf("to %s: view %v before the sync, want %v", step.advertise, got, step.before)
		}
		if _, err := s.sync(); err != nil {
			t.Fatal(err)
		}
		if got := s.m.View(s.stream); got != step.after {
			t.Errorf("to %s: view %v after the sync, want %v", step.advertise, got, step.after)
		}
	}
}

// The first sync shows what there is before it fetches what is selected.
func TestAdvertiseAllAtOnce(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newAllSite(t, tree, "release=noble")
	const path = "noble/amd64/20250718/squashfs"
	s.upstream.SetFault(streamstest.At(path, streamstest.Fault{Hang: true}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = s.m.Sync(ctx, stable, mirror.SyncOptions{}) // cut in the middle
	}()
	if err := s.upstream.Await(t.Context(), path, 1); err != nil {
		t.Fatal(err)
	}
	s.verbatim(tree)
	if err := s.m.Refresh(t.Context(), stable); err == nil {
		t.Error("a refresh in the middle of a sync that fetches")
	}
	cancel()
	<-ended
	s.upstream.SetFault(nil)
	if _, err := s.sync(); err != nil || s.kinds()[path] != cache.KindItem {
		t.Errorf("the next sync: %v, %s", err, s.kinds()[path])
	}
}

// pull pulls a path through, and returns what came.
func (s *site) pull(path string) ([]byte, error) {
	s.t.Helper()
	want := cache.Want{SHA256: cache.Digest{1}, Size: 1}
	if found, err := s.store.Find(stable, cache.Upstream, path); err == nil {
		want.Size = found.Size
		if found.Kind == cache.KindKnown {
			want.SHA256 = found.Digest
		}
	}
	in, err := s.store.BeginPull(s.t.Context(), want)
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.Close()
	blob, err := s.m.Pull(s.t.Context(), stable, path, in, upstream.FetchOptions{})
	if err != nil {
		return nil, err
	}
	if err := s.store.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	data, err := s.store.Files().ReadFile(blob.Digest, 64<<20)
	if err != nil {
		s.t.Fatal(err)
	}
	return data, nil
}

// What a snapshot knows is pulled from the upstreams in order, whatever the first one
// has made of it; what no snapshot names is never asked for.
func TestPull(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	const path = "jammy/amd64/20250718/squashfs"
	s := newAllSite(t, tree)
	spare := streamstest.NewUpstream(tree)
	server := httptest.NewServer(spare)
	defer server.Close()
	if _, err := s.sync(); err != nil {
		t.Fatal(err)
	}
	_, err := s.m.Configure([]mirror.Stream{func() mirror.Stream {
		s.stream.Upstream = append(s.stream.Upstream, server.URL)
		return s.stream
	}()})
	if err != nil {
		t.Fatal(err)
	}
	s.upstream.SetFault(streamstest.At(path, streamstest.Fault{FlipAt: 5}))
	data, err := s.pull(path)
	if err != nil || !bytes.Equal(data, tree.File(path).Bytes()) || spare.Hits(path) == 0 {
		t.Errorf("pulled %d bytes, %v; the second upstream was asked %d times", len(data), err, spare.Hits(path))
	}
	s.upstream.Reset()
	for _, unknown := range []string{"jammy/amd64/20250718/other", "streams/v1/index.sjson", "../etc/passwd"} {
		if _, err := s.pull(unknown); !errors.Is(err, cache.ErrMiss) {
			t.Errorf("%s: %v", unknown, err)
		}
	}
	if got := s.upstream.Requests(); len(got) > 0 {
		t.Errorf("upstream was asked for %+v", got)
	}
}

// Nothing is asked of the upstream of a stream that is offline, or of any when all are:
// no file, no metadata, no sync; and none of it counts as a failure.
func TestOffline(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newAllSite(t, tree)
	if _, err := s.sync(); err != nil {
		t.Fatal(err)
	}
	s.upstream.Reset()
	before, err := mirror.ReadStatus(s.store.Files(), stable)
	if err != nil {
		t.Fatal(err)
	}
	check := func(key string) {
		t.Helper()
		_, pull := s.pull("jammy/amd64/20250718/squashfs")
		_, sync := s.sync()
		_, plan := s.m.Plan(t.Context(), stable, mirror.SyncOptions{})
		for what, err := range map[string]error{"pull": pull, "sync": sync, "plan": plan} {
			if !errors.Is(err, mirror.ErrOffline) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v; want one that names %s", what, err, key)
			}
		}
		if err := s.m.Refresh(t.Context(), stable); err == nil {
			t.Error("a refresh")
		}
	}
	s.redefine(func(st *mirror.Stream) { st.Offline = true })
	check("offline: true")
	s.redefine(func(st *mirror.Stream) { st.Offline = false })
	s.m = mirror.New(mirror.Options{Store: s.store, Offline: true})
	check("--offline")
	after, err := mirror.ReadStatus(s.store.Files(), stable)
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("status (-before +after): %v\n%s", err, diff)
	}
	if got := s.upstream.Requests(); len(got) > 0 {
		t.Errorf("upstream was asked for %+v", got)
	}
}

// A refresh publishes what upstream's metadata says now, without a file: once for all
// who ask at the same time, and once a minute whatever came of it. What is selected and
// not here is known until a sync brings it.
func TestRefresh(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newAllSite(t, tree, "release=noble")
	var now atomic.Int64
	now.Store(time.Now().Unix())
	var refreshed atomic.Int32
	s.m = mirror.New(mirror.Options{
		Store: s.store, Settle: time.Nanosecond, Now: func() time.Time { return time.Unix(now.Load(), 0) },
		Client: upstream.NewClient(&upstream.Options{Backoff: upstream.Backoff{Base: time.Millisecond}}),
		Observe: func(e mirror.Event) {
			if e.Refresh {
				refreshed.Add(1)
			}
		},
	})
	if _, err := s.sync(); err != nil {
		t.Fatal(err)
	}
	tree = tree.Clone()
	tree.AddDay()
	s.upstream.Publish(tree)
	s.upstream.Reset()
	if err := s.m.Refresh(t.Context(), stable); err == nil || s.upstream.Hits(streamstest.IndexPath) > 0 {
		t.Errorf("within a minute of the sync: %v", err)
	}
	now.Add(60)
	s.upstream.SetFault(streamstest.At("/index.sjson", streamstest.Fault{Delay: 50 * time.Millisecond}))
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			if err := s.m.Refresh(t.Context(), stable); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	s.verbatim(tree)
	if n := s.upstream.Hits(streamstest.IndexPath); n != 1 || refreshed.Load() != 1 {
		t.Errorf("the index was asked for %d times, and %d refreshes told of", n, refreshed.Load())
	}
	const path = "noble/amd64/20250719/squashfs"
	if got := s.kinds()[path]; got != cache.KindKnown || s.upstream.Hits(path) > 0 {
		t.Errorf("%s is %s", path, got)
	}
	if res, err := s.sync(); err != nil || !res.Changed || s.kinds()[path] != cache.KindItem {
		t.Errorf("the sync after it: %+v, %v, %s", res, err, s.kinds()[path])
	}
	now.Add(60)
	s.upstream.SetFault(func(*http.Request) streamstest.Fault { return streamstest.Fault{Status: http.StatusBadGateway} })
	s.upstream.Reset()
	for range 3 {
		if err := s.m.Refresh(t.Context(), stable); err == nil {
			t.Error("a refresh of an upstream that fails")
		}
	}
	if n := s.upstream.Hits(streamstest.IndexPath); n != 1 {
		t.Errorf("an upstream that fails was asked %d times", n)
	}
}

// A stream whose published documents are the site's own is not refreshed.
func TestRefreshSelected(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	for range 2 {
		if err := s.m.Refresh(t.Context(), stable); err == nil {
			t.Error("refreshed")
		}
	}
	if got := s.upstream.Requests(); len(got) > 0 {
		t.Errorf("upstream was asked for %+v", got)
	}
}

// The default stream is one that may be defined, and asks for Ubuntu's keys.
func TestDefaultStream(t *testing.T) {
	st := mirror.DefaultStream()
	if err := st.Validate(); err != nil {
		t.Fatal(err)
	}
	want := mirror.Stream{Name: "stable", Upstream: []string{"https://images.maas.io/ephemeral-v3/stable"}, Path: "/ephemeral-v3/stable/",
		Also: []string{"/ephemeral-v3/daily/"}, Advertise: mirror.AdvertiseAll}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
