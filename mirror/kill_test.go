package mirror_test

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// killedStore names, in the environment of a child of this test binary, the
// store whose stream the child is to sync.
const killedStore = "OXBOW_TEST_SYNC_STORE"

// long has tests that take minutes do all that they can; `make torture` kills more than syncs.
var long = flag.Bool("long", false, "run tests at their full length")

// TestMain makes the test binary a process that can be killed in a sync.
func TestMain(m *testing.M) {
	dir := os.Getenv(killedStore)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := syncStore(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func syncStore(dir string) error {
	store, err := cache.Open(dir, &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = mirror.New(mirror.Options{Store: store}).Sync(context.Background(), stable, mirror.SyncOptions{})
	return err
}

// A sync that is killed at any moment leaves the old or the new snapshot, whole,
// and the next one fetches only what the store does not have yet.
func TestSyncKilled(t *testing.T) {
	kills := 15
	if *long {
		kills = 50
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	tree := streamstest.MAAS(streamstest.Shape{CentOS: []string{}, Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return 1<<20 + 12345
		}
		return streamstest.SmallSize(ftype, path)
	}})
	s := newSite(t, tree)
	s.mustSync()
	dir := s.store.Files().Dir()
	endStore(t, s.store)

	took := time.Duration(0) // by the first sync, which nobody kills
	cut := 0
	for i := range kills + 1 {
		before := treeVersions(tree)
		tree = tree.Clone()
		tree.AddDay()
		tree.Trim(2)
		s.upstream.Publish(tree)
		s.upstream.SetFault(func(r *http.Request) streamstest.Fault {
			return streamstest.Fault{BytesPerSecond: 10e6} // a sync that takes a while
		})
		s.upstream.Reset()
		if i == 0 {
			took, _ = s.kill(dir, time.Minute)
		} else if _, killed := s.kill(dir, time.Duration(random.Int64N(int64(took)))); killed {
			cut++
		}
		s.upstream.SetFault(nil)
		s.open(dir)
		if got := s.versions(); !slices.Equal(got, before) && !slices.Equal(got, treeVersions(tree)) {
			t.Fatalf("kill %d: neither the old nor the new snapshot: %q", i, got)
		}
		missing := s.missing(tree)
		s.upstream.Reset()
		res := s.mustSync()
		if diff := cmp.Diff(treeVersions(tree), s.versions()); diff != "" {
			t.Fatalf("kill %d: after the next sync (-upstream +site):\n%s", i, diff)
		}
		// It may find more than that: what was proven, but not yet known to the index.
		if res.Fetched.Bytes > missing || itemBytes(s.upstream) != res.Fetched.Bytes {
			t.Errorf("kill %d: the next sync fetched %d bytes, upstream sent %d, %d were missing", i, res.Fetched.Bytes, itemBytes(s.upstream), missing)
		}
		endStore(t, s.store)
	}
	s.open(dir)
	t.Logf("%d of %d syncs were cut", cut, kills)
	if cut < kills/2 {
		t.Errorf("only %d of %d syncs were cut: the test does not test what it says", cut, kills)
	}
}

// kill runs a sync in another process and kills it d after its first request. It returns how long it ran from there, and whether it
// was killed: the sync may be done by then.
func (s *site) kill(dir string, d time.Duration) (ran time.Duration, killed bool) {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedStore+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.upstream.Await(s.t.Context(), "streams/v1/index.sjson", 1); err != nil {
		s.t.Fatal(err)
	}
	asked := time.Now()
	kill := time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	err := cmd.Wait()
	if err != nil && cmd.ProcessState.Exited() {
		s.t.Fatalf("the sync that was to be killed failed: %v", err)
	}
	return time.Since(asked), err != nil
}

// missing returns how many bytes of the tree's files the store lacks, by its
// own record of what it has.
func (s *site) missing(tree *streamstest.Tree) (n int64) {
	s.t.Helper()
	partials, err := s.store.Files().Partials()
	if err != nil {
		s.t.Fatal(err)
	}
	have := map[string]int64{}
	for _, p := range partials {
		have[p.Key] = p.Have
	}
	for _, f := range tree.Files() {
		sum, err := hex.DecodeString(f.Sum("sha256"))
		if err != nil {
			s.t.Fatal(err)
		}
		switch had := have[fmt.Sprintf("sha256-%x", sum)]; {
		case s.store.Has(cache.Digest(sum)) || had == f.Length():
		case f.Length() >= 1<<20:
			n += f.Length() - had
		default: // small files are whole or worth nothing
			n += f.Length()
		}
	}
	return n
}

// itemBytes is what upstream has sent of files.
func itemBytes(up *streamstest.Upstream) (n int64) {
	seen := map[string]bool{}
	for _, r := range up.Requests() {
		if !seen[r.Path] && !strings.Contains(r.Path, "streams/v1/") {
			seen[r.Path] = true
			n += up.Bytes(r.Path)
		}
	}
	return n
}

// open opens the site's store again, after its end.
func (s *site) open(dir string) {
	s.t.Helper()
	s.store = newStore(s.t, dir, -1)
	s.m = newMirror(s.t, s.store)
}

// A full disk stops a sync, before or in the middle, with an error that says
// so; what was published stays, and with room again the sync goes on.
func TestSyncFullDisk(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return 4 << 20
		}
		return streamstest.SmallSize(ftype, path)
	}})
	for _, test := range []struct {
		summary string
		reserve int64 // of the store
		fill    func(t *testing.T, s *site, dir string)
	}{
		{"before", 2 << 20, func(t *testing.T, _ *site, dir string) { fillDisk(t, dir, 4<<20) }},
		{"in the middle", -1, func(t *testing.T, s *site, dir string) {
			// Another process takes the space while the files come.
			fill := sync.OnceFunc(func() { fillDisk(t, dir, 1<<20) })
			s.upstream.SetFault(func(r *http.Request) streamstest.Fault {
				if strings.HasSuffix(r.URL.Path, "/squashfs") {
					fill()
				}
				return streamstest.Fault{}
			})
		}},
	} {
		t.Run(test.summary, func(t *testing.T) {
			disk := tmpfs(t, 64<<20)
			s := newSiteIn(t, filepath.Join(disk, "store"), tree, test.reserve)
			s.mustSync()
			before, id := s.versions(), current(t, s.store, stable)

			next := tree.Clone()
			next.AddDay()
			s.upstream.Publish(next)
			test.fill(t, s, disk)
			_, err := s.sync()
			if err == nil || !strings.Contains(err.Error(), "space") {
				t.Errorf("sync on a full disk: %v", err)
			}
			if diff := cmp.Diff(before, s.versions()); diff != "" || current(t, s.store, stable) != id {
				t.Errorf("what was published has changed (-before +after):\n%s", diff)
			}
			if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
				t.Fatal(err)
			}
			s.upstream.SetFault(nil)
			s.mustSync()
			if diff := cmp.Diff(treeVersions(next), s.versions()); diff != "" {
				t.Errorf("with room again (-upstream +site):\n%s", diff)
			}
		})
	}
}

// fillDisk leaves that many bytes free.
func fillDisk(t *testing.T, dir string, free int64) {
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if err := exec.Command("fallocate", "-l", fmt.Sprint(available(t, dir)-free), f.Name()).Run(); err != nil {
		t.Error(err)
	}
}
