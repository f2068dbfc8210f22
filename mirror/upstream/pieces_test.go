package upstream

import (
	"testing"
	"time"

	"oxbow/cache"
)

const mib = 1 << 20

var noon = time.Date(2025, 7, 24, 12, 0, 0, 0, time.UTC)

// Pieces come in order, cover the file once, shrink towards its end, and are
// neither tiny nor huge.
func TestPiecesGetSmaller(t *testing.T) {
	for _, size := range []int64{1, minPiece, 7*mib + 3, 400 * mib, 3000 * mib} {
		ps := newPieces([]cache.Extent{{Off: 0, Len: size}}, slowPiece)
		var off, last int64
		last = maxPiece
		for {
			p := ps.claim(noon, 8-1-len(ps.active), 0)
			if p == nil {
				break
			}
			n := p.end - p.off
			if p.off != off || n <= 0 || n > last+minPiece/2 || n < minPiece/2 && n != size {
				t.Fatalf("size %d: piece at %d of %d bytes after one of %d up to %d", size, p.off, n, last, off)
			}
			off, last = p.end, n
			ps.take(p, int(n))
			ps.giveBack(p)
		}
		if off != size {
			t.Errorf("size %d: the pieces end at %d", size, off)
		}
		if size >= 400*mib && last > 2*minPiece {
			t.Errorf("size %d: the last piece has %d bytes", size, last)
		}
		if look, _ := ps.look(noon); look != allHere || ps.progress() != size {
			t.Errorf("size %d: at the end %d bytes have arrived, outlook %d", size, ps.progress(), look)
		}
	}
}

// A connection that is alone asks for as much as it may.
func TestPiecesAlone(t *testing.T) {
	ps := newPieces([]cache.Extent{{Off: 0, Len: 40 * mib}}, slowPiece)
	var got []int64
	for p := ps.claim(noon, 0, 0); p != nil; p = ps.claim(noon, 0, 0) {
		got = append(got, p.end-p.off)
		ps.take(p, int(p.end-p.off))
		ps.giveBack(p)
	}
	if len(got) != 3 || got[0] != 16*mib || got[1] != 16*mib || got[2] != 8*mib {
		t.Errorf("pieces of %v bytes", got)
	}
}

// What a failed request leaves is claimed again, in its place.
func TestPiecesGivenBack(t *testing.T) {
	ps := newPieces([]cache.Extent{{Off: 5, Len: 4 * mib}, {Off: 8 * mib, Len: 10}}, slowPiece)
	a := ps.claim(noon, 7, 0)
	b := ps.claim(noon, 6, 0)
	ps.take(a, 100)
	ps.giveBack(b)
	ps.giveBack(a)
	if len(ps.todo) != 2 || ps.todo[0] != (cache.Extent{Off: 105, Len: 4*mib - 100}) || ps.todo[1].Off != 8*mib {
		t.Errorf("to do: %v", ps.todo)
	}
}

// Only a piece that goes on for long and still has long to go is shared, the
// slowest first; its bytes are never of two pieces.
func TestPiecesShared(t *testing.T) {
	ps := newPieces([]cache.Extent{{Off: 0, Len: 2 * mib}}, slowPiece)
	a := ps.claim(noon, 7, 0) // 1 MiB
	b := ps.claim(noon, 7, 0) // 1 MiB
	ps.take(a, 900<<10)       // 100 KiB more at 90 KiB/s
	ps.take(b, 10<<10)        // 1 MiB more at 1 KiB/s
	if look, _ := ps.look(noon.Add(shareAfter / 2)); look != allClaimed {
		t.Errorf("outlook %d after half a second, want all claimed", look)
	}
	later := noon.Add(10 * time.Second)
	p := ps.claim(later, 7, 0)
	if p == nil || p.end != 2*mib || p.off != b.end || b.end-b.off < 500<<10 || b.end-b.off > 510<<10 {
		t.Fatalf("got %+v of %+v", p, b)
	}
	// What upstream sends beyond its end is not b's any more.
	if off, n := ps.take(b, 1<<20); off != mib+10<<10 || off+int64(n) != p.off {
		t.Errorf("took %d bytes at %d, want those up to %d", n, off, p.off)
	}
	ps.giveBack(b)
	if len(ps.todo) != 0 {
		t.Errorf("to do: %v", ps.todo)
	}
	if p := ps.claim(later, 7, 0); p != nil {
		t.Errorf("claimed %+v: a is nearly done, and p has just begun", p)
	}
}

// What a reader waits for is fetched first, and everything once.
func TestWantedFirst(t *testing.T) {
	ps := newPieces([]cache.Extent{{Off: 0, Len: 40 * mib}}, slowFollowed)
	var covered int64
	first := int64(0) // what nobody has claimed before anything else
	for _, tt := range []struct {
		wanted  int64
		claimed bool // by an earlier one, or beyond the end: then the first has its turn
	}{{0, false}, {30 * mib, false}, {39*mib + 5, false}, {39*mib + 5, true}, {50 * mib, true}} {
		p := ps.claim(noon, 3, tt.wanted)
		if want := tt.wanted; !tt.claimed && p.off != want || tt.claimed && p.off != first {
			t.Errorf("%d is wanted, the piece begins at %d", want, p.off)
		}
		if p.off == first {
			first = p.end
		}
		covered += p.end - p.off
	}
	for p := ps.claim(noon, 0, 0); p != nil; p = ps.claim(noon, 0, 0) {
		covered += p.end - p.off
	}
	if covered != 40*mib {
		t.Errorf("the pieces have %d bytes together", covered)
	}
}
