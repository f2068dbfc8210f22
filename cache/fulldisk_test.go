package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A fullStep is something that a store is asked to do while its disk is full, and again when there is room.
type fullStep struct {
	what  string
	frees bool // it makes room, and needs little for that
	do    func(t *testing.T, s *Store) error
}

// fullSteps do not build on one another.
func fullSteps(pinned Digest, expired map[Digest]string) []fullStep {
	publishOf := func(stream string, entries ...Entry) func(t *testing.T, s *Store) error {
		return func(t *testing.T, s *Store) error {
			_, err := s.Publish(t.Context(), following(t, s, stream, entries...))
			return err
		}
	}
	named := func(s *Store) error { return s.WriteState("stable", make([]byte, 100<<10)) }
	return []fullStep{
		{"publish what is here", false, publishOf("stable", itemOf("a", []byte("content")))},
		{"publish a first snapshot", false, publishOf("fresh", itemOf("a", []byte("content")), known("k", "x"))},
		{"publish what was pulled", false, func(t *testing.T, s *Store) error {
			if err := takeIn(t, s, content(1, 100)); err != nil { // it may have been evicted
				return err
			}
			return publishOf("pulling", itemOf("p", content(1, 100)))(t, s)
		}},
		{"pin", false, func(t *testing.T, s *Store) error { return s.Pin(t.Context(), pinned, strings.Repeat("x", 1000)) }},
		{"write a state", false, func(_ *testing.T, s *Store) error { return named(s) }},
		{"write a key", false, func(_ *testing.T, s *Store) error { return s.WriteKey("site.asc", make([]byte, 100<<10)) }},
		{"write the schedule", false, func(_ *testing.T, s *Store) error { return s.WriteSchedule(make([]byte, 100<<10)) }},
		{"note", false, func(_ *testing.T, s *Store) error { return s.SetNote("k", []byte("v")) }},
		{"take in small blobs", false, func(t *testing.T, s *Store) error { return takeIn(t, s, content(2, 100<<10)) }},
		{"take in a large blob", false, func(t *testing.T, s *Store) error { return takeIn(t, s, content(3, 2<<20)) }},
		{"pull", false, func(t *testing.T, s *Store) error {
			in, err := s.BeginPull(t.Context(), wantOf(content(4, 100<<10)))
			if err != nil {
				return errIfNot(err, ErrExists)
			}
			defer in.Close()
			if err := in.writeMissing(content(4, 100<<10)); err != nil {
				return err
			}
			_, err = in.Commit(t.Context())
			return errors.Join(err, s.Flush(t.Context()))
		}},
		{"check", false, func(t *testing.T, s *Store) error {
			r, err := s.Check(t.Context(), CheckOptions{Deep: true})
			if err == nil {
				err = r.Err()
			}
			return err
		}},
		{"rebuild", false, func(t *testing.T, s *Store) error { return s.Rebuild(t.Context()) }},
		{"sweep", true, func(t *testing.T, s *Store) error {
			plan, err := s.PlanSweep(t.Context(), SweepOptions{Expired: func(string, []Snapshot) map[Digest]string { return expired }})
			if err == nil {
				_, err = plan.Execute(t.Context())
			}
			return err
		}},
		{"drop", true, func(t *testing.T, s *Store) error { return s.Drop(t.Context(), "dropped") }},
		{"forget a state", true, func(_ *testing.T, s *Store) error { return s.RemoveState("dropped") }},
		{"evict", true, func(_ *testing.T, s *Store) error { s.SetCacheLimit(1); return s.evict(0) }},
	}
}

func errIfNot(err, allowed error) error {
	if errors.Is(err, allowed) {
		return nil
	}
	return err
}

// makeRoom removes a file that fills a disk. A child of another test that is about to start may hold it open for a moment.
func makeRoom(t *testing.T, others string) {
	t.Helper()
	var before, now unix.Statfs_t
	err := unix.Statfs(filepath.Dir(others), &before)
	if err = errors.Join(err, os.Remove(others)); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of a file", func() bool {
		if err := unix.Statfs(filepath.Dir(others), &now); err != nil {
			t.Fatal(err)
		}
		return now.Bfree > before.Bfree
	})
}

// TestEveryOperationOnAFullDisk promises that whatever is asked of a store whose disk is full, for a bit or to the last byte, is done
// or refused with what to do; that what was published is served meanwhile; that what makes room needs little; and
// that all is done when there is room.
func TestEveryOperationOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ leave, ballast int64 }{
		{0, -1}, {64 << 10, -1}, {1 << 20, -1}, {leastRoom + 6<<20, -1}, {indexRoom + 64<<10, -1}, {0, 48 << 20},
	} {
		t.Run(fmt.Sprintf("%d left, ballast %d", test.leave, test.ballast), func(t *testing.T) {
			t.Parallel()
			s := createOnSmallDisk(t, "120m", -1, test.ballast)
			endTending(s)
			e := put(t, s, KindItem, "a", "content")
			old := publish(t, s, "stable", put(t, s, KindItem, "old", "old content"), put(t, s, KindItem, "k", "known later"))
			first := publish(t, s, "stable", e, known("k", "known later"))
			publish(t, s, "dropped", e)
			publish(t, s, "pulling", knownOf("p", content(1, 100)))
			pull(t, s, content(1, 100))
			if err := s.WriteState("dropped", nil); err != nil {
				t.Fatal(err)
			}
			steps := fullSteps(first, map[Digest]string{old: "it is old"})

			others := fillDisk(t, s, test.leave)
			var again []fullStep
			for _, step := range steps {
				err := step.do(t, s)
				if err != nil {
					again = append(again, step)
				}
				if err != nil && (!errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "run `oxbow store sweep`")) {
					t.Errorf("%s: got %v, want a NoSpaceError", step.what, err)
				}
				if err != nil && step.frees && test.leave > leastRoom {
					t.Errorf("%s makes room, and got %v", step.what, err)
				}
				if found, err := s.Find("stable", Published, "a"); err != nil || found.Entry != e {
					t.Fatalf("%s: found %+v (%v)", step.what, found, err)
				}
				wantBlob(t, s, []byte("content"))
			}
			t.Logf("%d of %d were refused", len(again), len(steps))
			makeRoom(t, others)
			for _, step := range again {
				if err := step.do(t, s); err != nil {
					t.Errorf("%s, with room: %v", step.what, err)
				}
			}
		})
	}
}

// TestCreatingOnAFullDisk promises that a store that could not be made for want of room is made by the same command when there is.
func TestCreatingOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "60m")
	for _, leave := range []int64{0, 8 << 10, 1 << 20, leastRoom - 1<<20} {
		others := fillDirectory(t, dir, leave)
		o := testOptions(t)
		o.Reserve = -1
		s, err := Create(dir+"/store", o)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), dir) {
			t.Errorf("with %d bytes left: got %v, want a NoSpaceError", leave, err)
		}
		makeRoom(t, others)
		if leave > 0 {
			continue // so that the next attempt meets what this one left
		}
		if err := os.RemoveAll(dir + "/store"); err != nil {
			t.Fatal(err)
		}
	}
	o := testOptions(t)
	o.Reserve = -1
	s, err := Create(dir+"/store", o)
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, s)
	put(t, s, KindItem, "a", "content")
	flush(t, s)
}
