package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCheckFinds promises that each kind of damage is found, and nothing else,
// and that the report says what it hurts.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	blob, manifest := blobName(two.new.Digest), manifestName("stable", two.second)
	oldManifest := manifestName("stable", two.first)
	for _, test := range []struct {
		summary string
		harm    func(*testing.T, *Store)
		deep    bool
		kinds   []ProblemKind // of what is wrong
		want    Problem       // the first of them; Detail is a part
	}{
		{summary: "nothing"},
		{summary: "nothing, deeply", deep: true},
		{
			summary: "a blob lost",
			harm:    func(t *testing.T, s *Store) { s.root.Remove(blob) },
			kinds:   []ProblemKind{MissingBlob},
			want:    Problem{Digest: two.new.Digest, File: blob, Stream: "stable", Snapshot: two.second, Path: "new", Remedy: remedyRepair},
		},
		{
			summary: "a blob cut off",
			harm:    func(t *testing.T, s *Store) { overwrite(t, s, blob, "new") },
			kinds:   []ProblemKind{WrongSize},
			want:    Problem{Digest: two.new.Digest, File: blob, Stream: "stable", Snapshot: two.second, Path: "new", Detail: "3 bytes, not 11", Remedy: remedyRepair},
		},
		{
			summary: "a blob changed",
			harm:    func(t *testing.T, s *Store) { overwrite(t, s, blob, "new c0ntent") },
			kinds:   []ProblemKind{DamagedBlob},
			want:    Problem{Digest: two.new.Digest, File: blob, Stream: "stable", Snapshot: two.second, Path: "new", Detail: "sha256", Remedy: remedyRepair},
		},
		{
			summary: "a blob changed, and no fingerprint known",
			harm: func(t *testing.T, s *Store) {
				if err := s.Rebuild(t.Context()); err != nil {
					t.Fatal(err)
				}
				overwrite(t, s, blob, "new c0ntent")
			},
			kinds: []ProblemKind{DamagedBlob},
			want:  Problem{Digest: two.new.Digest, File: blob, Stream: "stable", Snapshot: two.second, Path: "new", Detail: "sha256", Remedy: remedyRepair},
		},
		{
			summary: "a blob that nothing names changed",
			harm:    func(t *testing.T, s *Store) { overwrite(t, s, blobName(two.kept), "kept c0ntent") },
			deep:    true,
			kinds:   []ProblemKind{DamagedBlob},
			want:    Problem{Digest: two.kept, File: blobName(two.kept), Detail: "no snapshot names it", Remedy: remedyIndex},
		},
		{
			summary: "a wrong fingerprint",
			harm: func(t *testing.T, s *Store) {
				putFacts(t, s, two.new.Digest, blobFacts{Size: two.new.Size, XXH64: 1, Proven: time.Unix(1, 0)})
			},
			kinds: []ProblemKind{IndexLacks},
			want: Problem{Digest: two.new.Digest, File: blob, Stream: "stable", Snapshot: two.second, Path: "new",
				Detail: "its fingerprint in the index was not; it is right now"},
		},
		{
			summary: "a manifest changed",
			harm:    func(t *testing.T, s *Store) { overwrite(t, s, oldManifest, changed(t, s, oldManifest, "old", "odd")) },
			kinds:   []ProblemKind{DamagedManifest},
			want:    Problem{File: oldManifest, Stream: "stable", Snapshot: two.first, Detail: "its text has the sha256", Remedy: remedyManifest},
		},
		{
			summary: "an older manifest lost",
			harm:    func(t *testing.T, s *Store) { s.root.Remove(oldManifest) },
			kinds:   []ProblemKind{MissingManifest},
			want:    Problem{File: oldManifest, Stream: "stable", Snapshot: two.first, Detail: "is not there", Remedy: remedyManifest},
		},
		{
			summary: "the current manifest lost",
			harm:    func(t *testing.T, s *Store) { s.root.Remove(manifest) },
			kinds:   []ProblemKind{DanglingCurrent},
			want:    Problem{File: manifest, Stream: "stable", Snapshot: two.second, Detail: "is not there", Remedy: remedyPublish},
		},
		{
			summary: "nonsense in current",
			harm:    func(t *testing.T, s *Store) { overwrite(t, s, currentName("stable"), "nonsense") },
			kinds:   []ProblemKind{DanglingCurrent},
			want:    Problem{File: currentName("stable"), Stream: "stable", Detail: "malformed digest", Remedy: remedyCurrent},
		},
		{
			summary: "current lost",
			harm:    func(t *testing.T, s *Store) { s.root.Remove(currentName("stable")) },
			kinds:   []ProblemKind{DanglingCurrent},
			want:    Problem{File: currentName("stable"), Stream: "stable", Detail: "current/stable is lost", Remedy: remedyCurrent},
		},
		{
			summary: "the current manifest changed",
			harm:    func(t *testing.T, s *Store) { overwrite(t, s, manifest, changed(t, s, manifest, "new", "now")) },
			kinds:   []ProblemKind{DamagedManifest},
			want:    Problem{File: manifest, Stream: "stable", Snapshot: two.second, Detail: "its text has the sha256", Remedy: remedyPublish},
		},
		{
			summary: "the index lacks a blob",
			harm: func(t *testing.T, s *Store) {
				if err := s.index.dropBlobs(two.new.Digest); err != nil {
					t.Fatal(err)
				}
			},
			kinds: []ProblemKind{IndexLacks},
			want:  Problem{Digest: two.new.Digest, File: blob, Stream: "stable", Snapshot: two.second, Path: "new", Detail: "does not have the blob", Remedy: remedyIndex},
		},
		{
			summary: "the index has a blob that is not there",
			harm:    func(t *testing.T, s *Store) { putFacts(t, s, Sum(nil), blobFacts{}) },
			kinds:   []ProblemKind{IndexExtra},
			want:    Problem{Digest: Sum(nil), File: blobName(Sum(nil)), Detail: "a blob that is not there", Remedy: remedyIndex},
		},
		{
			summary: "the index lacks a snapshot",
			harm:    func(t *testing.T, s *Store) { dropRecord(t, s, two.second) },
			kinds:   []ProblemKind{IndexLacks},
			want:    Problem{Stream: "stable", Snapshot: two.second, Detail: "does not have the snapshot", Remedy: remedyIndex},
		},
		{
			summary: "the index lacks an entry",
			harm: func(t *testing.T, s *Store) {
				write(t, s, func(b *batch) error { return b.delete(entryKey("stable", 2, two.new)) })
			},
			kinds: []ProblemKind{IndexLacks},
			want:  Problem{Digest: two.new.Digest, Stream: "stable", Snapshot: two.second, Path: "new", Detail: "does not have the entry", Remedy: remedyIndex},
		},
		{
			summary: "the index has another entry",
			harm: func(t *testing.T, s *Store) {
				write(t, s, func(b *batch) error { return b.set(entryKey("stable", 2, two.new), entryValue(two.old)) })
			},
			kinds: []ProblemKind{IndexLacks},
			want:  Problem{Digest: two.new.Digest, Stream: "stable", Snapshot: two.second, Path: "new", Detail: "or has another", Remedy: remedyIndex},
		},
		{
			summary: "the index has an entry too many",
			harm: func(t *testing.T, s *Store) {
				write(t, s, func(b *batch) error { return b.set(entryKey("stable", 1, known("k", "")), entryValue(two.old)) })
			},
			kinds: []ProblemKind{IndexExtra},
			want:  Problem{Stream: "stable", Snapshot: two.first, Detail: "1 entries", Remedy: remedyIndex},
		},
	} {
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			s, err := Open(copyStore(t, two.dir), testOptions(t))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if test.harm != nil {
				test.harm(t, s)
			}
			report, err := s.Check(t.Context(), CheckOptions{Deep: test.deep})
			if err != nil {
				t.Fatal(err)
			}
			var kinds []ProblemKind
			for _, p := range report.Problems {
				kinds = append(kinds, p.Kind)
			}
			if !slices.Equal(kinds, test.kinds) {
				t.Fatalf("found %q, want %q:\n%v", kinds, test.kinds, report.Problems)
			}
			if report.OK() != (len(kinds) == 0) || errors.Is(report.Err(), ErrUnsound) == report.OK() {
				t.Errorf("the report is %v: %v", report.OK(), report.Err())
			}
			if report.OK() {
				return
			}
			got := report.Problems[0]
			detail := got.Detail
			got.Kind, got.Detail = "", ""
			want := test.want
			want.Detail = ""
			if got != want || !strings.Contains(detail, test.want.Detail) {
				t.Errorf("found %+v (%s), want %+v (%s)", got, detail, want, test.want.Detail)
			}
		})
	}
}

// changed returns the text of a file with one part replaced.
func changed(t *testing.T, s *Store, name, old, new string) string {
	t.Helper()
	text, err := s.root.ReadFile(name)
	if err != nil || !strings.Contains(string(text), old) {
		t.Fatalf("cannot change %s: %v", name, err)
	}
	return strings.Replace(string(text), old, new, 1)
}

func putFacts(t *testing.T, s *Store, d Digest, f blobFacts) {
	t.Helper()
	if err := s.index.putBlobs(map[Digest]blobFacts{d: f}); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, s *Store, f func(*batch) error) {
	t.Helper()
	if err := s.index.write(f); err != nil {
		t.Fatal(err)
	}
}

// TestCheckRemedies promises that what a report advises helps.
func TestCheckRemedies(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	e := put(t, s, KindItem, "a", "content")
	id := publish(t, s, "stable", e)
	overwrite(t, s, blobName(e.Digest), "c0ntent")
	wantProblems(t, s, DamagedBlob)

	// by hand: remove the file, rebuild, fetch it again
	if err := s.root.Remove(blobName(e.Digest)); err != nil {
		t.Fatal(err)
	}
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantProblems(t, s, MissingBlob)
	if s.Has(e.Digest) {
		t.Error("a blob that is lost is still known: nobody would fetch it again")
	}
	wantFound(t, s, "stable", Published, "a", e, id)
	put(t, s, KindItem, "a", "content")
	flush(t, s)
	wantProblems(t, s)
	wantBlob(t, s, []byte("content"))
}

func wantProblems(t *testing.T, s *Store, want ...ProblemKind) {
	t.Helper()
	report, err := s.Check(t.Context(), CheckOptions{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []ProblemKind
	for _, p := range report.Problems {
		kinds = append(kinds, p.Kind)
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("found %q, want %q:\n%v", kinds, want, report.Problems)
	}
}

// TestCheckRecordsFingerprints promises that the first check after a rebuild
// proves the SHA-256 of what has no fingerprint, and later ones need not.
func TestCheckRecordsFingerprints(t *testing.T) {
	t.Parallel()
	two := makeTwoSnapshots(t)
	s := reopenStore(t, two.dir)
	before, err := s.index.blob(two.new.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if facts, err := s.index.blob(two.new.Digest); err != nil || !facts.Proven.IsZero() {
		t.Fatalf("after the rebuild: %+v (%v)", facts, err)
	}
	wantProblemsShallow := func() *Report {
		t.Helper()
		report, err := s.Check(t.Context(), CheckOptions{})
		if err != nil || !report.OK() {
			t.Fatalf("check: %v, %v", err, report.Err())
		}
		return report
	}
	report := wantProblemsShallow()
	if report.Snapshots != 2 || report.Blobs != 4 || report.Bytes != 24 {
		t.Errorf("read %d snapshots, %d blobs, %d bytes, want 2, 4, 24", report.Snapshots, report.Blobs, report.Bytes)
	}
	if facts, err := s.index.blob(two.new.Digest); err != nil || facts.Proven.IsZero() || facts.XXH64 != before.XXH64 {
		t.Errorf("after the check: %+v (%v), want the fingerprint %x", facts, err, before.XXH64)
	}
	if report := wantProblemsShallow(); report.Blobs != 4 {
		t.Errorf("the second check read %d blobs, want 4", report.Blobs)
	}
}

// TestCheckNotes promises that what is no fault is named and left alone.
func TestCheckNotes(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	publish(t, s, "stable", put(t, s, KindItem, "a", "content"))
	orphan := &Manifest{Stream: "stable", Created: time.Unix(1, 0), Entries: []Entry{known("k", "")}}
	overwrite(t, s, manifestName("stable", Sum(orphan.Encode())), string(orphan.Encode()))
	in := begin(t, s, wantOf(content(1, 3<<20)))
	if _, err := in.WriteAt(content(1, 3<<20)[:2<<20], 0); err != nil {
		t.Fatal(err)
	}
	in.Close()
	foreign := []string{"blobs/sha256/00/notes.txt", "blobs/sha256/00/" + digestA, "blobs/sha512", "blobs/sha256/lost", "current/.hidden", "lost+found",
		"pins/x", "snapshots/README", "snapshots/stable/old.txt"}
	for _, name := range foreign {
		overwrite(t, s, name, "not ours")
	}
	report, err := s.Check(t.Context(), CheckOptions{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK() {
		t.Error(report.Err())
	}
	var got []string
	for _, p := range report.Notes {
		got = append(got, p.String())
	}
	want := []string{}
	slices.Sort(foreign)
	for _, name := range foreign {
		want = append(want, "foreign "+name)
	}
	id := Sum(orphan.Encode())
	want = append(want, "partial ingest/sha256-"+Sum(content(1, 3<<20)).String()+".part: 2097152 of 3145728 bytes",
		"unpublished "+manifestName("stable", id)+"; stream stable, snapshot "+id.String()[:12]+"; "+remedySweep)
	if !slices.Equal(got, want) {
		t.Errorf("notes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range foreign {
		if _, err := os.Stat(filepath.Join(s.dir, name)); err != nil {
			t.Errorf("a foreign file is gone: %v", err)
		}
	}
}

func TestCheckEnds(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	publish(t, s, "stable", put(t, s, KindItem, "a", "content"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Check(ctx, CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was canceled", err)
	}
}
