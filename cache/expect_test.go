package cache

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

var expectedText = []byte("of a volume")

// expected takes in a blob that nothing names, and has it be expected by a bundle.
func expected(t *testing.T, s *Store) (bundle, d Digest) {
	t.Helper()
	d = ingest(t, s, expectedText)
	flush(t, s)
	bundle = Sum([]byte("a bundle"))
	if err := s.Expect(bundle, []Digest{d}); err != nil {
		t.Fatal(err)
	}
	return bundle, d
}

// What is expected stays through sweeps, until nothing of it came for sixty days; then it goes, and what came of it with the next.
func TestExpectedBlobsStay(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	_, d := expected(t, s)
	now := time.Now()
	s.opts.Now = func() time.Time { return now }
	if _, lines := planSweep(t, s); len(lines) > 0 {
		t.Errorf("a sweep would remove %q", lines)
	}
	now = now.Add(expectedAge + time.Hour)
	plan, lines := planSweep(t, s)
	if len(plan.Items) != 2 {
		t.Fatalf("after sixty days a sweep would remove %q", lines)
	}
	execute(t, plan, SweepResult{Removed: 2, Bytes: plan.Bytes()})
	wantNames(t, s, bundlesDir)
	if s.Has(d) {
		t.Error("the blob is still there")
	}
}

// An import that goes on between the plan of a sweep and its execution keeps what it expects.
func TestExpectedAnewStays(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	bundle, d := expected(t, s)
	long := time.Now().Add(-expectedAge - time.Hour)
	if err := os.Chtimes(filepath.Join(s.dir, expectedName(bundle)), long, long); err != nil {
		t.Fatal(err)
	}
	plan, lines := planSweep(t, s)
	if len(plan.Items) != 2 {
		t.Fatalf("a sweep would remove %q", lines)
	}
	if err := s.Expect(bundle, []Digest{d}); err != nil {
		t.Fatal(err)
	}
	execute(t, plan, SweepResult{Spared: 2})
	wantNames(t, s, bundlesDir, bundle.String())
	wantBlob(t, s, expectedText)
	if err := s.Unexpect(bundle); err != nil {
		t.Fatal(err)
	}
	if _, lines := planSweep(t, s); len(lines) != 1 {
		t.Errorf("once nothing is expected, a sweep would remove %q", lines)
	}
}

// What is expected and was pulled is not evicted meanwhile.
func TestExpectedIsNotEvicted(t *testing.T) {
	t.Parallel()
	s, pass := pullStore(t, 250)
	c := contents(4, 100)
	pull(t, s, c[0])
	if err := s.Expect(Sum([]byte("a bundle")), []Digest{Sum(c[0]), Sum(c[3])}); err != nil {
		t.Fatal(err)
	}
	for _, data := range c[1:3] {
		pass(time.Minute)
		pull(t, s, data)
	}
	s.SetCacheLimit(100)
	evict(t, s)
	wantHere(t, s, c, 0, 2)
	wantPulled(t, s, c, 2)
}
