package cache

import (
	"crypto/md5"
	"crypto/sha512"
	"errors"
	"io/fs"
	"os"
	"testing"
)

func TestPutMakesADocumentABlob(t *testing.T) {
	t.Parallel()
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

// Another name of a blob is the same file, which nobody may write, and outlives the blob.
func TestLink(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(20, 3000)
	d := ingest(t, s, data)
	flush(t, s)
	name := t.TempDir()
	dir, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := s.Files().Link(d, dir, "image"); err != nil {
		t.Fatal(err)
	}
	if err := s.Files().Link(d, dir, "image"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second link of that name: %v", err)
	}
	if err := s.Files().Link(Digest{1}, dir, "other"); !errors.Is(err, ErrMiss) {
		t.Errorf("a link to no blob: %v", err)
	}
	info, err := os.Stat(name + "/image")
	if err != nil || info.Mode() != 0o444 {
		t.Fatalf("%v, %v", info, err)
	}
	plan, err := s.PlanSweep(t.Context(), SweepOptions{})
	if err == nil {
		_, err = plan.Execute(t.Context())
	}
	if err != nil || s.Has(d) {
		t.Fatalf("the blob is not swept: %v", err)
	}
	if got, err := os.ReadFile(name + "/image"); err != nil || Sum(got) != d {
		t.Errorf("after a sweep: %d bytes, %v", len(got), err)
	}
}

// A blob is proven by its bytes, and by every sum that is wanted of it.
func TestProve(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	data := content(19, 3000)
	d := ingest(t, s, data)
	flush(t, s)
	good, sum := md5.Sum(data), sha512.Sum512(data)
	for _, test := range []struct {
		want Want
		err  error
	}{
		{Want{Size: 3000, SHA256: d, MD5: good[:], SHA512: sum[:]}, nil},
		{Want{Size: 3000, MD5: good[:]}, nil},
		{Want{Size: 2999, MD5: good[:]}, ErrCorrupt},
		{Want{Size: 3000, MD5: make([]byte, md5.Size)}, ErrCorrupt},
		{Want{Size: 3000, MD5: good[:], SHA512: make([]byte, sha512.Size)}, ErrCorrupt},
		{Want{Size: 3000, SHA256: Sum(nil), MD5: good[:]}, ErrCorrupt},
	} {
		if err := s.Files().Prove(d, test.want); !errors.Is(err, test.err) {
			t.Errorf("%+v: %v, want %v", test.want, err, test.err)
		}
	}
	if err := s.Files().Prove(Sum(nil), Want{Size: 0, SHA256: Sum(nil)}); !errors.Is(err, ErrMiss) {
		t.Errorf("of none: %v", err)
	}
}
