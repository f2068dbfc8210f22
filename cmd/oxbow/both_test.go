package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A changing command prints the same, on both outputs, and ends with the same
// status whether it has the store to itself or a daemon does its work.
func TestBothWays(t *testing.T) {
	alone, asked := newSide(t), newSide(t)
	asked.daemon(t)
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
		if step.signed {
			want.Stdout, got.Stdout = want.Stdout[:100], got.Stdout[:100]
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
	args   []string    // UPSTREAM, DIR and CURRENT are replaced
	status int
	signed bool // it prints a text that each site signs with its own key
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
	{args: []string{"snapshot", "diff", "stable", "upstream"}},
	{args: []string{"snapshot", "diff", "upstream", "CURRENT", "--json"}},
	{args: []string{"snapshot", "diff", "zz", "upstream"}, status: exitFailed},
	{args: []string{"mirror", "sync", "stable", "--workers", "2"}},
	{change: (*side).badDay, args: []string{"mirror", "sync"}, status: exitPartial},
	{args: []string{"mirror", "sync", "--json"}, status: exitPartial},
	{change: (*side).older, args: []string{"mirror", "sync"}, status: exitUnverified},
	{args: []string{"snapshot", "diff", "upstream", "stable"}, status: exitUnverified},
	{args: []string{"mirror", "sync", "--allow-older", "stable"}},
	{args: []string{"mirror", "sync", "UPSTREAM", "--name", "second", "--keyring", "DIR/upstream.gpg"}, status: exitFailed},
	{args: []string{"mirror", "sync", "PLAIN", "--name", "second", "--path", "/second/", "--keyring", "DIR/plain.gpg"}},
	{args: []string{"snapshot", "pin", "CURRENT", "the", "last", "good", "one"}},
	{args: []string{"snapshot", "pin", "zz"}, status: exitFailed},
	{args: []string{"snapshot", "unpin", "CURRENT"}},
	{args: []string{"snapshot", "unpin", "CURRENT"}, status: exitFailed},
	{args: []string{"snapshot", "rollback", "stable", "CURRENT"}, status: exitFailed},
	{args: []string{"snapshot", "hold", "stable", "release=noble", "version_name=20250718"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"snapshot", "hold", "stable", "release=jammy", "--remove"}, status: exitFailed},
	{args: []string{"snapshot", "hold", "stable", "release=noble version_name=20250718", "--remove"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"snapshot", "hold", "absent", "release=noble"}, status: exitFailed},
	{args: []string{"snapshot", "rollback", "absent"}, status: exitFailed},
	{args: []string{"snapshot", "rollback", "stable", "zz"}, status: exitFailed},
	{args: []string{"snapshot", "rollback", "stable", "--resume"}, status: exitFailed},
	{args: []string{"snapshot", "rollback", "stable"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"mirror", "sync", "stable", "--dry-run"}},
	{args: []string{"snapshot", "rollback", "stable", "--json"}},
	{args: []string{"mirror", "sync", "stable", "--json"}},
	{args: []string{"snapshot", "rollback", "stable", "--resume"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"store", "sweep", "--dry-run"}},
	{args: []string{"store", "sweep", "--json"}},
	{args: []string{"store", "sweep"}},
	{args: []string{"bundle", "export", "--out", "DIR/bundle.tar", "stable"}},
	{args: []string{"bundle", "export", "--out", "DIR/bundle.tar", "stable"}},
	{args: []string{"bundle", "import", "DIR/bundle.tar"}, status: exitUnverified},
	{args: []string{"bundle", "import", "DIR/upstream.gpg"}, status: exitUnverified},
	{args: []string{"key", "import", "DIR/upstream.gpg"}},
	{args: []string{"bundle", "have"}, signed: true},
	{args: []string{"mirror", "export-tree", "stable", "DIR/www", "--dry-run"}},
	{args: []string{"mirror", "export-tree", "stable", "DIR/www"}},
	{args: []string{"mirror", "export-tree", "stable", "DIR/www", "--json"}},
	{args: []string{"mirror", "export-tree", "stable", "DIR/bundle.tar"}, status: exitFailed},
	{args: []string{"mirror", "export-tree", "zz", "DIR/www"}, status: exitFailed},
	{args: []string{"mirror", "import-tree", "DIR/www/current", "third", "--dry-run"}, status: exitFailed},
	{args: []string{"mirror", "import-tree", "DIR/www/current", "stable"}, status: exitUnverified},
	{change: (*side).writeTree, args: []string{"mirror", "import-tree", "DIR/tree", "--keyring", "DIR/upstream.gpg", "--dry-run", "--json"}},
	{args: []string{"mirror", "import-tree", "DIR/tree", "arch=amd64", "--max", "1", "--keyring", "DIR/upstream.gpg"}, status: exitPartial},
	{args: []string{"mirror", "import-tree", "DIR/tree", "tree", "--json"}, status: exitPartial},
	{args: []string{"mirror", "drop", "tree"}},
	{args: []string{"mirror", "drop", "absent"}, status: exitFailed},
	{args: []string{"mirror", "drop", "second", "--dry-run"}},
	{args: []string{"mirror", "drop", "second", "--json"}},
	{args: []string{"mirror", "drop", "second"}, status: exitFailed},
	{args: []string{"mirror", "drop", "stable", "absent"}, status: exitFailed},
	{args: []string{"mirror", "drop", "stable", "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04", "--dry-run"}},
	{args: []string{"mirror", "drop", "stable", "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04", "--json"}},
	{args: []string{"mirror", "sync", "stable"}},
	{args: []string{"store", "rebuild"}},
	{args: []string{"store", "check"}},
	{args: []string{"store", "check", "--deep", "--json"}},
	{args: []string{"store", "check", "--sample", "100"}},
	{change: (*side).damage, args: []string{"store", "check", "--deep"}, status: exitFailed},
	{args: []string{"store", "check", "--repair", "--from", "DIR"}},
	{change: (*side).damage, args: []string{"store", "check", "--repair", "--json"}},
	{args: []string{"store", "check", "--repair"}},
}
