package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	unitFolder  = "../../scripts/systemd"
	installedAs = "/usr/local/bin/oxbow" // what the units start

	// maxExposure is the score of `systemd-analyze security`, in tenths, from which a
	// service is not confined as it should be: 0 is the best, 100 no confinement at all.
	// Later versions of systemd may count more, so it is a little above today's 14.
	maxExposure = 20
)

// A unit is a file for systemd: values by section and key, such as "Service.User".
type unit map[string][]string

// readUnits returns the units by the names of their files.
func readUnits(t *testing.T) map[string]unit {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(unitFolder, "*.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no units: %v", err)
	}
	units := map[string]unit{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		u, err := parseUnit(string(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		units[filepath.Base(file)] = u
	}
	return units
}

func parseUnit(text string) (unit, error) {
	u, section := unit{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case ok:
			u[section+"."+key] = append(u[section+"."+key], value)
		default:
			return nil, fmt.Errorf("%q is no setting", line)
		}
	}
	return u, nil
}

func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is set %d times", key, len(u[key]))
	}
	return u[key][0]
}

// Whatever the units start is a command of this program, with flags that it has.
func TestUnitsStartWhatThereIs(t *testing.T) {
	started := map[string]string{}
	for name, u := range readUnits(t) {
		for _, line := range u["Service.ExecStart"] {
			words := strings.Fields(line)
			if words[0] != installedAs {
				t.Errorf("%s starts %s", name, words[0])
			}
			if _, err := arrange(commands(), words); err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
			}
			started[name] = strings.Join(words[1:], " ")
		}
	}
	if want := map[string]string{"oxbow.service": "serve", "oxbow-sync.service": "mirror sync"}; !maps.Equal(started, want) {
		t.Errorf("the units start %v, want %v", started, want)
	}
}

// Both services run as the same user within the same limits, as one may do the work of the
// other, and are given the time that a drain takes.
func TestUnitsAgree(t *testing.T) {
	units := readUnits(t)
	serve, sync := units["oxbow.service"], units["oxbow-sync.service"]
	own := []string{ // of one of them only, or different on purpose
		"Service.Type", "Service.ExecStart", "Service.ExecReload", "Service.WatchdogSec", "Service.Restart", "Service.RestartSec",
		"Service.RestartPreventExitStatus", "Service.Nice", "Service.IOSchedulingPriority",
	}
	keys := maps.Clone(serve)
	maps.Copy(keys, sync)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if strings.HasPrefix(key, "Service.") && !slices.Contains(own, key) && !slices.Equal(serve[key], sync[key]) {
			t.Errorf("%s is %q in one and %q in the other", key, serve[key], sync[key])
		}
	}
	const drain = 30 // seconds, of proxy.Options
	if stop, err := strconv.Atoi(serve.one(t, "Service.TimeoutStopSec")); err != nil || stop < drain+10 {
		t.Errorf("the server is killed after %d seconds: %v", stop, err)
	}
	if got := serve.one(t, "Service.Type"); got != "notify" {
		t.Errorf("the server is of type %s, and tells when it is ready", got)
	}
}

// systemdAnalyze runs systemd-analyze, whose option --offline is of version 250. It reads
// files and starts nothing.
func systemdAnalyze(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "--version").Output()
	if err != nil {
		t.Skipf("no systemd-analyze: %v", err)
	}
	version := 0
	if _, err := fmt.Sscanf(string(out), "systemd %d", &version); err != nil || version < 250 {
		t.Skipf("systemd-analyze is of version %d: %v", version, err)
	}
	return func(args ...string) (string, error) {
		out, err := exec.Command("systemd-analyze", append([]string{"--no-pager"}, args...)...).CombinedOutput()
		return string(out), err
	}
}

// systemd finds nothing wrong with the units, and the services are confined.
func TestUnitsPassSystemdAnalyze(t *testing.T) {
	analyze := systemdAnalyze(t)
	program, err := os.Executable() // in place of the one that is not installed here
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("SYSTEMD_UNIT_PATH", dir+":")
	var files []string
	for name := range readUnits(t) {
		text, err := os.ReadFile(filepath.Join(unitFolder, name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), installedAs, program)), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	out, err := analyze(append([]string{"verify", "--man=no"}, files...)...)
	for line := range strings.Lines(out) {
		if err != nil || strings.Contains(line, "oxbow") { // the machine's own units may be faulty
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v", err)
	}
	for _, file := range files {
		if filepath.Ext(file) != ".service" {
			continue
		}
		out, err := analyze("security", "--offline=true", fmt.Sprintf("--threshold=%d", maxExposure), file)
		if err != nil {
			t.Errorf("systemd-analyze security: %v\n%s", err, out)
		}
		if i := strings.Index(out, "Overall exposure"); i >= 0 {
			t.Log(strings.TrimSpace(out[i:]))
		}
	}
}
