package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oxbow/cache/internal/durable"
)

// recordOps notes every operation of the store's disk, and which of the blobs are known at that moment.
func recordOps(s *Store, blobs ...Digest) *[]string {
	var log []string
	s.disk.Trace = func(op durable.Op) error {
		line := op.Kind + " " + op.Name
		if slices.ContainsFunc(blobs, s.Has) {
			line += " (too late: known already)"
		}
		log = append(log, line)
		return nil
	}
	return &log
}

func wantLog(t *testing.T, got *[]string, want ...string) {
	t.Helper()
	if !slices.Equal(*got, want) {
		t.Errorf("operations:\n%s\nwant:\n%s", strings.Join(*got, "\n"), strings.Join(want, "\n"))
	}
}

func TestALargeBlobIsSyncedThenNamedThenKnown(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(30, smallSize)
	d := Sum(data)
	log := recordOps(s, d)
	ingest(t, s, data)
	wantLog(t, log,
		"fsync "+wantOf(data).key()+".part",
		"rename "+blobName(d),
		"fsync "+blobDir(d))
	wantBlob(t, s, data)
}

func TestSmallBlobsShareOneSyncThenAreNamedThenKnown(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	var digests []Digest
	for i := range uint64(500) {
		data := content(i, 20)
		digests = append(digests, Sum(data))
	}
	log := recordOps(s, digests[0], digests[499])
	for i := range uint64(500) {
		ingest(t, s, content(i, 20))
	}
	wantLog(t, log) // nothing yet
	flush(t, s)
	renames := (*log)[1 : len(*log)-1]
	slices.Sort(renames)
	want := []string{"syncfs ."}
	for _, d := range digests {
		want = append(want, "rename "+blobName(d))
	}
	slices.Sort(want[1:])
	wantLog(t, log, append(want, "syncfs .")...)
	for i := range uint64(500) {
		wantBlob(t, s, content(i, 20))
	}
	flush(t, s)
	wantLog(t, log, append(want, "syncfs .")...) // nothing more
}

func TestFewSmallBlobsSyncTheirDirectories(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(31, 20)
	log := recordOps(s, Sum(data))
	ingest(t, s, data)
	flush(t, s)
	wantLog(t, log, "syncfs .", "rename "+blobName(Sum(data)), "fsync "+blobDir(Sum(data)))
}

var errDisk = errors.New("the disk is dying")

// failAt makes the disk fail at the nth operation from now on, once.
func failAt(s *Store, n int, err error) (reached *bool) {
	reached = new(bool)
	s.disk.Trace = func(durable.Op) error {
		if n--; n == -1 {
			*reached = true
			return err
		}
		return nil
	}
	return reached
}

// Whatever step fails, nothing becomes known by it, and the same content can be taken in afterwards.
func TestNothingBecomesKnownByAFailedStep(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, smallSize} {
		reached := new(bool)
		*reached = true
		steps := 0
		for ; *reached; steps++ {
			t.Run(fmt.Sprintf("size %d step %d", size, steps), func(t *testing.T) {
				s := createStore(t)
				data := content(32, size)
				reached = failAt(s, steps, errDisk)
				in := begin(t, s, wantOf(data))
				if err := in.writeMissing(data); err != nil {
					t.Fatal(err)
				}
				_, err := in.Commit(t.Context())
				if err == nil {
					err = s.Flush(t.Context())
				}
				s.disk.Trace = nil
				if !*reached {
					if err != nil {
						t.Error(err)
					}
					wantBlob(t, s, data)
					return
				}
				if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), in.key) && !strings.Contains(err.Error(), s.dir) {
					t.Errorf("got %v, want an error that names the store or the content", err)
				}
				if s.Has(Sum(data)) {
					t.Error("the blob is known all the same")
				}
				// What a failed sync covers is lost; a failed rename of what is durable is tried again.
				flush(t, s)
				if renaming := steps == 1 && size < smallSize; s.Has(Sum(data)) != renaming {
					t.Errorf("after another flush, known: %v", !renaming)
				}
				if _, err := s.Put(t.Context(), data); err != nil {
					t.Fatal(err)
				}
				flush(t, s)
				wantBlob(t, s, data)
				wantNames(t, s, "ingest")
			})
		}
		if steps != 4 { // sync, rename, sync, and none
			t.Errorf("size %d: %d steps", size, steps)
		}
	}
}

// A failed sync of the file system is reported once. So it covers what was staged, what was committed during it, and what was
// being written.
func TestAFailedSyncDropsAllThatItCovers(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := func(i int) []byte { return content(uint64(40+i), 100) }
	ingest(t, s, data(0))
	writing := begin(t, s, wantOf(data(1)))
	if err := writing.writeMissing(data(1)); err != nil {
		t.Fatal(err)
	}
	failing := true
	s.disk.Trace = func(op durable.Op) error {
		if op.Kind == "syncfs" && failing {
			failing = false
			ingest(t, s, data(2))
			return errDisk
		}
		return nil
	}
	if err := s.Flush(t.Context()); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "cannot make 2 blobs durable") {
		t.Errorf("flush: %v", err)
	}
	if _, err := writing.Commit(t.Context()); !errors.Is(err, errSyncFailed) {
		t.Errorf("commit of what was written before: %v", err)
	}
	wantNames(t, s, "ingest")
	flush(t, s)
	for i := range 3 {
		if s.Has(Sum(data(i))) {
			t.Errorf("blob %d is there", i)
		}
		ingest(t, s, data(i))
	}
	flush(t, s)
	for i := range 3 {
		wantBlob(t, s, data(i))
	}
}

// A crash between the rename and the index leaves a file that the index does not know. It is proven, not fetched again.
func TestAFileThatTheIndexDoesNotKnowIsProven(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	for _, size := range []int{100, 2 << 20} {
		good, bad := content(50, size), content(51, size)
		for _, data := range [][]byte{good, bad} {
			if err := os.WriteFile(filepath.Join(s.dir, blobName(Sum(data))), good, 0o444); err != nil {
				t.Fatal(err)
			}
			if s.Has(Sum(data)) {
				t.Error("it is known without a proof")
			}
			if _, err := s.Blob(Sum(data)); !errors.Is(err, ErrMiss) {
				t.Errorf("open without a proof: %v", err)
			}
		}
		log := recordOps(s, Sum(good))
		if _, err := s.Begin(t.Context(), wantOf(good)); !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
		if len(*log) != 2 || !strings.HasPrefix((*log)[0], "fsync ") || (*log)[1] != "fsync "+blobDir(Sum(good)) {
			t.Errorf("operations: %q", *log)
		}
		wantBlob(t, s, good)
		s.disk.Trace = nil
		ingest(t, s, bad) // replaces the file
		flush(t, s)
		wantBlob(t, s, bad)
	}
}
