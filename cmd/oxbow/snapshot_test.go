package main

import (
	"net/http"
	"path/filepath"
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
