package main

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"oxbow/cache"
)

// Every snapshot that is kept is a boot source by a URL of its own, whole and signed: older ones, one that was rolled back to, and
// those that a key signed which another has replaced.
func TestEverySnapshotIsABootSource(t *testing.T) {
	s := newSide(t)
	s.must("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg")
	d := s.daemon(t)
	s.newDay()
	s.must("key", "generate", "--replace")
	s.newDay()
	s.must("snapshot", "rollback", "stable")
	files, err := cache.OpenFiles(filepath.Join(s.dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	kept, err := files.Snapshots("stable")
	if err != nil || len(kept) != 4 {
		t.Fatalf("%d snapshots are kept: %v", len(kept), err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, snap := range kept {
		a, err := auditTree(t.Context(), client, d.url+"/-/snapshots/stable/"+snap.ID.String()+"/", d.url+"/-/keyring.gpg")
		if err != nil {
			t.Errorf("%s: %v", snap.Reason, err)
			continue
		}
		if a.Files != snap.Items {
			t.Errorf("%s: %v, but it has %d files", snap.Reason, a, snap.Items)
		}
	}
}

// A pin is told by as much of its snapshot's id as tells it from the other pins.
func TestFindPin(t *testing.T) {
	digest := func(first byte) (d cache.Digest) {
		copy(d[:], bytes.Repeat([]byte{0x11}, len(d)))
		d[5] = first
		return d
	}
	pins := []cache.Pin{{Snapshot: digest(0xa0)}, {Snapshot: digest(0xa1)}, {Snapshot: digest(0xb0)}}
	const common = "1111111111"
	for word, want := range map[string]string{
		common + "b":          "",
		common + "a1":         "",
		digest(0xa0).String(): "",
		common + "a":          `"1111111111a" begins the ids of 2 pinned snapshots, among them 1111111111a0 and 1111111111a1: give more digits`,
		"1":                   "3 pinned snapshots",
		common + "c":          "no pinned snapshot has an id that begins with",
		"":                    "no pinned snapshot has an id that begins with",
	} {
		p, err := findPin(pins, word)
		switch {
		case want == "" && (err != nil || !strings.HasPrefix(p.Snapshot.String(), word)):
			t.Errorf("%q: %v, %v", word, p, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: error %v, want %q", word, err, want)
		}
	}
}
