package cache

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oxbow/cache/internal/durable"
)

// TestAnIndexThatIsBehind promises that whoever opens the store of a process that died notices what was removed, and what was needed,
// in the part of the index that is lost: Badger does not.
func TestAnIndexThatIsBehind(t *testing.T) {
	t.Parallel()
	c := contents(3, 100)
	s := createStore(t)
	publish(t, s, "stable", knownOf("0", c[0]), knownOf("1", c[1]))
	pull(t, s, c[0])
	pull(t, s, c[1])
	ingest(t, s, c[2])
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.dir) // from here on all is in the log
	id := publish(t, s, "stable", itemOf("0", c[0]), knownOf("1", c[1]))
	expire(t, s)
	s.SetCacheLimit(1)
	evict(t, s)
	wantHere(t, s, c, 0)

	dir := copyStore(t, s.dir)
	removeAll(t, filepath.Join(dir, indexDir), "*.mem")
	next, log := reopenLogged(t, dir)
	wantHere(t, next, c, 0)
	wantPulled(t, next, c)
	wantFound(t, next, "stable", Published, "0", itemOf("0", c[0]), id)
	for _, text := range []string{
		`level=WARN msg="the index had blobs that are not there" blobs=2`,
		`level=WARN msg="the index had files that a snapshot needs as ones that may be evicted"`,
	} {
		if !strings.Contains(log, text) {
			t.Errorf("the log does not say %q:\n%s", text, log)
		}
	}
	next.SetCacheLimit(1)
	evict(t, next)
	wantHere(t, next, c, 0)
}

// TestWhatADeadOwnerDidIsSynced promises that nothing is built on what only memory holds, and that opening a store that was closed
// costs no sync.
func TestWhatADeadOwnerDidIsSynced(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	died := copyStore(t, s.dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]durable.Op{died: {{Kind: "syncfs", Name: "."}}, s.dir: nil} {
		var ops []durable.Op
		o := testOptions(t)
		o.trace = func(op durable.Op) error { ops = append(ops, op); return nil }
		next, err := Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		checkAtEnd(t, next)
		if !slices.Equal(ops, want) {
			t.Errorf("the operations were %v, want %v", ops, want)
		}
	}
}

// TestADeadOwnersDiskMayFail promises that a write that came to nothing is told, with what to do, and that what is there is served.
func TestADeadOwnersDiskMayFail(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "a", "content")
	id := publish(t, s, "stable", e)
	log := new(logged)
	o := testOptions(t)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	o.trace = func(op durable.Op) error {
		if op.Kind == "syncfs" {
			return errDisk
		}
		return nil
	}
	next, err := Open(copyStore(t, s.dir), o)
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, next)
	wantFound(t, next, "stable", Published, "a", e, id)
	if !strings.Contains(log.String(), "run `oxbow store check --deep`") {
		t.Errorf("the log says\n%s", log)
	}
}
