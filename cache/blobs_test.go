package cache

import (
	"errors"
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
