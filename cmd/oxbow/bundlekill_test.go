package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oxbow/streams/streamstest"
)

// A carrier has two sites and what is carried between them.
type carrier struct {
	*side
	media, far string
	finger     string
	random     *rand.Rand
	took       map[string]time.Duration // of commands that were not killed, by their second word
	killed     int
}

func newCarrier(t *testing.T) *carrier {
	t.Helper()
	s := newSide(t)
	s.upstream(streamstest.Shape{Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return 3 << 20
		}
		return streamstest.SmallSize(ftype, path)
	}})
	s.must("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg")
	c := &carrier{side: s, media: filepath.Join(s.dir, "media"), far: filepath.Join(s.dir, "far"), took: map[string]time.Duration{}}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c.random = rand.New(rand.NewPCG(seed, 0))
	if err := os.Mkdir(c.media, 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if status := run(t.Context(), s.line("key", "show"), &out, &out); status != 0 {
		t.Fatal(out.String())
	}
	c.finger = strings.Fields(out.String())[1]
	return c
}

// program runs a command in a process of its own, and kills it at some moment until it was done once more often than that.
func (c *carrier) program(kills int, args ...string) {
	c.t.Helper()
	for i := 0; ; i++ {
		cmd := exec.Command("oxbow", c.line(args...)[1:]...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		began := time.Now()
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		var timer *time.Timer
		if usual := max(c.took[args[1]], 100*time.Millisecond); i < kills {
			timer = time.AfterFunc(time.Duration(c.random.Int64N(int64(usual))), func() { cmd.Process.Kill() })
		}
		err := cmd.Wait()
		if timer != nil && !timer.Stop() && err != nil && !cmd.ProcessState.Exited() {
			c.killed++
			continue
		}
		if err != nil {
			c.t.Fatalf("oxbow %q: %v: %s", args, err, &out)
		}
		c.took[args[1]] = time.Since(began)
		return
	}
}

func (c *carrier) export(kills int) {
	c.t.Helper()
	c.program(kills, "bundle", "export", "--out", c.media, "--split", "5MB")
}

func (c *carrier) take(kills int) {
	c.t.Helper()
	c.program(kills, "bundle", "import", c.media, "--store", c.far, "--trust-fingerprint", c.finger)
}

// volumes returns the bytes on the medium.
func (c *carrier) volumes() map[string]string {
	c.t.Helper()
	all := map[string]string{}
	list, err := os.ReadDir(c.media)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(c.media, e.Name()))
		if err != nil {
			c.t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

// arrived checks the far store, which has nothing but whole snapshots, and the last one of the near store if all came.
func (c *carrier) arrived() {
	c.t.Helper()
	near := c.current()
	for _, args := range [][]string{{"store", "check", "--deep"}, {"snapshot", "show", near}} {
		var out bytes.Buffer
		if status := run(c.t.Context(), append([]string{"oxbow", "--store", c.far}, args...), &out, &out); status != 0 {
			c.t.Errorf("far: oxbow %q: status %d: %s", args, status, &out)
		}
	}
}

// Exports and imports that are killed again and again are completed by the same commands: to the same bytes, and to a store that is
// whole, and that never had anything half-published.
func TestBundleKilled(t *testing.T) {
	kills := 8
	if *long {
		kills = 60
	}
	c := newCarrier(t)
	c.export(0)
	want := c.volumes()
	if len(want) < 3 {
		t.Fatalf("%d volumes", len(want))
	}
	for name := range want {
		if err := os.Remove(filepath.Join(c.media, name)); err != nil {
			t.Fatal(err)
		}
	}
	c.export(kills)
	got := c.volumes()
	for name, data := range want {
		if got[name] != data {
			t.Errorf("%s has other bytes after kills", name)
		}
	}
	c.take(kills)
	c.arrived()
	c.day()
	c.must("mirror", "sync")
	c.export(kills)
	c.take(kills)
	c.arrived()
	t.Logf("killed %d times", c.killed)
	if c.killed < kills {
		t.Errorf("killed %d times only: the test does not test what it says", c.killed)
	}
}

// A medium and a store that are full say so; when there is room the same commands complete.
func TestBundleOnFullDisk(t *testing.T) {
	c := newCarrier(t)
	for _, dir := range []string{c.media, c.far} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6M"); err != nil {
			t.Skipf("needs small file systems, and cannot mount them: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	full := func(words string, args ...string) {
		t.Helper()
		if out := c.oxbow(args...); out.Status != exitFailed || !strings.Contains(out.Stderr, words) {
			t.Errorf("oxbow %q: status %d: %s", args, out.Status, out.Stderr)
		}
	}
	export := []string{"bundle", "export", "--out", c.media, "--split", "5MB"}
	full("make room", export...)
	if err := unix.Mount("tmpfs", c.media, "tmpfs", unix.MS_REMOUNT, "size=100M"); err != nil {
		t.Fatal(err)
	}
	c.must(export...)
	config := filepath.Join(c.dir, "far.yaml")
	c.write("far.yaml", []byte("store: {path: "+c.far+", reserve: 1MiB}\n"))
	take := []string{"bundle", "import", c.media, "--store", c.far, "--config", config, "--trust-fingerprint", c.finger}
	full("space", take...)
	if err := unix.Mount("tmpfs", c.far, "tmpfs", unix.MS_REMOUNT, "size=200M"); err != nil {
		t.Fatal(err)
	}
	c.must(take...)
	c.arrived()
}
