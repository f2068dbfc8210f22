package streamstest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"oxbow/streams"
)

// parse reads what tree publishes as a mirror does.
func parse(t *testing.T, tree *Tree) (*streams.Index, []*streams.Products) {
	t.Helper()
	site := tree.Render()
	text, err := streams.ClearText(site.Document(IndexPath))
	if err != nil {
		t.Fatal(err)
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		t.Fatal(err)
	}
	var lists []*streams.Products
	for _, entry := range x.Entries {
		text, err := streams.ClearText(site.Document(string(entry.Path)))
		if err != nil {
			t.Fatalf("%s: %v", entry.Path, err)
		}
		l, err := streams.ParseProducts(text)
		if err != nil {
			t.Fatalf("%s: %v", entry.Path, err)
		}
		lists = append(lists, l)
	}
	return x, lists
}

// Undisturbed trees break no rule of the clients they are made for.
func TestTreesKeepTheRules(t *testing.T) {
	tests := []struct {
		name    string
		tree    *Tree
		profile streams.Profile
	}{
		{"MAAS", MAAS(Shape{}), streams.All},
		{"large MAAS", MAAS(Shape{
			Label: "candidate", Releases: []string{"focal", "jammy", "noble", "questing"}, Arches: []string{"amd64", "arm64"},
			Kernels: []string{"ga", "hwe", "hwe-edge"}, CentOS: []string{"7.0", "8"}, Versions: 3,
		}), streams.All},
		{"MAAS with notifications", MAAS(Shape{Notifications: true}), streams.Legacy},
		{"plain", Plain(PlainShape{Products: 2, Versions: 2, Items: 5}), streams.Plain},
	}
	for _, test := range tests {
		x, lists := parse(t, test.tree)
		for _, finding := range streams.Lint(x, lists, test.profile) {
			t.Errorf("%s: %v", test.name, finding)
		}
		if x.MAAS() != (test.profile != streams.Plain) {
			t.Errorf("%s: taken for the other kind of stream", test.name)
		}
	}
}

// Whatever happens in random trees, a mirror can read them.
func TestRandomTreesParse(t *testing.T) {
	var items, empty, broken int
	for seed := range uint64(60) {
		tree := Random(seed)
		_, lists := parse(t, tree)
		for _, l := range lists {
			if len(l.Products) == 0 {
				empty++
			}
		}
		for e := range tree.Entries() {
			items++
			if e.Item.File != nil && e.Item.File.Broken != Whole {
				broken++
			}
		}
	}
	if items == 0 || empty == 0 || broken == 0 {
		t.Errorf("60 trees have %d items, %d of them broken, and %d empty lists: too tame", items, broken, empty)
	}
}

// The demo is an ordinary program: it must not get the flags of a test.
func TestPackageIsNoTest(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if deps := strings.Fields(string(out)); slices.Contains(deps, "testing") || slices.Contains(deps, "net/http/httptest") {
		t.Error("the package imports testing")
	}
}
