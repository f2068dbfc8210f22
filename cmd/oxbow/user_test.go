package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Root working on the store of another user leaves no file of root's there, and
// reads the files that it is given as root.
func TestRootBecomesUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	const uid = 12345
	s := newSide(t)
	store := filepath.Join(s.dir, "home", "store")
	if err := os.MkdirAll(store, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(store, uid, uid); err != nil {
		t.Fatal(err)
	}
	for dir := s.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // a test's folder is root's alone
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"key", "generate", "--store", store},
		{"mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg", "--store", store},
		{"store", "check", "--deep", "--store", store},
	} {
		line := s.line(args...)[3:] // without the side's own store
		if out, err := exec.Command("oxbow", line...).CombinedOutput(); err != nil {
			t.Fatalf("oxbow %q: %v: %s", line, err, out)
		}
	}
	files := 0
	err := filepath.WalkDir(store, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != uid {
			t.Errorf("%s belongs to user %d", name, info.Sys().(*syscall.Stat_t).Uid)
		}
		files++
		return err
	})
	if err != nil || files < 50 {
		t.Errorf("%d files, %v", files, err)
	}
}
