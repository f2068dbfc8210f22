package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestALostCurrentComesBack promises that a stream stays in service, whole,
// when the file that names its current snapshot is lost or nonsense.
func TestALostCurrentComesBack(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	for _, test := range []struct {
		summary string
		harm    func(t *testing.T, s *Store)
	}{
		{"lost", func(t *testing.T, s *Store) { removeFile(t, s, currentName("stable")) }},
		{"nonsense", func(t *testing.T, s *Store) { overwrite(t, s, currentName("stable"), "nonsense") }},
		{"empty", func(t *testing.T, s *Store) { overwrite(t, s, currentName("stable"), "") }},
		{"long", func(t *testing.T, s *Store) { overwrite(t, s, currentName("stable"), strings.Repeat("0", 101)) }},
	} {
		for _, how := range []string{"open", "rebuild"} {
			t.Run(test.summary+", "+how, func(t *testing.T) {
				t.Parallel()
				s, err := Open(copyStore(t, two.dir), testOptions(t))
				if err != nil {
					t.Fatal(err)
				}
				test.harm(t, s)
				wantProblems(t, s, DanglingCurrent)
				if _, err := s.PlanSweep(t.Context(), SweepOptions{}); err == nil {
					t.Error("a sweep is planned although the current snapshot is not known")
				}
				if how == "rebuild" {
					err = s.Rebuild(t.Context())
					checkAtEnd(t, s)
				} else if err = s.Close(); err == nil {
					s = reopenStore(t, s.dir)
				}
				if err != nil {
					t.Fatal(err)
				}
				two.wantAll(t, s)
				if id, err := s.files.currentID("stable"); err != nil || id != two.second {
					t.Errorf("current is %v (%v), want %v", id, err, two.second)
				}
				if _, lines := planSweep(t, s); len(lines) != 1 || !strings.Contains(lines[0], two.kept.String()) {
					t.Errorf("the plan is %q", lines)
				}
			})
		}
	}
}

// TestALostCurrentOfOneSnapshotComesBack promises it for a stream that has
// published once.
func TestALostCurrentOfOneSnapshotComesBack(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "a", "content")
	id := publish(t, s, "stable", e)
	removeFile(t, s, currentName("stable"))
	if _, err := s.PlanSweep(t.Context(), SweepOptions{}); err == nil || !strings.Contains(err.Error(), "the file current/stable is lost; `oxbow store check` says more") {
		t.Errorf("planned a sweep: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantFound(t, reopenStore(t, s.dir), "stable", Published, "a", e, id)
}

// TestAFailedFirstPublicationIsSwept promises that what it leaves does not keep
// others from being swept.
func TestAFailedFirstPublicationIsSwept(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	m := following(t, s, "stable", put(t, s, KindItem, "a", "content"))
	flush(t, s)
	broken := errors.New("broken")
	s.index.trace = func(string) error { return broken }
	if _, err := s.Publish(t.Context(), m); !errors.Is(err, broken) {
		t.Fatalf("published: %v", err)
	}
	s.index.trace = nil
	plan, lines := planSweep(t, s)
	if len(lines) != 2 {
		t.Errorf("the plan is %q", lines)
	}
	execute(t, plan, SweepResult{Removed: 2, Bytes: plan.Bytes()})
}

// TestADamagedCurrentManifest promises what the report of a check advises, and
// that the next publication helps: also before the index was made anew.
func TestADamagedCurrentManifest(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	manifest := manifestName("stable", two.second)
	for _, test := range []struct {
		summary string
		harm    func(t *testing.T, s *Store)
	}{
		{"an entry", func(t *testing.T, s *Store) { overwrite(t, s, manifest, changed(t, s, manifest, "new", "now")) }},
		{"the header", func(t *testing.T, s *Store) { overwrite(t, s, manifest, changed(t, s, manifest, "oxbow", "oxbox")) }},
		{"lost", func(t *testing.T, s *Store) { removeFile(t, s, manifest) }},
	} {
		for _, rebuild := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rebuild %v", test.summary, rebuild), func(t *testing.T) {
				t.Parallel()
				s, err := Open(copyStore(t, two.dir), testOptions(t))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				test.harm(t, s)
				parent := two.second
				if rebuild {
					if err := s.Rebuild(t.Context()); err != nil {
						t.Fatal(err)
					}
					parent = two.first
					wantFound(t, s, "stable", Published, "old", two.old, two.first)
				}
				m := following(t, s, "stable", two.new)
				if m.Parent != parent {
					t.Errorf("%v is current, want %v", m.Parent, parent)
				}
				m.Created = m.Created.Add(time.Hour)
				id, err := s.Publish(t.Context(), m)
				if err != nil {
					t.Fatal(err)
				}
				wantFound(t, s, "stable", Published, "new", two.new, id)
				report, err := s.Check(context.Background(), CheckOptions{})
				if err != nil || report.OK() != rebuild {
					t.Fatalf("check: %v, %v", err, report.Err())
				}
				if !rebuild && (len(report.Problems) != 1 || report.Problems[0].Remedy != remedyManifest || report.Problems[0].File != manifest) {
					t.Errorf("found %v", report.Problems)
				}
				if rebuild {
					return
				}

				// "remove current/STREAM and snapshots/STREAM, then run `oxbow mirror sync`"
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(os.Remove(filepath.Join(s.dir, currentName("stable"))), os.RemoveAll(filepath.Join(s.dir, "snapshots/stable"))); err != nil {
					t.Fatal(err)
				}
				again := reopenStore(t, s.dir)
				publish(t, again, "stable", two.new)
			})
		}
	}
}

func removeFile(t *testing.T, s *Store, name string) {
	t.Helper()
	if err := s.root.Remove(name); err != nil {
		t.Fatal(err)
	}
}
