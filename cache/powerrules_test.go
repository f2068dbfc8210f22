package cache

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"testing"

	"oxbow/cache/internal/durable"
)

// A powerRule says what is durable before what. Without its sync a power loss breaks a promise.
type powerRule struct {
	rule string
	c    *powerCase
	sync string // as path.Match has it: kind and name
	nth  int    // which of those; 0 is all

	before bool // what breaks, breaks before the acknowledgement
}

func powerRules() []powerRule {
	blob := "fsync sha256-*.part"
	return []powerRule{
		{"a large blob's bytes before its name", largeBlobs(), blob, 0, false},
		{"a large blob's name before the index knows it", largeBlobs(), "fsync blobs/sha256/*", 0, false},
		{"small blobs' bytes before their names", smallBlobs(2), "syncfs .", 0, false},
		{"small blobs' names before the index knows them", smallBlobs(2), "fsync blobs/sha256/*", 0, false},
		{"many small blobs' names before the index knows them", smallBlobs(20), "syncfs .", 2, false},
		{"the name of what was left before the index knows it", leftBlob(), "fsync blobs/sha256/*", 0, false},
		{"blobs' bytes before the manifest", nextSnapshot(), "syncfs .", 0, false},
		{"blobs' names before the manifest", nextSnapshot(), "fsync blobs/sha256/*", 0, false},
		{"a manifest's bytes before its name", nextSnapshot(), "fsync write-*", 1, false},
		{"a manifest's name before the switch", nextSnapshot(), "fsync snapshots/stable", 0, false},
		{"the directory of manifests before the switch", firstSnapshot(), "fsync snapshots", 0, false},
		{"the index before the switch", nextSnapshot(), "written index", 2, false},
		{"the list's bytes before its name", nextSnapshot(), "fsync write-*", 2, false},
		{"the switch before the acknowledgement", nextSnapshot(), "fsync current", 0, false},
		{"that what was pulled is needed before the switch", takingOver(), "written index", 0, false},
		{"the list before a manifest goes", sweeping(), "fsync current", 0, false},
		{"a manifest's end before its blobs go", sweeping(), "fsync snapshots/stable", 0, false},
		{"that the index forgets a blob before it goes", sweeping(), "written index", 0, false},
		{"that the index forgets what is evicted before it goes", evicting(), "written index", 0, false},
		{"the list's end before a stream's manifests go", dropping(), "fsync current", 0, false},
		{"the manifests' end before a stream's blobs go", dropping(), "fsync snapshots", 0, false},
		{"a state's end before the acknowledgement", dropping(), "fsync streams", 0, false},
		{"a state's bytes before its name", writingStates(), "fsync write-*", 1, false},
		{"a state before the acknowledgement", writingStates(), "fsync streams", 0, false},
		{"a key before the acknowledgement", writingStates(), "fsync keys", 0, false},
		{"a pin before the acknowledgement", pinning(), "fsync pins", 0, false},
		{"what nothing names before a rebuilt index has it", rebuilding(), "syncfs .", 0, false},
		{"the format before the directories", creating(), "fsync .", 0, true},
		{"the directories before anything in them", creating(), "syncfs .", 0, false},
	}
}

// TestPowerRules promises that each sync is there for a reason: without it TestPowerLoss would fail.
func TestPowerRules(t *testing.T) {
	t.Parallel()
	for _, r := range powerRules() {
		t.Run(r.rule, func(t *testing.T) {
			t.Parallel()
			n := 0
			images := r.c.watch(t, r.before, func(op durable.Op) bool {
				if match, err := path.Match(r.sync, op.Kind+" "+op.Name); err != nil || !match {
					return false
				}
				n++
				return r.nth == 0 || r.nth == n
			})
			if n == 0 || n < r.nth {
				t.Fatalf("there are %d syncs like %q", n, r.sync)
			}
			slices.Reverse(images) // the end tells most
			place := &powerPlace{dir: memoryDir(t)}
			if !slices.ContainsFunc(images, func(i *powerImage) bool { return r.c.check(t, i, place) != nil }) {
				t.Errorf("none of %d power losses does any harm without %q", len(images), r.sync)
			}
		})
	}
}

// TestPowerRuleOfLeases promises the rule that no sync keeps: what a plan counts on is leased. Without the lease a sweep takes it,
// and then nothing is published.
func TestPowerRuleOfLeases(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	for _, leased := range []bool{true, false} {
		data := fmt.Appendf(nil, "leased: %v", leased)
		ingest(t, s, data)
		flush(t, s)
		lease := s.Lease()
		if leased {
			lease.Add(Sum(data))
		}
		expire(t, s)
		_, err := s.Publish(t.Context(), following(t, s, "stable", itemOf("a", data)))
		lease.Release()
		if leased && err != nil || !leased && !errors.Is(err, ErrMiss) {
			t.Errorf("leased: %v, and the publication gave %v", leased, err)
		}
	}
}
