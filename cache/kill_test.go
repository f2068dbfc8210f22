package cache

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// killMoments is how often TestPublishKilled kills its helper.
const killMoments = 20

// TestPublishKilled kills a process that publishes and sweeps without pause,
// at random moments: each time the store opens with a snapshot that is whole,
// and not older than the last one that was heard of.
func TestPublishKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow")
	}
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Create(dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, s, "stable", known("k", "0"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	heard := 0
	for range killMoments {
		heard = publishUntilKilled(t, dir, time.Duration(random.Int64N(int64(200*time.Millisecond))))
		if t.Failed() {
			return
		}
		wantWhole(t, dir, heard)
	}
	t.Logf("%d snapshots in %d lives", heard, killMoments)
}

// publishUntilKilled returns how many snapshots the helper said were published.
func publishUntilKilled(t *testing.T, dir string, after time.Duration) (heard int) {
	t.Helper()
	return countUntilKilled(t, "TestKillHelper", "OXBOW_TEST_KILL="+dir, after)
}

// countUntilKilled runs a test of this binary as a helper, kills it a while after it has
// begun, and returns the last number that it printed.
func countUntilKilled(t *testing.T, helper, env string, after time.Duration) (heard int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+helper+"$")
	cmd.Env = append(os.Environ(), env)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, &heard); err != nil {
		t.Errorf("the helper did not begin: %v", err)
	}
	kill := time.AfterFunc(after, func() { cmd.Process.Kill() })
	defer kill.Stop()
	for n := 0; ; heard = n {
		if _, err := fmt.Fscanln(out, &n); err != nil {
			break
		}
	}
	cmd.Wait()
	return heard
}

// wantWhole opens and checks the store that a killed process left, which had
// at least that many snapshots.
func wantWhole(t *testing.T, dir string, snapshots int) {
	t.Helper()
	s, err := Open(dir, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.Snapshots("stable")
	if err != nil || len(list) < snapshots || len(list) > snapshots+1 {
		t.Errorf("there are %d snapshots (%v), want %d or one more", len(list), err, snapshots)
	}
	wantOldOrNew(t, s, list[0].ID, list[0].ID)
	wantProblems(t, s)
}

// TestKillHelper is no test: it is what TestPublishKilled runs and kills.
func TestKillHelper(t *testing.T) {
	dir := os.Getenv("OXBOW_TEST_KILL")
	if dir == "" {
		t.Skip("runs only as a helper")
	}
	s, err := Open(dir, &Options{Reserve: 1 << 20, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	for {
		list, err := s.Snapshots("stable")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(len(list))
		lease := s.Lease()
		var entries []Entry
		for i := range 5 {
			text := fmt.Sprintf("file %d of snapshot %d", i, len(list)/(i+1))
			lease.Add(Sum([]byte(text)))
			entries = append(entries, put(t, s, KindItem, fmt.Sprintf("file-%d", i), text))
		}
		ingest(t, s, fmt.Appendf(nil, "named by nothing %d", len(list)))
		publish(t, s, "stable", entries...)
		lease.Release()
		plan, err := s.PlanSweep(t.Context(), SweepOptions{})
		if err == nil {
			_, err = plan.Execute(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
