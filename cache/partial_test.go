package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCloseKeepsAndResetDrops(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(14, 4<<20)
	in := begin(t, s, wantOf(data))
	for _, off := range []int{0, 100_000, 3 << 20} {
		if _, err := in.WriteAt(data[off:off+1000], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	missing := in.Missing()
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
	if diff := cmp.Diff(missing, in.Missing()); diff != "" {
		t.Errorf("resumed: %s", diff)
	}
	if done, err := s.removePartial(key); done || err != nil {
		t.Errorf("a running ingest is removed: %v, %v", done, err)
	}
	if err := in.Reset(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Extent{{0, 4 << 20}}, in.Missing()); diff != "" {
		t.Errorf("after reset: %s", diff)
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
	t.Parallel()
	for _, test := range []struct {
		child   string
		written int64
		writers int64
	}{
		{"sequential", crashSize / 2, 1},
		{"parallel", crashSize / 4, 4},
	} {
		t.Run(test.child, func(t *testing.T) {
			s := createStore(t)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			p := startChild(t, test.child, s.dir)
			p.await(t)
			p.kill()

			s = reopenStore(t, s.dir)
			in := begin(t, s, wantOf(crashContent()))
			lost := test.written
			for _, e := range in.Missing() {
				lost += e.Len
			}
			if lost -= crashSize; lost < 0 || lost > test.writers<<20 || lost == test.written {
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
	t.Parallel()
	s := createStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p := startChild(t, "small", s.dir)
	p.await(t)
	p.kill()

	s = reopenStore(t, s.dir)
	for i := range 10 {
		data := content(uint64(i), 1000+i)
		if s.Has(Sum(data)) {
			t.Error("a blob that was never flushed is there")
		}
		in := begin(t, s, wantOf(data))
		if len(in.Missing()) != 0 {
			t.Errorf("missing %v", in.Missing())
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
	t.Parallel()
	s := createStore(t)
	data := content(15, 1000)
	name := filepath.Join(s.dir, "ingest", wantOf(data).key()+".part")
	for _, left := range [][]byte{nil, data[:500], make([]byte, 1000), append(data[:1000:1000], 0)} {
		if err := os.WriteFile(name, left, 0o444); err != nil {
			t.Fatal(err)
		}
		in := begin(t, s, wantOf(data))
		if diff := cmp.Diff([]Extent{{0, 1000}}, in.Missing()); diff != "" {
			t.Errorf("%d bytes left: %s", len(left), diff)
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
	t.Parallel()
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
			if err := in.writeMissing(data); err != nil {
				t.Fatal(err)
			}
			_, err := in.Commit(t.Context())
			if errors.Is(err, ErrCorrupt) != test.corrupt {
				t.Errorf("commit: %v", err)
			}
			if test.corrupt {
				if err := errors.Join(in.Reset(), in.writeMissing(data)); err != nil {
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
	t.Parallel()
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

// TestWhatIsNoFileDoesNotBlockAnIngest promises that a directory or link in the place of a partial download is no obstacle.
func TestWhatIsNoFileDoesNotBlockAnIngest(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 2 << 20} {
		for _, suffix := range []string{partSuffix, recordSuffix} {
			for _, when := range []string{"before Open", "after Open"} {
				t.Run(fmt.Sprint(size, suffix, " ", when), func(t *testing.T) {
					t.Parallel()
					s := createStore(t)
					data := content(80, size)
					name := filepath.Join(s.dir, ingestDir, wantOf(data).key()+suffix)
					if when == "before Open" {
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
					}
					if err := os.MkdirAll(filepath.Join(name, "sub"), 0o755); err != nil {
						t.Fatal(err)
					}
					if when == "before Open" {
						s = reopenStore(t, s.dir)
					} else {
						report, err := s.Check(t.Context(), CheckOptions{})
						if err != nil || len(report.Notes) != 1 || report.Notes[0].Kind != ForeignFile || report.Notes[0].File != ingestDir+"/"+filepath.Base(name) {
							t.Errorf("check: %v, %v", report.Notes, err)
						}
					}
					ingest(t, s, data)
					flush(t, s)
					wantBlob(t, s, data)
				})
			}
		}
	}
}
