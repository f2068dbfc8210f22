package cache

import (
	"testing"
)

func TestALeaseCoversUntilItsRelease(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	a, b := s.Lease(), s.Lease()
	one, two := Digest{1}, Digest{2}
	a.Add(one, two, one)
	b.Add(one)
	leased := func(wantOne, wantTwo bool) {
		t.Helper()
		if s.leased(one) != wantOne || s.leased(two) != wantTwo {
			t.Errorf("leased: %v, %v; want %v, %v", s.leased(one), s.leased(two), wantOne, wantTwo)
		}
	}
	leased(true, true)
	a.Release()
	a.Release()
	leased(true, false)
	a.Add(two)
	leased(true, false)
	b.Release()
	leased(false, false)

	data := content(60, 10)
	in := begin(t, s, wantOf(data))
	if !s.leased(Sum(data)) {
		t.Error("what is being taken in may be swept")
	}
	if err := in.writeMissing(data); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !s.leased(Sum(data)) {
		t.Error("what waits for the flush may be swept")
	}
	flush(t, s)
	if s.leased(Sum(data)) {
		t.Error("what landed is leased")
	}
}
