package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/streams/streamstest"
)

// A changing command prints the same, on both outputs, and ends with the same
// status whether it has the store to itself or a daemon does its work.
func TestBothWays(t *testing.T) {
	alone, asked := newSide(t), newSide(t)
	asked.serveUntil(t, syscall.SIGTERM)
	ran := map[string]bool{}
	for n, step := range bothSteps {
		if step.change != nil {
			step.change(alone)
			step.change(asked)
		}
		want, got := alone.oxbow(step.args...), asked.oxbow(step.args...)
		if want.Status != step.status {
			t.Errorf("step %d, oxbow %q: status %d, want %d: %s", n, step.args, want.Status, step.status, want.Stderr)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("step %d, oxbow %q (-alone +asked):\n%s", n, step.args, diff)
		}
		ran[strings.Join(step.args[:2], " ")] = true
	}
	for name := range works {
		if !ran[name] {
			t.Errorf("`oxbow %s` has no step", name)
		}
	}
}

// bothSteps are run one after the other on the same store.
var bothSteps = []struct {
	change func(*side) // of the world, before
	args   []string    // UPSTREAM and DIR are replaced
	status int
}{
	{args: []string{"key", "generate"}, status: exitFailed},
	{args: []string{"key", "generate", "--replace"}},
	{args: []string{"key", "import", "DIR/upstream.gpg", "--replace"}, status: exitFailed},
	{args: []string{"key", "import", "DIR/first.asc", "--replace"}},
	{args: []string{"mirror", "sync"}, status: exitFailed},
	{args: []string{"mirror", "sync", "UPSTREAM", "arch=riscv", "--keyring", "DIR/upstream.gpg"}, status: exitFailed},
	{args: []string{"mirror", "sync", "UPSTREAM", "arch=amd64", "--max", "1", "--dry-run", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "arch=amd64", "--max", "1", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "--dry-run", "--json", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"mirror", "sync", "--json"}},
	{args: []string{"mirror", "sync", "stable", "other"}, status: exitFailed},
	{change: (*side).day, args: []string{"mirror", "sync", "stable", "--dry-run"}},
	{args: []string{"mirror", "sync", "stable", "--workers", "2"}},
	{change: (*side).badDay, args: []string{"mirror", "sync"}, status: exitPartial},
	{args: []string{"mirror", "sync", "--json"}, status: exitPartial},
	{change: (*side).older, args: []string{"mirror", "sync"}, status: exitUnverified},
	{args: []string{"mirror", "sync", "--allow-older", "stable"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "--name", "second", "--keyring", "DIR/upstream.gpg"}, status: exitFailed},
	{args: []string{"mirror", "sync", "UPSTREAM", "--name", "second", "--path", "/second/", "--keyring", "DIR/upstream.gpg"}},
	{args: []string{"store", "sweep", "--dry-run"}},
	{args: []string{"store", "sweep", "--json"}},
	{args: []string{"store", "sweep"}},
	{args: []string{"store", "rebuild"}},
	{args: []string{"store", "check"}},
	{args: []string{"store", "check", "--deep", "--json"}},
	{change: (*side).damage, args: []string{"store", "check", "--deep"}, status: exitFailed},
}

// A side is a store with an upstream of its own.
type side struct {
	t      *testing.T
	dir    string
	tree   *streamstest.Tree
	before *streamstest.Tree // the day before
	up     *streamstest.Upstream
	url    string
}

// newSide returns a side whose store has a key and nothing else.
func newSide(t *testing.T) *side {
	s := &side{t: t, dir: t.TempDir(), tree: streamstest.MAAS(streamstest.Shape{})}
	s.up = streamstest.NewUpstream(s.tree)
	server := httptest.NewServer(http.StripPrefix(demoPath, s.up))
	t.Cleanup(server.Close)
	s.url = server.URL + demoPath
	for _, args := range [][]string{{"key", "generate"}, {"key", "export", "--secret"}} {
		out := s.oxbow(args...)
		if out.Status != 0 {
			t.Fatalf("oxbow %q: %s", args, out.Stderr)
		}
		s.write("first.asc", []byte(out.Stdout))
	}
	s.write("upstream.gpg", s.tree.Keyring())
	return s
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

// line returns the command line, in which UPSTREAM and DIR are replaced.
func (s *side) line(args ...string) []string {
	line := append([]string{"oxbow", "--store", filepath.Join(s.dir, "store")}, args...)
	replace := strings.NewReplacer("UPSTREAM", s.url, "DIR", s.dir)
	for i := range line {
		line[i] = replace.Replace(line[i])
	}
	return line
}

var changing = regexp.MustCompile(`\b([0-9a-f]{64}|[0-9a-f]{12}|[0-9A-F]{40})\b|\b20\d\d-\d\d-\d\d[ T][0-9:]+Z`)

func (s *side) alike(text string) string {
	text = strings.NewReplacer(s.url, "UPSTREAM", s.dir, "DIR").Replace(text)
	if strings.HasPrefix(text, "-----BEGIN") {
		return text
	}
	return changing.ReplaceAllString(text, "…")
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

func (s *side) older() { s.up.Publish(s.before) }

// damage changes a bit of the largest blob.
func (s *side) damage() {
	if err := damageLargest(filepath.Join(s.dir, "store")); err != nil {
		s.t.Fatal(err)
	}
}
