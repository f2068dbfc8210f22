package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"oxbow/mirror"
)

// Without a terminal there is a line at each change of phase, and one every
// five seconds.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := newConsole(&out)
	c.now = func() time.Time { return now }
	const mib = 1 << 20
	for _, step := range []struct {
		after time.Duration
		p     mirror.Progress
	}{
		{0, mirror.Progress{Phase: mirror.PhaseReading}},
		{time.Second, mirror.Progress{Phase: mirror.PhaseFetching, Files: 3, Bytes: 100 * mib}},
		{time.Second, mirror.Progress{Phase: mirror.PhaseFetching, Files: 3, Bytes: 100 * mib, BytesDone: 5 * mib}},
		{4 * time.Second, mirror.Progress{Phase: mirror.PhaseFetching, Files: 3, FilesDone: 1, Bytes: 100 * mib, BytesDone: 50 * mib}},
		{5 * time.Second, mirror.Progress{Phase: mirror.PhaseFetching, Files: 3, FilesDone: 1, Bytes: 100 * mib, BytesDone: 50 * mib}},
		{time.Second, mirror.Progress{Phase: mirror.PhasePublishing, Files: 3, FilesDone: 3, Bytes: 100 * mib, BytesDone: 100 * mib}},
	} {
		now = now.Add(step.after)
		step.p.Stream = "stable"
		c.show(&step.p)
	}
	c.end()
	want := `stable: reading metadata
stable: fetching 3 files, 100.0 MiB
stable: fetched 1 of 3 files, 50.0 MiB of 100.0 MiB, 10.0 MiB/s, 5s left
stable: fetched 1 of 3 files, 50.0 MiB of 100.0 MiB
stable: publishing
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// On a terminal a bar shows files, bytes, rate and time left; log lines stand
// above it, and it is gone in the end.
func TestProgressBar(t *testing.T) {
	tty, screen := openTerminal(t)
	c := newConsole(tty)
	if !c.term {
		t.Fatal("the terminal is not seen as one")
	}
	p := mirror.Progress{Stream: "stable", Phase: mirror.PhaseFetching, Files: 3, Bytes: 100 << 20}
	for i := range 4 {
		p.FilesDone, p.BytesDone = i, int64(i)*25<<20
		c.show(&p)
		time.Sleep(200 * time.Millisecond) // the bar is drawn in its own time
	}
	if _, err := c.Write([]byte("a line of the log\n")); err != nil {
		t.Error(err)
	}
	c.end()
	if _, err := c.Write([]byte("the end\n")); err != nil {
		t.Error(err)
	}
	got := screen()
	for _, want := range []string{"stable: 3/3 files", "75.0 MiB / 100.0 MiB", "MiB/s", "a line of the log\r\n", "the end\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("the screen shows no %q: %q", want, got)
		}
	}
}

// openTerminal returns a pseudo terminal, and what returns all that was
// written to it and closes it.
func openTerminal(t *testing.T) (tty *os.File, screen func() string) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ptmx.Close() })
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 120}); err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&out, ptmx) // ends with EIO when tty is closed
	}()
	return tty, func() string {
		tty.Close()
		<-read
		return out.String()
	}
}
