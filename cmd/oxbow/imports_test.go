package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Packages import in one direction: cmd/oxbow → proxy → mirror → streams, cache,
// and the last two know neither each other nor HTTP. What is below a package
// belongs to it; streamstest, which is an upstream, may serve. Scripts import
// what they like, and nothing imports them.
func TestImports(t *testing.T) {
	allowed := map[string][]string{
		"cmd/oxbow": {"proxy", "mirror", "streams", "cache"},
		"proxy":     {"mirror", "streams", "cache"},
		"mirror":    {"streams", "cache"},
		"streams":   {},
		"cache":     {},
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "oxbow/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(strings.ReplaceAll(line, "oxbow/cmd/", "oxbow/cmd_"))
		from := topFolder(words[0])
		if from == "scripts" {
			continue
		}
		may, known := allowed[from]
		if !known {
			t.Errorf("%s has no rule", words[0])
			continue
		}
		seen++
		for _, imported := range words[1:] {
			if to := topFolder(imported); to != "" && to != from && !slices.Contains(may, to) {
				t.Errorf("%s imports %s", words[0], imported)
			}
			if imported == "net/http" && (from == "streams" || from == "cache") && words[0] != "oxbow/streams/streamstest" {
				t.Errorf("%s imports net/http", words[0])
			}
		}
	}
	if seen < len(allowed) {
		t.Errorf("go list names %d packages of the %d that have rules", seen, len(allowed))
	}
}

// topFolder returns the top folder of a package of this module, "" for others.
func topFolder(importPath string) string {
	rest, ok := strings.CutPrefix(importPath, "oxbow/")
	if !ok {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return strings.Replace(top, "cmd_", "cmd/", 1)
}
