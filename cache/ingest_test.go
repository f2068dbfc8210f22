package cache

import (
	"context"
	"crypto/md5"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
)

// Whatever the order and the number of writers, the blob is the content, and the fingerprint is that of the content.
func TestWritersInAnyOrderMakeTheSameBlob(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	sizes := []int{0, 1, 100, bufferSize, smallSize - 1, smallSize, smallSize + 1, 3*smallSize + 17, 5 << 20}
	for seed := range uint64(27) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := content(1000+seed, sizes[int(seed)%len(sizes)])
		if seed > 0 && len(data) == 0 {
			continue // there is only one empty content
		}
		in := begin(t, s, wantOf(data))
		writeShuffled(t, in, data, r)
		b, err := in.Commit(t.Context())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if want := (Blob{Sum(data), int64(len(data))}); b != want {
			t.Errorf("seed %d: got %v, want %v", seed, b, want)
		}
		flush(t, s)
		wantBlob(t, s, data)
		facts, err := s.index.blob(b.Digest)
		if err != nil || facts.XXH64 != xxhash.Sum64(data) || facts.Size != b.Size || facts.Proven.IsZero() {
			t.Errorf("seed %d: the index has %+v (%v)", seed, facts, err)
		}
	}
	wantNames(t, s, "ingest")
	if n := s.promised.Load(); n != 0 {
		t.Errorf("%d bytes are still promised", n)
	}
}

// writeShuffled writes what is missing in pieces of random sizes, from several goroutines.
func writeShuffled(t *testing.T, in *Ingest, data []byte, r *rand.Rand) {
	var pieces []Extent
	for _, e := range in.Missing() {
		for e.Len > 0 {
			n := min(e.Len, 1+r.Int64N(1<<(10+r.IntN(11))))
			pieces = append(pieces, Extent{e.Off, n})
			e.Off, e.Len = e.Off+n, e.Len-n
		}
	}
	r.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	work := make(chan Extent)
	var writers sync.WaitGroup
	for range 1 + r.IntN(8) {
		writers.Go(func() {
			for e := range work {
				if n, err := in.WriteAt(data[e.Off:e.end()], e.Off); err != nil || int64(n) != e.Len {
					t.Errorf("wrote %d of %d bytes: %v", n, e.Len, err)
				}
			}
		})
	}
	for _, e := range pieces {
		work <- e
	}
	close(work)
	writers.Wait()
}

func TestASequentialWriterIsHashedFromItsBuffer(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(5, 4<<20)
	in := begin(t, s, wantOf(data))
	unreadable, err := s.parts.OpenFile(in.key+partSuffix, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	in.f.Close()
	in.f = unreadable
	for off := 0; off < len(data); off += 64 << 10 {
		if _, err := in.WriteAt(data[off:off+64<<10], int64(off)); err != nil {
			t.Fatal(err)
		}
		if got := in.hashed.Load(); got != int64(off+64<<10) {
			t.Fatalf("after %d bytes, %d are hashed", off+64<<10, got)
		}
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, data)
}

// What lies beyond the frontier is hashed a bounded amount at a time, so that nobody waits long.
func TestCatchingUpIsBounded(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(6, 12<<20)
	in := begin(t, s, wantOf(data))
	if _, err := in.WriteAt(data[1<<20:], 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := in.hashed.Load(); got != 0 {
		t.Errorf("%d bytes are hashed though the first is missing", got)
	}
	if _, err := in.WriteAt(data[:1<<20], 0); err != nil {
		t.Fatal(err)
	}
	if got := in.hashed.Load(); got != 1<<20+catchUp {
		t.Errorf("%d bytes are hashed, want %d", got, 1<<20+catchUp)
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, s, data)
}

func TestWriteAtRefuses(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(7, 1000)
	in := begin(t, s, wantOf(data))
	if _, err := in.WriteAt(data[100:200], 100); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		off, n int64
		err    string
	}{
		{999, 2, "it may have 1000 bytes at most"},
		{5000, 1, "it may have 1000 bytes at most"},
		{-1, 1, "it may have 1000 bytes at most"},
		{150, 10, "some of these bytes are there already"},
		{90, 20, "some of these bytes are there already"},
		{0, 1000, "some of these bytes are there already"},
	} {
		if n, err := in.WriteAt(make([]byte, test.n), test.off); n != 0 || err == nil || !strings.HasSuffix(err.Error(), test.err) {
			t.Errorf("%d bytes at %d: got %d, %v; want error %q", test.n, test.off, n, err, test.err)
		}
	}
	if _, err := in.Commit(t.Context()); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "100 of 1000 bytes are there") {
		t.Errorf("commit: got %v, want ErrIncomplete with the count", err)
	}
	if diff := cmp.Diff([]Extent{{0, 100}, {200, 800}}, in.Missing()); diff != "" {
		t.Error(diff)
	}
	if err := in.writeMissing(data); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteAt(data[:1], 0); !errors.Is(err, errEnded) {
		t.Errorf("write after commit: got %v", err)
	}
	if _, err := in.Commit(t.Context()); !errors.Is(err, errEnded) {
		t.Errorf("second commit: got %v", err)
	}
	if err := in.Close(); err != nil {
		t.Errorf("close after commit: %v", err)
	}
}

func TestBeginRefuses(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	for _, w := range []Want{
		{Size: 1},
		{Size: -1, SHA256: Digest{1}},
		{Size: -2, Limit: 5, SHA256: Digest{1}},
		{Size: 1, SHA512: make([]byte, 63)},
		{Size: 1, SHA256: Digest{1}, MD5: make([]byte, 15)},
	} {
		if _, err := s.Begin(t.Context(), w); err == nil {
			t.Errorf("%+v is accepted", w)
		}
	}
	wantNames(t, s, "ingest")
}

// Every sum that is given has to fit, and a mismatch leaves nothing behind but the chance to start anew.
func TestCommitProvesEverySum(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	seed := uint64(100)
	for _, size := range []int{100, smallSize, 2<<20 + 3} {
		for _, test := range []struct {
			from string // which content's SHA-256, SHA-512 and MD5 are wanted: good, bad, none
			sum  string // that the error names when bad content comes
			fits bool   // good content is taken
		}{
			{"gbb", "sha256", false},
			{"bbg", "md5", false},
			{"bgb", "sha512", false},
			{"ggg", "sha512", true},
			{"g--", "sha256", true},
			{"-g-", "sha512", true},
			{"--g", "md5", true},
		} {
			seed += 2
			good, bad := content(seed, size), content(seed+1, size)
			in := begin(t, s, wantFrom(test.from, good, bad))
			if _, err := in.WriteAt(bad, 0); err != nil {
				t.Fatal(err)
			}
			_, err := in.Commit(t.Context())
			e, ok := errors.AsType[*MismatchError](err)
			if !ok || !errors.Is(err, ErrCorrupt) || e.Sum != test.sum || e.Size != int64(size) || e.Want == e.Got {
				t.Errorf("%s of size %d: got %v, want a mismatch of %s", test.from, size, err, test.sum)
			}
			wantNames(t, s, "ingest")
			if _, err := in.WriteAt(good, 0); !errors.Is(err, errDropped) {
				t.Errorf("write after mismatch: got %v", err)
			}
			if err := errors.Join(in.Reset(), in.writeMissing(good)); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Commit(t.Context()); (err == nil) != test.fits {
				t.Errorf("%s of size %d: commit after reset: %v", test.from, size, err)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
			flush(t, s)
			wantNames(t, s, "ingest")
			if s.Has(Sum(bad)) || s.Has(Sum(good)) != test.fits {
				t.Errorf("%s of size %d: has bad %v, has good %v", test.from, size, s.Has(Sum(bad)), s.Has(Sum(good)))
			}
		}
	}
	if n := s.promised.Load(); n != 0 {
		t.Errorf("%d bytes are still promised", n)
	}
}

func wantFrom(from string, good, bad []byte) Want {
	w := Want{Size: int64(len(good))}
	for i, c := range from {
		data := map[rune][]byte{'g': good, 'b': bad}[c]
		switch {
		case data == nil:
		case i == 0:
			w.SHA256 = Sum(data)
		case i == 1:
			sum := sha512.Sum512(data)
			w.SHA512 = sum[:]
		case i == 2:
			sum := md5.Sum(data)
			w.MD5 = sum[:]
		}
	}
	return w
}

func TestContentOfUnknownSizeIsBounded(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(10, 3<<20)
	in := begin(t, s, Want{Size: -1, Limit: 4 << 20, SHA256: Sum(data)})
	if diff := cmp.Diff([]Extent{{0, -1}}, in.Missing()); diff != "" {
		t.Error(diff)
	}
	if _, err := in.WriteAt(make([]byte, 1), 4<<20); err == nil {
		t.Error("a byte beyond the limit is accepted")
	}
	if _, err := in.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Extent{{3 << 20, -1}}, in.Missing()); diff != "" {
		t.Error(diff)
	}
	if b, err := in.Commit(t.Context()); err != nil || b.Size != 3<<20 {
		t.Errorf("got %v, %v", b, err)
	}
	wantBlob(t, s, data)

	small := content(11, 10)
	in = begin(t, s, Want{Size: -1, Limit: 4 << 20, SHA256: Sum(small)})
	if _, err := in.WriteAt(small, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Has(Sum(small)) {
		t.Error("a small blob is there before the flush")
	}
	flush(t, s)
	wantBlob(t, s, small)
	wantNames(t, s, "ingest")
}

func TestContentThatIsThereIsNotTakenInAgain(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	for _, size := range []int{50, 2 << 20} {
		data := content(12, size)
		sum := md5.Sum(data)
		in := begin(t, s, Want{Size: int64(size), MD5: sum[:]})
		if err := in.writeMissing(data); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		exists := func(when string) {
			for _, w := range []Want{wantOf(data), {Size: -1, Limit: 1, SHA256: Sum(data)}, {Size: int64(size), MD5: sum[:]}} {
				_, err := s.Begin(t.Context(), w)
				e, ok := errors.AsType[*ExistsError](err)
				if !ok || !errors.Is(err, ErrExists) || e.Blob != (Blob{Sum(data), int64(size)}) {
					t.Errorf("%s, %s: got %v, want ErrExists with the blob", when, w.key(), err)
				}
			}
		}
		exists("before the flush")
		flush(t, s)
		exists("after the flush")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = reopenStore(t, s.dir)
		exists("after a restart")
		if _, err := s.Begin(t.Context(), Want{Size: 1, SHA256: Sum(data)}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("another size for the same digest: got %v, want ErrCorrupt", err)
		}
	}
}

func TestTheSecondOfTwoWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := createStore(t) // in the bubble, with all that Badger starts
		data := content(13, 2<<20)
		first, err := s.Begin(t.Context(), wantOf(data))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		second := make(chan error)
		go func() {
			_, err := s.Begin(ctx, wantOf(data))
			second <- err
		}()
		synctest.Wait()
		reason := errors.New("the client went away")
		cancel(reason)
		if err := <-second; !errors.Is(err, reason) {
			t.Errorf("got %v, want %v", err, reason)
		}

		go func() {
			in, err := s.Begin(t.Context(), wantOf(data))
			if err == nil {
				if len(in.Missing()) != 1 || in.Missing()[0].Off != 1<<20 {
					err = fmt.Errorf("missing %v", in.Missing())
				}
				in.Close()
			}
			second <- err
		}()
		synctest.Wait()
		if _, err := first.WriteAt(data[:1<<20], 0); err != nil {
			t.Error(err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		if err := <-second; err != nil {
			t.Errorf("the second does not go on where the first left: %v", err)
		}

		third, err := s.Begin(t.Context(), wantOf(data))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			go func() {
				_, err := s.Begin(t.Context(), wantOf(data))
				second <- err
			}()
		}
		synctest.Wait()
		if err := third.writeMissing(data); err != nil {
			t.Error(err)
		}
		if _, err := third.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-second; !errors.Is(err, ErrExists) {
				t.Errorf("got %v, want ErrExists", err)
			}
		}
		wantBlob(t, s, data)
	})
}
