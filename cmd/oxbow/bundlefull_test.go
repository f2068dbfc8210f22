package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A smallDisk is a file system in memory.
type smallDisk struct {
	t    *testing.T
	dir  string
	size int64 // with which it is made
}

// newSmallDisk mounts one over a directory. The test is skipped where that is not allowed.
func newSmallDisk(t *testing.T, dir string, size int64) *smallDisk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		t.Skipf("needs small file systems, and cannot mount them: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return &smallDisk{t, dir, size}
}

// used returns how much is in use, in bytes.
func (d *smallDisk) used() int64 {
	d.t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func (d *smallDisk) resize(size int64) error {
	return unix.Mount("tmpfs", d.dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprint("size=", size))
}

// fill leaves no room, to the last page, while others write.
func (d *smallDisk) fill() {
	d.t.Helper()
	for {
		err := d.resize(d.used())
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINVAL) { // else more is in use by now
			d.t.Fatal(err)
		}
	}
}

// clear gives the room back.
func (d *smallDisk) clear() {
	d.t.Helper()
	if err := d.resize(d.size); err != nil {
		d.t.Fatal(err)
	}
}

// outOfDisk runs a command whose disk has no room any more once so much of it is in use. It reports whether the command failed
// because of that; there is room again then.
func (c *carrier) outOfDisk(d *smallDisk, at int64, args ...string) (failed bool) {
	c.t.Helper()
	cmd := exec.Command("oxbow", c.line(args...)[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for filled := false; ; {
		select {
		case err := <-ended:
			d.clear()
			if err == nil {
				return false
			}
			if text := out.String(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(text, "space") || strings.Contains(text, "goroutine ") {
				c.t.Errorf("oxbow %q on a disk that is full: %v: %s", args, err, text)
			}
			return true
		default:
			if !filled && d.used() >= at {
				d.fill()
				filled = true
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// Exports and imports that run out of disk at some point in the middle, because others take the room, say so. When there is room
// again the same commands complete: to the same bytes, to a store that is whole; nothing is half-published meanwhile.
func TestBundleRunsOutOfDisk(t *testing.T) {
	rounds := 4
	if *long {
		rounds = 40
	}
	c := newCarrier(t)
	c.export(0)
	want, total := c.volumes(), int64(0)
	for _, data := range want {
		total += int64(len(data))
	}
	reference := c.media
	export := func(dir string) []string { return []string{"bundle", "export", "--out", dir, "--split", "5MB"} }
	failed := 0
	for range rounds {
		c.media = filepath.Join(t.TempDir(), "small")
		disk := newSmallDisk(t, c.media, 100<<20)
		if c.outOfDisk(disk, 1+c.random.Int64N(total), export(c.media)...) {
			failed++
		}
		c.must(export(c.media)...)
		got := c.volumes()
		for name, data := range want {
			if got[name] != data {
				t.Errorf("%s has other bytes after the disk was full", name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d files are on the medium, want %d", len(got), len(want))
		}
		if err := unix.Unmount(c.media, 0); err != nil {
			t.Fatal(err)
		}
	}
	if c.media = reference; failed == 0 {
		t.Error("no export ran out of disk")
	}
	failed = 0
	for range rounds {
		c.far = filepath.Join(t.TempDir(), "far")
		disk := newSmallDisk(t, c.far, 400<<20)
		c.write("far.yaml", []byte("store: {path: "+c.far+", reserve: 1MiB}\n"))
		take := []string{"bundle", "import", c.media, "--store", c.far, "--config", filepath.Join(c.dir, "far.yaml"), "--trust-fingerprint", c.finger}
		if c.outOfDisk(disk, 128<<20+c.random.Int64N(total), take...) {
			failed++
			if out := c.oxbow("snapshot", "list", "--store", c.far); strings.Contains(out.Stdout, " current") {
				c.arrived() // it was the last thing that failed: what is published is whole
			}
		}
		c.must(take...)
		c.arrived()
		if out := c.oxbow("mirror", "status", "--store", c.far); strings.Contains(out.Stdout, "bundle ") {
			t.Errorf("then a bundle is not whole: %s", out.Stdout)
		}
		if err := unix.Unmount(c.far, 0); err != nil {
			t.Fatal(err)
		}
	}
	if failed == 0 {
		t.Error("no import ran out of disk")
	}
}
