package cache

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ext4Disk mounts a new ext4 file system at dir, and returns the file and the device that it is on.
func ext4Disk(t *testing.T, dir, size string, options ...string) (image, device string) {
	t.Helper()
	image = filepath.Join(t.TempDir(), "image")
	for _, command := range [][]string{
		{"truncate", "-s", size, image},
		append(append([]string{"mkfs.ext4", "-q", "-F"}, options...), image),
		{"mount", "-o", "loop,errors=remount-ro", image, dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("needs an ext4 file system of its own, and cannot make one: %s: %v\n%s", command[0], err, out)
		}
	}
	t.Cleanup(func() { unmount(t, dir) })
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[1] == dir {
			device = fields[0]
		}
	}
	return image, device
}

func unmount(t *testing.T, dir string) {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // it was unmounted already
		t.Error(err)
	}
}

// makeUnreadable puts a disk behind a file that gives an error from some place on, as a bad one does. The file must have some
// megabytes. It returns the function that takes the disk away.
func makeUnreadable(t *testing.T, name string) (heal func()) {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "bad")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	image, device := ext4Disk(t, disk, "8M", "-O", "^has_journal", "-N", "16")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := os.Create(filepath.Join(disk, "bad"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bad.Close() })
	_, err = bad.Write(data)
	if err = errors.Join(err, bad.Sync(), unix.Mount(bad.Name(), name, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, name) })
	if out, err := exec.Command("sh", "-c", "truncate -s 1M "+image+" && losetup -c "+device).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	await(t, "an error of the disk", func() bool { // once memory has forgotten the file
		err := unix.Fadvise(int(bad.Fd()), 0, 0, unix.FADV_DONTNEED)
		_, readErr := os.ReadFile(name)
		return err == nil && errors.Is(readErr, syscall.EIO)
	})
	return func() { unmount(t, name) }
}

// TestAnUnreadableBlob promises that a disk that gives an error for one file takes nothing else out of service: a check goes on, and
// what it advises helps.
func TestAnUnreadableBlob(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	bad, other, unnamed := content(1, 2<<20), content(2, 2<<20), content(3, 2<<20)
	for _, data := range [][]byte{bad, other, unnamed} {
		ingest(t, s, data)
	}
	id := publish(t, s, "stable", itemOf("bad", bad), itemOf("other", other))
	name := func(data []byte) string { return filepath.Join(s.dir, blobName(Sum(data))) }
	heal, healUnnamed := makeUnreadable(t, name(bad)), makeUnreadable(t, name(unnamed))

	wantFound(t, s, "stable", Published, "bad", itemOf("bad", bad), id)
	wantBlob(t, s, other)
	f, err := s.Blob(Sum(bad))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, f); !errors.Is(err, syscall.EIO) {
		t.Errorf("read a bad file: %v", err)
	}
	f.Close()
	report, err := s.Check(t.Context(), CheckOptions{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) != 2 {
		t.Errorf("the problems are %v", report.Problems)
	}
	for _, p := range report.Problems {
		if p.Digest == Sum(other) || p.Kind != DamagedBlob || !strings.Contains(p.Detail, "input/output error") || p.Remedy == "" {
			t.Errorf("the problem is %v", p)
		}
	}

	if err := s.Rebuild(t.Context()); err != nil {
		t.Errorf("one bad file that nothing names keeps the index from being made again: %v", err)
	}
	wantFound(t, s, "stable", Published, "other", itemOf("other", other), id)
	if s.Has(Sum(unnamed)) {
		t.Error("a blob that cannot be read is known")
	}
	if in := begin(t, s, wantOf(unnamed)); len(in.Missing()) == 0 {
		t.Error("a blob that cannot be read is not fetched again")
	}

	heal()
	healUnnamed()
	if err := errors.Join(os.Remove(name(bad)), os.Remove(name(unnamed))); err != nil {
		t.Fatal(err)
	}
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	ingest(t, s, bad)
	wantBlob(t, s, bad)
}
