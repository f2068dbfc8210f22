package cache

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var (
	expectedText = []byte("of a volume")
	aboutBundle  = []byte("# a bundle\n")
)

// expected takes in a blob that nothing names, and has it be expected by a bundle.
func expected(t *testing.T, s *Store) (bundle, d Digest) {
	t.Helper()
	d = ingest(t, s, expectedText)
	flush(t, s)
	if err := s.Expect(aboutBundle, []Digest{d}); err != nil {
		t.Fatal(err)
	}
	return Sum(aboutBundle), d
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
	if err := s.Expect(aboutBundle, []Digest{d}); err != nil {
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
	if err := s.Expect(aboutBundle, []Digest{Sum(c[0]), Sum(c[3])}); err != nil {
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

// What is expected is told with what it is about, since when and until when: also by a note of an older program, which has digests
// alone. The first date stays as the note is written anew; a note that a bad disk changed tells of the blobs still.
func TestExpectedIsTold(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	bundle, d := expected(t, s)
	name := filepath.Join(s.dir, expectedName(bundle))
	long := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	told := func() Expected {
		t.Helper()
		all, err := s.Files().Expected()
		if err != nil || len(all) != 1 {
			t.Fatalf("%d are told: %v", len(all), err)
		}
		x := all[0]
		if x.ID != bundle || !slices.Equal(x.Blobs, []Digest{d}) || !x.Until.Equal(x.Last.Add(expectedAge)) || x.Since.After(x.Last) {
			t.Errorf("told is %+v", x)
		}
		return x
	}
	if x := told(); string(x.About) != string(aboutBundle) || time.Since(x.Since) > time.Minute {
		t.Errorf("it is about %q, since %v", x.About, x.Since)
	}
	if err := os.WriteFile(name, []byte(d.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, long, long); err != nil {
		t.Fatal(err)
	}
	if x := told(); x.About != nil || !x.Since.Equal(long) {
		t.Errorf("of an older program's note: about %q, since %v", x.About, x.Since)
	}
	for range 2 {
		if err := s.Expect(aboutBundle, []Digest{d}); err != nil {
			t.Fatal(err)
		}
		if x := told(); string(x.About) != string(aboutBundle) || !x.Since.Equal(long) || time.Since(x.Last) > time.Minute {
			t.Errorf("noted anew it is about %q, since %v, last %v", x.About, x.Since, x.Last)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text[:len(text)-3], 0o644); err != nil {
		t.Fatal(err)
	}
	if x := told(); x.About != nil {
		t.Errorf("of a note that is cut off: %q", x.About)
	}
	if !s.Expects(bundle) || s.Expects(d) {
		t.Error("what is expected is not known")
	}
	if f := s.Files(); !f.Holds(d, int64(len(expectedText))) || f.Holds(d, 1) || f.Holds(bundle, 1) {
		t.Error("what is there is not known")
	}
}
