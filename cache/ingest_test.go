package cache

import (
	"context"
	"crypto/md5"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
)

// Whatever the order and the number of writers, the blob is the content, and the fingerprint is that of the content.
func TestWritersInAnyOrderMakeTheSameBlob(t *testing.T) {
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
	s := createStore(t)
	data := content(5, 4<<20)
	in := begin(t, s, wantOf(data))
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
}

// What lies beyond the frontier is hashed a bounded amount at a time, so that nobody waits long.
func TestCatchingUpIsBounded(t *testing.T) {
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
	if err := in.fill(data); err != nil {
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
			if err := errors.Join(in.Reset(), in.fill(good)); err != nil {
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
	s := createStore(t)
	for _, size := range []int{50, 2 << 20} {
		data := content(12, size)
		sum := md5.Sum(data)
		in := begin(t, s, Want{Size: int64(size), MD5: sum[:]})
		if err := in.fill(data); err != nil {
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
				if !in.Resumed() || len(in.Missing()) != 1 || in.Missing()[0].Off != 1<<20 {
					err = fmt.Errorf("missing %v, resumed %v", in.Missing(), in.Resumed())
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
		if err := third.fill(data); err != nil {
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

func TestCloseKeepsAndResetDrops(t *testing.T) {
	s := createStore(t)
	data := content(14, 4<<20)
	in := begin(t, s, wantOf(data))
	for _, off := range []int{0, 100_000, 3 << 20} {
		if _, err := in.WriteAt(data[off:off+1000], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	missing := in.Missing()
	if in.Resumed() {
		t.Error("a new ingest is called resumed")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	key := "sha256-" + Sum(data).String()
	wantNames(t, s, "ingest", key+".have", key+".part")
	partials, err := s.Files().Partials()
	if err != nil || len(partials) != 1 || partials[0].Modified.IsZero() {
		t.Fatalf("partials: %v, %v", partials, err)
	}
	partials[0].Modified = time.Time{}
	if diff := cmp.Diff(Partial{Key: key, Have: 3000, Size: 4 << 20}, partials[0]); diff != "" {
		t.Error(diff)
	}

	in = begin(t, s, wantOf(data))
	if diff := cmp.Diff(missing, in.Missing()); diff != "" || !in.Resumed() {
		t.Errorf("resumed %v: %s", in.Resumed(), diff)
	}
	if done, err := s.removePartial(key); done || err != nil {
		t.Errorf("a running ingest is removed: %v, %v", done, err)
	}
	if err := in.Reset(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Extent{{0, 4 << 20}}, in.Missing()); diff != "" || in.Resumed() {
		t.Errorf("after reset, resumed %v: %s", in.Resumed(), diff)
	}
	if n := s.promised.Load(); n != 4<<20 {
		t.Errorf("after reset, %d bytes are promised", n)
	}
	if _, err := in.WriteAt(data[:10], 0); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if done, err := s.removePartial(key); !done || err != nil {
		t.Errorf("removePartial: %v, %v", done, err)
	}
	wantNames(t, s, "ingest")

	in = begin(t, s, wantOf(data))
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	wantNames(t, s, "ingest") // an ingest without a byte leaves nothing
}

func TestAfterACrashOnlyWhatIsMissingIsFetched(t *testing.T) {
	for _, test := range []struct {
		helper  string
		written int64
		writers int64
	}{
		{"sequential", crashSize / 2, 1},
		{"parallel", crashSize / 4, 4},
	} {
		t.Run(test.helper, func(t *testing.T) {
			s := createStore(t)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			p := startHelper(t, test.helper, s.dir)
			p.await(t)
			p.kill()

			s = reopenStore(t, s.dir)
			in := begin(t, s, wantOf(crashContent()))
			lost := test.written
			for _, e := range in.Missing() {
				lost += e.Len
			}
			if lost -= crashSize; lost < 0 || lost > test.writers<<20 || !in.Resumed() {
				t.Errorf("%d written bytes have to be fetched again, want at most 1 MiB for each of %d writers", lost, test.writers)
			}
			writeShuffled(t, in, crashContent(), rand.New(rand.NewPCG(1, 1)))
			if _, err := in.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantBlob(t, s, crashContent())
			wantNames(t, s, "ingest")
		})
	}
}

func TestSmallBlobsThatWereNotFlushedAreNotFetchedAgain(t *testing.T) {
	s := createStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p := startHelper(t, "small", s.dir)
	p.await(t)
	p.kill()

	s = reopenStore(t, s.dir)
	for i := range 10 {
		data := content(uint64(i), 1000+i)
		if s.Has(Sum(data)) {
			t.Error("a blob that was never flushed is there")
		}
		in := begin(t, s, wantOf(data))
		if len(in.Missing()) != 0 || !in.Resumed() {
			t.Errorf("missing %v, resumed %v", in.Missing(), in.Resumed())
		}
		if _, err := in.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	}
	flush(t, s)
	for i := range 10 {
		wantBlob(t, s, content(uint64(i), 1000+i))
	}
}

// What a power cut leaves in a small file is nobody's guess: it is believed only if it hashes.
func TestATornSmallFileIsFetchedAgain(t *testing.T) {
	s := createStore(t)
	data := content(15, 1000)
	name := filepath.Join(s.dir, "ingest", wantOf(data).key()+".part")
	for _, left := range [][]byte{nil, data[:500], make([]byte, 1000), append(data[:1000:1000], 0)} {
		if err := os.WriteFile(name, left, 0o444); err != nil {
			t.Fatal(err)
		}
		in := begin(t, s, wantOf(data))
		if diff := cmp.Diff([]Extent{{0, 1000}}, in.Missing()); diff != "" || in.Resumed() {
			t.Errorf("%d bytes left: resumed %v: %s", len(left), in.Resumed(), diff)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ingest(t, s, data)
	flush(t, s)
	wantBlob(t, s, data)
}

// A record that claims more than is true costs a second fetch, never a wrong blob.
func TestARecordIsNotBelieved(t *testing.T) {
	s := createStore(t)
	const mib = 1 << 20
	for i, test := range []struct {
		summary, record string
		part            int64 // bytes that are there
		missing         []Extent
		corrupt         bool
	}{
		{"whole and true", "oxbow ingest 1 3145728\n0 3145728\n", 3 * mib, nil, false},
		{"a line cut off", "oxbow ingest 1 3145728\n0 1048576\n10485", 3 * mib, []Extent{{mib, 2 * mib}}, false},
		{"nonsense", "oxbow ingest 1 3145728\n-5 10\nfoo\n\n10 0\n9223372036854775807 2\n0 1048576\n", 3 * mib, []Extent{{mib, 2 * mib}}, false},
		{"a shorter file", "oxbow ingest 1 3145728\n0 3145728\n", mib, []Extent{{mib, 2 * mib}}, false},
		{"no record", "", 3 * mib, []Extent{{0, 3 * mib}}, false},
		{"the record of a later version", "oxbow ingest 2 3145728\n0 3145728\n", 3 * mib, []Extent{{0, 3 * mib}}, false},
		{"other bytes", "oxbow ingest 1 3145728\n0 3145728\n", 3 * mib, nil, true},
	} {
		t.Run(test.summary, func(t *testing.T) {
			data := content(uint64(500+i), 3*mib)
			part := data[:test.part]
			if test.corrupt {
				part = make([]byte, test.part)
			}
			name := filepath.Join(s.dir, "ingest", wantOf(data).key())
			if err := errors.Join(os.WriteFile(name+".part", part, 0o644), os.WriteFile(name+".have", []byte(test.record), 0o644)); err != nil {
				t.Fatal(err)
			}
			in := begin(t, s, wantOf(data))
			if diff := cmp.Diff(test.missing, in.Missing()); diff != "" {
				t.Error(diff)
			}
			if err := in.fill(data); err != nil {
				t.Fatal(err)
			}
			_, err := in.Commit(t.Context())
			if errors.Is(err, ErrCorrupt) != test.corrupt {
				t.Errorf("commit: %v", err)
			}
			if test.corrupt {
				if err := errors.Join(in.Reset(), in.fill(data)); err != nil {
					t.Fatal(err)
				}
				if _, err := in.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			wantBlob(t, s, data)
		})
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add("oxbow ingest 1 100\n0 50\n60 10\n")
	f.Add("oxbow ingest 1 -1\n9223372036854775807 1\n5 ")
	f.Add("oxbow ingest 2 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		have, _, ok := readRecord(strings.NewReader(text))
		if !ok && have != nil {
			t.Errorf("%q is no record but has %v", text, have)
		}
		end := int64(-1)
		for _, e := range have {
			if e.Off <= end || e.Len <= 0 || e.end() < e.Off {
				t.Fatalf("%q gives %v", text, have)
			}
			end = e.end()
		}
	})
}

func TestOpenClearsWaste(t *testing.T) {
	s := createStore(t)
	data := content(17, 2<<20)
	in := begin(t, s, wantOf(data))
	if _, err := in.WriteAt(data[:100], 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"write-ABC", "ballast", "sha256-00.have", "big.part", "small.part"} {
		n := 10
		if name == "big.part" {
			n = smallSize
		}
		if err := os.WriteFile(filepath.Join(s.dir, "ingest", name), make([]byte, n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s = reopenStore(t, s.dir)
	key := wantOf(data).key()
	wantNames(t, s, "ingest", key+".have", key+".part", "small.part")
}

func TestPutMakesADocumentABlob(t *testing.T) {
	s := createStore(t)
	for _, size := range []int{0, 10, smallSize, 3 << 20} {
		data := content(18, size)
		for range 2 {
			if d, err := s.Put(t.Context(), data); err != nil || d != Sum(data) {
				t.Errorf("got %v, %v", d, err)
			}
		}
		flush(t, s)
		wantBlob(t, s, data)
	}
	if _, err := s.Blob(Digest{1}); !errors.Is(err, ErrMiss) {
		t.Errorf("got %v, want ErrMiss", err)
	}
	if _, err := s.Files().ReadFile(Sum(content(18, 10)), 9); err == nil {
		t.Error("ReadFile passes its limit")
	}
	if data, err := s.Files().ReadFile(Sum(content(18, 10)), 10); err != nil || string(data) != string(content(18, 10)) {
		t.Errorf("ReadFile: %q, %v", data, err)
	}
}

func TestExtents(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		const size = 60
		var set extents
		var bytes [size]bool
		for range 12 {
			e := Extent{r.Int64N(size), 0}
			e.Len = r.Int64N(size - e.Off)
			overlap := false
			for i := e.Off; i < e.end(); i++ {
				overlap = overlap || bytes[i]
				bytes[i] = true
			}
			if e.Len > 0 && set.overlaps(e) != overlap {
				t.Fatalf("seed %d: %v overlaps %v: %v", seed, set, e, !overlap)
			}
			set = set.add(e)
		}
		var want, gaps extents
		for i := range int64(size) {
			if bytes[i] {
				want = want.add(Extent{i, 1})
			} else {
				gaps = gaps.add(Extent{i, 1})
			}
		}
		if diff := cmp.Diff(want, set); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if diff := cmp.Diff([]Extent(gaps), set.missing(size)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
		if set.total()+gaps.total() != size || len(gaps) > 0 && gaps[0].Off == 0 && set.prefix() != 0 {
			t.Fatalf("seed %d: %v", seed, set)
		}
	}
}
