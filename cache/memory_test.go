package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What an index of a large store may cost, in bytes of resident memory at the
// highest point of a process's life.
const (
	memoryPaths  = 100_000
	memoryLoad   = 100 << 20 // while the index is filled
	memoryLookup = 40 << 20  // while it is opened and every path looked up
)

// TestIndexMemory promises that a store of 100,000 paths needs little memory.
// Each figure is that of a process of its own, without the race detector,
// which multiplies memory.
func TestIndexMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	binary := plainBinary(t)
	dir := filepath.Join(t.TempDir(), "store")
	for _, test := range []struct {
		helper string
		limit  int64
	}{
		{"load", memoryLoad},
		{"lookup", memoryLookup},
	} {
		// On a busy machine the garbage collector may come late, which says
		// nothing about the index: the best of six counts.
		peak := int64(math.MaxInt64)
		for try := 0; try < 6 && peak > test.limit; try++ {
			peak = min(peak, runMemoryHelper(t, binary, test.helper, dir))
		}
		t.Logf("%s of %d paths: at most %.1f MB resident, %d MB allowed", test.helper, memoryPaths, float64(peak)/(1<<20), test.limit>>20)
		if peak > test.limit {
			t.Errorf("%s took %d bytes, more than %d", test.helper, peak, test.limit)
		}
	}
}

func runMemoryHelper(t *testing.T, binary, helper, dir string) (peak int64) {
	t.Helper()
	if helper == "load" {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, "-test.run=^TestMemoryHelper$")
	cmd.Env = append(os.Environ(), "OXBOW_TEST_MEMORY="+helper, "OXBOW_TEST_STORE="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", helper, err, out)
	}
	if _, err := fmt.Sscanln(string(out), &peak); err != nil {
		t.Fatalf("%s: %v\n%s", helper, err, out)
	}
	return peak
}

// plainBinary returns this test binary built without the race detector.
func plainBinary(t *testing.T) string {
	if !raceEnabled {
		return os.Args[0]
	}
	name := filepath.Join(t.TempDir(), "plain.test")
	cmd := exec.Command("go", "test", "-c", "-o", name, ".")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("there is no go command to build a binary without the race detector")
	}
	if err != nil {
		t.Fatalf("cannot build a binary without the race detector: %v\n%s", err, out)
	}
	return name
}

func memoryEntry(i int) Entry {
	path := fmt.Sprintf("release-%02d/amd64/%d/ga-24.04/generic/boot-kernel-%06d", i%40, 20260101+i%28, i)
	return Entry{Kind: KindItem, Digest: Sum([]byte(path)), Size: int64(1_000_000 + i), Path: path}
}

// TestMemoryHelper is no test: it is what TestIndexMemory runs as a process.
func TestMemoryHelper(t *testing.T) {
	dir := os.Getenv("OXBOW_TEST_STORE")
	switch os.Getenv("OXBOW_TEST_MEMORY") {
	case "":
		t.Skip("runs only as a helper")
	case "load":
		loadPaths(t, dir)
	case "lookup":
		lookupPaths(t, dir)
	}
	fmt.Println(peakMemory(t))
}

func loadPaths(t *testing.T, dir string) {
	s, err := Create(dir, &Options{Reserve: 1 << 20, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Stream: "stable", Created: time.Unix(1_700_000_000, 0), Reason: "test"}
	facts := make(map[Digest]blobFacts)
	for i := range memoryPaths {
		e := memoryEntry(i)
		m.Entries = append(m.Entries, e)
		facts[e.Digest] = blobFacts{Size: e.Size, XXH64: uint64(i), Proven: m.Created}
		if len(facts) == 1000 {
			if err := s.index.putBlobs(facts); err != nil {
				t.Fatal(err)
			}
			clear(facts)
		}
	}
	if err := s.index.putBlobs(facts); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publish(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func lookupPaths(t *testing.T, dir string) {
	s, err := Open(dir, &Options{Reserve: 1 << 20, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range memoryPaths {
		e := memoryEntry(i)
		if found, err := s.Find("stable", Published, e.Path); err != nil || found.Entry != e {
			t.Fatalf("found %v, %v; want %v", found, err, e)
		}
		if facts, err := s.index.blob(e.Digest); err != nil || facts.XXH64 != uint64(i) {
			t.Fatalf("blob of %s: %v, %v", e.Path, facts, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// peakMemory returns the most resident memory that the process had, in bytes.
func peakMemory(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	field, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kilobytes, err := strconv.ParseInt(field, 10, 64)
	if err != nil {
		t.Fatalf("cannot read the peak of memory: %v", err)
	}
	return kilobytes << 10
}
