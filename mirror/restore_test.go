package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// vanished is a site whose current snapshot goes on from target, which keeps a product, and all of a list, that upstream had no more.
func vanished(t *testing.T) (s *site, target cache.Digest, versions []string) {
	t.Helper()
	tree := streamstest.MAAS(streamstest.Shape{})
	s = newSite(t, tree)
	s.mustSync()
	tree.Drop("com.ubuntu.maas.stable:centos-bases:8:amd64")
	tree.Drop("com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04")
	s.upstream.Publish(tree)
	s.mustSync()
	target, versions = current(t, s.store, stable), s.versions()
	tree.AddDay()
	s.upstream.Publish(tree)
	s.mustSync()
	return s, target, versions
}

// harmed damages documents of a snapshot, and has them as they were at the end of the test.
func (s *site) harmed(id cache.Digest, kind cache.Kind, paths ...string) {
	s.t.Helper()
	for _, path := range paths {
		e := s.entry(id, kind, path)
		was := s.harm(e)
		s.t.Cleanup(func() {
			s.overwrite(e.Digest, was)
			_, err := s.store.Take(context.Background(), cache.Want{SHA256: e.Digest, Size: e.Size}, bytes.NewReader(was))
			if err != nil && !errors.Is(err, cache.ErrExists) {
				s.t.Error(err)
			}
		})
	}
}

// A rollback brings back all that was listed though documents of the site's own are damaged: by their other forms, or by upstream's
// documents and the files of the snapshot, of which it tells.
func TestRollbackRestores(t *testing.T) {
	const index, list, other = "v1/index.", "v3:download.", "centos-bases-download."
	for _, test := range []struct {
		summary  string
		paths    []string
		warnings int
	}{
		{"a text of the index", []string{index + "json"}, 0},
		{"a signature", []string{index + "json.gpg", list + "json.gpg"}, 0},
		{"one form of all", []string{index + "sjson", list + "json"}, 0},
		{"the index", []string{index + "json", index + "sjson"}, 1},
		{"a list", []string{list + "json", list + "sjson"}, 1},
		{"a list that vanished", []string{other + "json", other + "sjson"}, 1},
		{"all", []string{index + "json", index + "sjson", list + "json", list + "sjson", other + "json", other + "sjson"}, 3},
	} {
		t.Run(test.summary, func(t *testing.T) {
			s, target, versions := vanished(t)
			s.harmed(target, cache.KindSite, test.paths...)
			res := s.rollback(target)
			if diff := cmp.Diff(versions, s.versions()); diff != "" {
				t.Errorf("versions (-then +now):\n%s", diff)
			}
			if len(res.Warnings) != test.warnings {
				t.Errorf("warnings %q, want %d", res.Warnings, test.warnings)
			}
			if res.Versions != len(versions) {
				t.Errorf("it tells of %d versions, and published %d", res.Versions, len(versions))
			}
		})
	}
}

// A rollback is refused without a document of upstream's, or without a list that upstream's documents do not tell; the error names
// it, and nothing is held.
func TestRollbackCannotRestore(t *testing.T) {
	for _, test := range []struct {
		summary, selection string
		kind               cache.Kind
		paths              []string
		want               string
	}{
		{"a document of upstream's", "", cache.KindUpstream, []string{"v3:download.sjson"}, "cannot read streams/v1/com.ubuntu.maas:stable:v3:download.sjson"},
		{"a list of parts of versions", "release=noble ftype=boot-kernel", cache.KindSite, []string{"v3:download.json", "v3:download.sjson"},
			"list com.ubuntu.maas:stable:v3:download is lost, and cannot be made anew"},
	} {
		t.Run(test.summary, func(t *testing.T) {
			tree := streamstest.MAAS(streamstest.Shape{})
			s := newSite(t, tree)
			if test.selection != "" {
				s.redefine(func(st *mirror.Stream) { st.Select, st.Kind = []string{test.selection}, mirror.KindPlain })
			}
			for range 2 {
				if _, err := s.sync(); err != nil {
					t.Fatal(err)
				}
				tree.AddDay()
				s.upstream.Publish(tree)
			}
			kept, err := s.store.Snapshots(stable)
			if err != nil || len(kept) != 2 {
				t.Fatalf("%d snapshots are kept: %v", len(kept), err)
			}
			s.harmed(kept[1].ID, test.kind, test.paths...)
			_, err = s.m.Rollback(t.Context(), stable, kept[1].ID)
			if err == nil || !errors.Is(err, cache.ErrCorrupt) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if st, err := mirror.ReadStatus(s.store.Files(), stable); err != nil || st.Held != nil {
				t.Errorf("held %+v, %v", st.Held, err)
			}
			if got := current(t, s.store, stable); got != kept[0].ID {
				t.Errorf("current is %v", got)
			}
		})
	}
}

// told returns what clients are told of.
func (s *site) told() []mirror.PlannedList {
	s.t.Helper()
	man, err := s.store.Manifest(stable, current(s.t, s.store, stable))
	if err != nil {
		s.t.Fatal(err)
	}
	lists, err := mirror.ReadLists(s.store.Files(), man)
	if err != nil {
		s.t.Fatal(err)
	}
	return lists
}

// Rules that have become stricter since do not hold a rollback back, nor leave anything out of it: who cannot take it is told of.
func TestRollbackPassesStricterRules(t *testing.T) {
	for _, advertise := range []mirror.Advertise{mirror.AdvertiseSelected, mirror.AdvertiseAll} {
		t.Run(string(advertise), func(t *testing.T) {
			tree := streamstest.MAAS(streamstest.Shape{Notifications: true})
			s := newSite(t, tree)
			s.redefine(func(st *mirror.Stream) { st.Profile, st.Advertise = streams.Legacy, advertise })
			s.mustSyncPlain()
			before := s.told()
			tree.AddDay()
			s.upstream.Publish(tree)
			s.mustSyncPlain()
			s.redefine(func(st *mirror.Stream) { st.Profile = streams.All })
			res := s.rollback(cache.Digest{})
			if diff := cmp.Diff(before, s.told()); diff != "" {
				t.Errorf("what is shown (-then +now):\n%s", diff)
			}
			all := strings.Join(res.Warnings, "\n")
			if !strings.Contains(all, "by the rules of [3.8]") || !strings.Contains(all, "refused: streams/v1/index.sjson: ") || !strings.Contains(all, "notification") {
				t.Errorf("warnings %q", res.Warnings)
			}
			sorted := slices.Sorted(slices.Values(res.Warnings))
			if len(slices.Compact(sorted)) < len(res.Warnings) {
				t.Errorf("told twice: %q", res.Warnings)
			}
		})
	}
}
