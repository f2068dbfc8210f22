package cache

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestADiskThatTurnsReadOnly promises that a store goes on serving when its file system has met an error and takes no writes any
// more; that all else is refused, and says why; and that its owner can end. When the file system was put right, all is there.
func TestADiskThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image, device := ext4Disk(t, dir, "64M")
	trigger := "/sys/fs/ext4/" + filepath.Base(device) + "/trigger_fs_error"
	if _, err := os.Stat(trigger); err != nil {
		t.Skipf("needs an ext4 that can be told to fail: %v", err)
	}
	o := testOptions(t)
	o.Reserve = -1
	s, err := Create(filepath.Join(dir, "store"), o)
	if err != nil {
		t.Fatal(err)
	}
	endTending(s)
	e := put(t, s, KindItem, "a", "content")
	first := publish(t, s, "stable", e)
	publish(t, s, "dropped", e)
	publish(t, s, "pulling", knownOf("p", content(1, 100)))
	pull(t, s, content(1, 100))
	if err := s.WriteState("dropped", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trigger, []byte("test"), 0o200); err != nil {
		t.Fatal(err)
	}

	for _, step := range fullSteps(first, nil) {
		if err := step.do(t, s); err != nil && !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: got %v, want that the file system is read-only", step.what, err)
		}
		wantFound(t, s, "stable", Published, "a", e, first)
		wantBlob(t, s, []byte("content"))
		wantBlob(t, s, content(1, 100))
	}
	if err := s.Close(); err != nil && !errors.Is(err, syscall.EROFS) {
		t.Error(err)
	}
	if err := s.reopen(t); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), s.dir) {
		t.Errorf("opened on a read-only file system: %v", err)
	}

	// This process has files open there still, as a dead one would not have.
	copied, again := image+"-copy", filepath.Join(t.TempDir(), "again")
	if err := os.Mkdir(again, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", "cp --sparse=always "+image+" "+copied+" && e2fsck -fy "+copied).CombinedOutput(); exitStatus(err) > 1 {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", copied, again).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { unmount(t, again) })
	next := reopenStore(t, filepath.Join(again, "store"))
	wantFound(t, next, "stable", Published, "a", e, first)
	wantBlob(t, next, []byte("content"))
}

func exitStatus(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// TestAStoreOnAReadOnlyDisk promises that a store which cannot be written is refused with the reason, and that what only reads it
// reads it.
func TestAStoreOnAReadOnlyDisk(t *testing.T) {
	t.Parallel()
	s := createOnSmallDisk(t, "100m", -1, -1)
	e := put(t, s, KindItem, "a", "content")
	id := publish(t, s, "stable", e)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", s.dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	for name, open := range map[string]func(string, *Options) (*Store, error){"Open": Open, "Create": Create} {
		if _, err := open(s.dir, testOptions(t)); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), s.dir) {
			t.Errorf("%s: got %v, want that the file system of %s is read-only", name, err, s.dir)
		}
	}
	if current, err := s.mustFiles(t).Current("stable"); err != nil || current.ID != id {
		t.Errorf("the current snapshot is %v (%v)", current.ID, err)
	}
	remount(0)
	wantFound(t, reopenStore(t, s.dir), "stable", Published, "a", e, id)
}
