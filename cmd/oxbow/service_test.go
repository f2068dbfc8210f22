package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oxbow/streams/streamstest"
)

// systemd is told when the server is ready, that it is alive, of each reload from its
// beginning to its end, and that it ends.
func TestSystemdIsTold(t *testing.T) {
	s := newSide(t)
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var mu sync.Mutex // guards told
	var told []string
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			mu.Lock()
			told = append(told, strings.Split(string(buf[:n]), "\n")...)
			mu.Unlock()
		}
	}()
	await := func(n int, want string) {
		t.Helper()
		if until(func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(slices.DeleteFunc(slices.Clone(told), func(line string) bool { return !strings.HasPrefix(line, want) })) >= n
		}) != nil {
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("systemd was not told %s %d times: %q", want, n, told)
		}
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "100000")
	d := s.daemon(t)
	await(1, "READY=1")
	await(1, "STATUS=serving 0 streams on 127.0.0.1:")
	await(3, "WATCHDOG=1")
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(1, "RELOADING=1")
	await(1, "MONOTONIC_USEC=")
	await(2, "READY=1")
	d.end()
	await(1, "STOPPING=1")
}

// A first SIGTERM lets a download go on, and a second one cuts it: the server ends at
// once, and well.
func TestSecondSignal(t *testing.T) {
	s := newSide(t)
	s.upstream(streamstest.Shape{Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return 16 << 20 // more than sockets hold
		}
		return streamstest.SmallSize(ftype, path)
	}})
	s.must("mirror", "sync", "UPSTREAM", "arch=amd64", "release=noble", "--max", "1", "--keyring", "DIR/upstream.gpg")
	d := s.daemon(t)
	resp, err := http.Get(d.url + demoPath + "/noble/amd64/20250718/squashfs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := until(func() bool { _, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://")); return err != nil }); err != nil {
		t.Fatal("it goes on to accept connections")
	}
	time.Sleep(50 * time.Millisecond)
	if err := d.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatal("it has ended in spite of a download: ", err)
	}
	began := time.Now()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	d.kill()                                              // waits for its end
	if took := time.Since(began); took > 10*time.Second { // the drain would take 30
		t.Errorf("it went on for %v", took)
	}
	s.must("store", "check", "--deep")
}

// The server may open as many files as it is allowed to at all.
func TestFileLimit(t *testing.T) {
	s := newSide(t)
	line := "ulimit -Sn 256; exec " + racing + " " + strings.Join(s.serving(), " ")
	d := s.start(t, exec.Command("sh", "-c", line))
	found := regexp.MustCompile(`(?m)^process_max_fds (\S+)$`).FindSubmatch(d.metrics(t))
	if found == nil || string(found[1]) == "256" {
		t.Errorf("process_max_fds is %s", found)
	}
}

// Commands that only read need nobody and no lock, also while the index is gone and
// somebody who has the lock does not answer, as in a recovery after a crash.
func TestReadingNeedsNoOwner(t *testing.T) {
	s := newSide(t)
	s.must("mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg")
	store := filepath.Join(s.dir, "store")
	if err := os.RemoveAll(filepath.Join(store, "index")); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(store, "LOCK"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "oxbow.sock"), nil, 0o600); err != nil { // stale
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mirror", "list"}, {"mirror", "status"}, {"snapshot", "list"}, {"store", "stats"}, {"key", "show"}, {"key", "export"},
	} {
		if out := s.oxbow(args...); out.Status != exitDone || out.Stdout == "" {
			t.Errorf("oxbow %q: status %d: %s", args, out.Status, out.Stderr)
		}
	}
}
