package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// makeTwoStreams returns a closed store with two snapshots of "stable" and one of "other", which share a blob, and the entry
// that only the newest snapshot of "stable" has.
func makeTwoStreams(t *testing.T) (dir string, newest Digest, e Entry) {
	t.Helper()
	s := createStore(t)
	shared := put(t, s, KindItem, "shared", "shared content")
	publish(t, s, "stable", shared, put(t, s, KindItem, "old", "12345"), known("k", "x"))
	e = put(t, s, KindItem, "new", "123")
	newest = publish(t, s, "stable", shared, e)
	publish(t, s, "other", shared)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.dir, newest, e
}

// wantDropped fails the test unless nothing of "stable" is left but what a sweep removes, which is then done, and "other" is
// whole.
func wantDropped(t *testing.T, s *Store) {
	t.Helper()
	wantFound(t, s, "stable", Published, "new", Entry{}, Digest{})
	if _, err := s.Files().Current("stable"); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("current snapshot: %v", err)
	}
	wantNames(t, s, "snapshots", "other")
	wantNames(t, s, "current", "other")
	wantProblems(t, s)
	plan, _ := planSweep(t, s)
	if _, err := plan.Execute(t.Context()); err != nil {
		t.Error(err)
	}
	st, err := s.Files().Stats(t.Context())
	if err != nil || st.Blobs != 1 || st.Named != 1 {
		t.Errorf("after a sweep: %+v, %v", st, err)
	}
	current, err := s.Current("other")
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("shared content")
	wantFound(t, s, "other", Published, "shared", Entry{KindItem, Sum(data), int64(len(data)), "shared"}, current.ID)
	wantBlob(t, s, data)
}

// A drop says beforehand what goes with the stream, takes just that, and a reader of its files reads on to the end.
func TestDrop(t *testing.T) {
	t.Parallel()
	dir, _, e := makeTwoStreams(t)
	s := reopenStore(t, copyStore(t, dir))
	plan, err := s.Files().PlanDrop(t.Context(), "stable")
	if want := (DropPlan{Stream: "stable", Snapshots: 2, Files: 2, Bytes: 8}); err != nil || fmt.Sprint(*plan) != fmt.Sprint(want) {
		t.Errorf("planned %+v (%v), want %+v", plan, err, want)
	}
	f, err := s.Blob(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Drop(t.Context(), "stable"); err != nil {
		t.Fatal(err)
	}
	wantDropped(t, s)
	wantNames(t, s, "ingest")
	if text, err := io.ReadAll(f); string(text) != "123" || err != nil {
		t.Errorf("a reader got %q, %v", text, err)
	}
	if err := s.Drop(t.Context(), "stable"); err != nil {
		t.Errorf("the second time: %v", err)
	}
	id := publish(t, s, "stable", put(t, s, KindItem, "new", "123"))
	wantFound(t, s, "stable", Published, "new", e, id)
}

// A stream with a pinned snapshot stays as it is.
func TestDropPinned(t *testing.T) {
	t.Parallel()
	dir, newest, _ := makeTwoStreams(t)
	s := reopenStore(t, copyStore(t, dir))
	if err := os.WriteFile(filepath.Join(s.dir, pinsDir, newest.String()), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	plan, err := s.Files().PlanDrop(t.Context(), "stable")
	if err != nil || !slices.Equal(plan.Pinned, []Digest{newest}) {
		t.Errorf("planned %+v, %v", plan, err)
	}
	if err := s.Drop(t.Context(), "stable"); !errors.Is(err, ErrPinned) || !strings.Contains(err.Error(), newest.String()[:12]) {
		t.Errorf("dropped: %v", err)
	}
	wantOldOrNew(t, s, newest, newest)
	if err := s.Drop(t.Context(), "other"); err != nil {
		t.Errorf("dropping another stream: %v", err)
	}
}

// TestDropCrash breaks a drop at each of its durable steps, as TestPublishCrash does a publication. The next owner finds the
// stream whole, or gone but for what a sweep removes; a second drop finishes the first, in this process and in the next.
func TestDropCrash(t *testing.T) {
	t.Parallel()
	dir, newest, _ := makeTwoStreams(t)
	s := reopenStore(t, copyStore(t, dir))
	f := inject(s, -1, nil)
	if err := s.Drop(t.Context(), "stable"); err != nil {
		t.Fatal(err)
	}
	f.end()
	for i, op := range f.done {
		f.done[i], _, _ = strings.Cut(op, "dropped-")
	}
	want := []string{"remove current/stable", "fsync current", "write index", "written index", "rename ingest/", "fsync snapshots"}
	if !slices.Equal(f.done, want) {
		t.Errorf("the steps were %q, want %q", f.done, want)
	}
	for i, step := range want {
		t.Run(fmt.Sprintf("%02d %s", i, strings.Fields(step)[0]), func(t *testing.T) {
			t.Parallel()
			s := reopenStore(t, copyStore(t, dir))
			crashed := ""
			f := inject(s, i, func() { crashed = copyStore(t, s.dir) })
			err := s.Drop(t.Context(), "stable")
			f.end()
			if !errors.Is(err, errFault) {
				t.Fatalf("step %d, %s, failed, and the drop gave %v", i, step, err)
			}
			after := reopenStore(t, crashed)
			wantProblems(t, after)
			if gone := i == len(want)-1; gone {
				wantDropped(t, after)
			} else {
				wantOldOrNew(t, after, newest, newest)
			}
			for _, s := range []*Store{s, after} {
				if err := s.Drop(t.Context(), "stable"); err != nil {
					t.Errorf("the second time: %v", err)
				}
				wantDropped(t, s)
			}
			wantNames(t, after, "ingest")
		})
	}
}
