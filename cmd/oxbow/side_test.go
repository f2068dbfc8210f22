package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"oxbow/cache"
	"oxbow/streams/streamstest"
)

// A side is a store with an upstream of its own.
type side struct {
	t      *testing.T
	dir    string
	tree   *streamstest.Tree
	before *streamstest.Tree // the day before
	up     *streamstest.Upstream
	url    string
	plain  string // URL of an upstream that has nothing in common with the other
}

// newSide returns a side whose store has a key and nothing else.
func newSide(t *testing.T) *side {
	s := &side{t: t, dir: t.TempDir()}
	s.upstream(streamstest.Shape{})
	plain := streamstest.Plain(streamstest.PlainShape{})
	server := httptest.NewServer(streamstest.NewUpstream(plain))
	t.Cleanup(server.Close)
	s.plain = server.URL
	s.write("plain.gpg", plain.Keyring())
	for _, args := range [][]string{{"key", "generate"}, {"key", "export", "--secret"}} {
		out := s.oxbow(args...)
		if out.Status != 0 {
			t.Fatalf("oxbow %q: %s", args, out.Stderr)
		}
		s.write("first.asc", []byte(out.Stdout))
	}
	return s
}

// upstream gives the side an upstream of that shape.
func (s *side) upstream(shape streamstest.Shape) {
	s.tree = streamstest.MAAS(shape)
	s.up = streamstest.NewUpstream(s.tree)
	server := httptest.NewServer(http.StripPrefix(demoPath, s.up))
	s.t.Cleanup(server.Close)
	s.url = server.URL + demoPath
	s.write("upstream.gpg", s.tree.Keyring())
}

func (s *side) write(name string, data []byte) {
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// An outcome is all that a command lets one see.
type outcome struct {
	Status         int
	Stdout, Stderr string
}

// oxbow runs a command in this process, with what differs from run to run taken out
// of its outcome. The race detector sees it so.
func (s *side) oxbow(args ...string) outcome {
	var stdout, stderr bytes.Buffer
	status := run(s.t.Context(), s.line(args...), &stdout, &stderr)
	return outcome{status, s.alike(stdout.String()), s.alike(stderr.String())}
}

// must runs a command that has to be done.
func (s *side) must(args ...string) {
	s.t.Helper()
	if out := s.oxbow(args...); out.Status != exitDone {
		s.t.Fatalf("oxbow %q: status %d: %s%s", args, out.Status, out.Stdout, out.Stderr)
	}
}

// line returns the command line, in which UPSTREAM and DIR are replaced, and CURRENT by
// the id of the current snapshot of stable.
func (s *side) line(args ...string) []string {
	line := append([]string{"oxbow", "--store", filepath.Join(s.dir, "store")}, args...)
	replace := strings.NewReplacer("UPSTREAM", s.url, "PLAIN", s.plain, "DIR", s.dir, "CURRENT", s.current())
	for i := range line {
		line[i] = replace.Replace(line[i])
	}
	return line
}

// current returns the id of the current snapshot of stable; "": there is none.
func (s *side) current() string {
	files, err := cache.OpenFiles(filepath.Join(s.dir, "store"))
	if err != nil {
		return ""
	}
	defer files.Close()
	snap, err := files.Current("stable")
	if err != nil {
		return ""
	}
	return snap.ID.String()
}

// sized are bytes that signatures are among: one takes a byte less now and then.
var sized = regexp.MustCompile(`"bytes": \d+`)

var changing = regexp.MustCompile(`\b([0-9a-f]{64}|[0-9a-f]{12}|[0-9A-F]{40})\b|\b20\d\d-\d\d-\d\d[ T][0-9:]+Z`)

func (s *side) alike(text string) string {
	text = strings.NewReplacer(s.url, "UPSTREAM", s.plain, "PLAIN", s.dir, "DIR").Replace(text)
	if strings.HasPrefix(text, "-----BEGIN") {
		return text
	}
	text = sized.ReplaceAllString(text, `"bytes": …`)
	lines := strings.SplitAfter(changing.ReplaceAllString(text, "…"), "\n")
	if strings.Contains(text, "no kept snapshot names it") {
		slices.Sort(lines) // they are in the order of digests
		lines = slices.Compact(lines)
	}
	return strings.Join(lines, "")
}

func (s *side) day() {
	s.before = s.tree.Clone()
	s.tree.AddDay()
	s.up.Publish(s.tree)
}

// badDay is a day of which a file is broken.
func (s *side) badDay() {
	s.before = s.tree.Clone()
	for _, path := range s.tree.AddDay() {
		if strings.HasSuffix(path, "boot-kernel") {
			s.tree.Break(path, streamstest.Flipped)
			break
		}
	}
	s.up.Publish(s.tree)
}

// writeTree writes upstream's tree as sstream-mirror does.
func (s *side) writeTree() {
	if err := writeTree(s.tree, filepath.Join(s.dir, "tree")); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) older() { s.up.Publish(s.before) }

// damage changes a bit of the largest blob.
func (s *side) damage() {
	if err := damageLargest(filepath.Join(s.dir, "store")); err != nil {
		s.t.Fatal(err)
	}
}

// A running daemon is an `oxbow serve` on the store of a side.
type runningDaemon struct {
	cmd    *exec.Cmd
	stderr lockedBuffer
	url    string
	end    func() // by SIGTERM; it has to end well
	kill   func()
}

// daemon starts a daemon, which ends with the test at the latest.
func (s *side) daemon(t *testing.T, args ...string) *runningDaemon {
	t.Helper()
	return s.start(t, exec.Command(racing, s.serving(args...)...))
}

// serving returns the arguments of a server that serves what commands define, and
// nothing by default.
func (s *side) serving(args ...string) []string {
	s.write("none.yaml", []byte("streams: []\n"))
	return append(s.line("serve", "--listen", "127.0.0.1:0", "--log-format", "text", "--config", "DIR/none.yaml")[1:], args...)
}

// start starts what is, or becomes, a daemon.
func (s *side) start(t *testing.T, cmd *exec.Cmd) *runningDaemon {
	t.Helper()
	d := &runningDaemon{cmd: cmd}
	d.cmd.Stderr = &d.stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	ending := func(sig os.Signal, well bool) func() {
		return func() {
			once.Do(func() {
				_ = d.cmd.Process.Signal(sig)
				if err := d.cmd.Wait(); well && err != nil || strings.Contains(d.stderr.String(), "goroutine ") {
					t.Errorf("oxbow serve: %v: %s", err, &d.stderr)
				}
			})
		}
	}
	d.end, d.kill = ending(syscall.SIGTERM, true), ending(syscall.SIGKILL, false)
	t.Cleanup(d.end)
	err := until(func() bool {
		found := listening.FindStringSubmatch(d.stderr.String())
		if found != nil {
			d.url = "http://" + found[1]
		}
		return found != nil
	})
	if err != nil {
		t.Fatalf("oxbow serve does not listen: %s", &d.stderr)
	}
	return d
}

// descriptors returns how many the daemon has open.
func (d *runningDaemon) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// goroutines returns how many the daemon has, by its own word.
func (d *runningDaemon) goroutines(t *testing.T) int {
	t.Helper()
	found := regexp.MustCompile(`(?m)^go_goroutines (\d+)$`).FindSubmatch(d.metrics(t))
	if found == nil {
		t.Fatal("no go_goroutines among the metrics")
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n
}

func (d *runningDaemon) metrics(t *testing.T) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	text, err := (&audit{client: client}).get(t.Context(), d.url+"/-/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return text
}
