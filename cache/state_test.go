package cache

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStateIsReplacedDurably(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	if _, err := s.Files().ReadState("stable"); !errors.Is(err, ErrMiss) {
		t.Errorf("got %v, want ErrMiss", err)
	}
	for _, text := range []string{"one", "two"} {
		log := recordOps(s)
		if err := s.WriteState("stable", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if len(*log) != 3 || !strings.HasPrefix((*log)[0], "fsync write-") {
			t.Fatalf("operations: %q", *log)
		}
		*log = (*log)[1:]
		wantLog(t, log, "rename streams/stable.json", "fsync streams")
		if data, err := s.Files().ReadState("stable"); string(data) != text || err != nil {
			t.Errorf("got %q, %v", data, err)
		}
	}
	if st, err := os.Stat(filepath.Join(s.dir, "streams", "stable.json")); err != nil || st.Mode() != 0o600 {
		t.Errorf("the state has mode %v (%v): it may hold a password", st.Mode(), err)
	}
	for step := range 2 { // the sync, the rename
		failAt(s, step, errDisk)
		if err := s.WriteState("stable", []byte("three")); !errors.Is(err, errDisk) {
			t.Errorf("got %v", err)
		}
		if data, err := s.Files().ReadState("stable"); string(data) != "two" || err != nil {
			t.Errorf("got %q, %v", data, err)
		}
	}
	s.disk.Trace = nil
	if err := s.WriteState("candidate", nil); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Files().Streams(); !slices.Equal(names, []string{"candidate", "stable"}) || err != nil {
		t.Errorf("streams: %q, %v", names, err)
	}
	for range 2 {
		if err := s.RemoveState("stable"); err != nil {
			t.Error(err)
		}
	}
	if names, err := s.Files().Streams(); !slices.Equal(names, []string{"candidate"}) || err != nil {
		t.Errorf("streams: %q, %v", names, err)
	}
	wantNames(t, s, "ingest")
}

func TestKeysArePrivate(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	for _, name := range []string{"site.asc", "trusted/4A3CE3CD565D7EB5.asc"} {
		if err := s.WriteKey(name, []byte(name)); err != nil {
			t.Fatal(err)
		}
		if data, err := s.Files().ReadKey(name); string(data) != name || err != nil {
			t.Errorf("got %q, %v", data, err)
		}
		if st, err := os.Stat(filepath.Join(s.dir, "keys", name)); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s has mode %v (%v)", name, st.Mode(), err)
		}
	}
}

func TestNamesCannotLeaveTheStore(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a b", "a\x00", "ä", strings.Repeat("a", 101)} {
		if err := s.WriteState(name, nil); err == nil {
			t.Errorf("state %q is written", name)
		}
		if err := s.WriteKey(name, nil); err == nil {
			t.Errorf("key %q is written", name)
		}
		if err := s.WriteKey("trusted/"+name, nil); err == nil {
			t.Errorf("key trusted/%q is written", name)
		}
	}
}
