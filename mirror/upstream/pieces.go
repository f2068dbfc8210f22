package upstream

import (
	"slices"
	"sync"
	"time"

	"oxbow/cache"
)

// The pieces of a file that several connections fetch at once.
//
// They are claimed in order, so that hashing, which goes from the start to
// the end, stays close behind, and get smaller towards the end, so that all
// connections end together. A connection with nothing left to claim takes
// half of what the slowest one still has before it.
const (
	minPiece = 1 << 20
	maxPiece = 16 << 20

	// A piece is shared with an idle connection if it has gone on for
	// shareAfter and has slowPiece before it at its pace; where readers follow,
	// slowFollowed, since what upstream has sent already of the half that changes
	// hands comes twice.
	shareAfter   = time.Second
	slowPiece    = 2 * time.Second
	slowFollowed = time.Minute
	minShare     = 64 << 10
)

// A piece is a part of a file that one request fetches.
type piece struct {
	from    int64     // where it began
	off     int64     // bytes before it have arrived
	end     int64     // bytes from here on are not of this piece; may come down
	started time.Time // when it was claimed
}

// eta returns how long p needs at its pace; before its first byte, twice what it has
// waited for that.
func (p *piece) eta(now time.Time) time.Duration {
	gone := now.Sub(p.started)
	if p.off == p.from {
		return 2 * gone
	}
	return time.Duration(float64(gone) / float64(p.off-p.from) * float64(p.end-p.off))
}

// pieces says which parts of a file are still to be fetched, and which are
// being fetched.
type pieces struct {
	slow time.Duration // what a piece may have before it and is not shared yet

	mu      sync.Mutex     // guards the rest, and every piece
	todo    []cache.Extent // claimed by nobody, in order
	active  []*piece
	arrived int64         // bytes so far
	changed chan struct{} // closed when a piece is given back
}

func newPieces(missing []cache.Extent, slow time.Duration) *pieces {
	return &pieces{slow: slow, todo: missing, changed: make(chan struct{})}
}

// An outlook says what there is to claim.
type outlook int

const (
	allHere    outlook = iota
	allClaimed         // look again when the pieces changed, or after shareAfter
	claimable
)

// look returns the outlook at this time, and a channel that is closed when it changes.
func (ps *pieces) look(now time.Time) (outlook, <-chan struct{}) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	switch {
	case len(ps.todo) > 0 || ps.slowest(now) != nil:
		return claimable, ps.changed
	case len(ps.active) > 0:
		return allClaimed, ps.changed
	}
	return allHere, ps.changed
}

// claim returns a piece to fetch, or nil: one that begins at wanted, where nobody has
// claimed that; else the first. There are this many connections for the file besides
// those at work on it now.
func (ps *pieces) claim(now time.Time, idle int, wanted int64) *piece {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := &piece{started: now}
	if len(ps.todo) > 0 {
		e := &ps.todo[ps.beginAt(wanted)]
		p.off, p.end = e.Off, e.Off+ps.share(e.Len, len(ps.active)+idle)
		e.Off, e.Len = p.end, e.Off+e.Len-p.end
		ps.todo = slices.DeleteFunc(ps.todo, func(e cache.Extent) bool { return e.Len == 0 })
	} else if slow := ps.slowest(now); slow != nil {
		p.off, p.end = slow.off+(slow.end-slow.off)/2, slow.end
		slow.end = p.off
	} else {
		return nil
	}
	p.from = p.off
	ps.active = append(ps.active, p)
	return p
}

// beginAt makes what is to do have an extent that begins at off, and returns its
// number; 0 where nothing is to do there.
func (ps *pieces) beginAt(off int64) int {
	for i, e := range ps.todo {
		if e.Off < off && off < e.Off+e.Len {
			ps.todo[i].Len = off - e.Off
			ps.todo = slices.Insert(ps.todo, i+1, cache.Extent{Off: off, Len: e.Off + e.Len - off})
			return i + 1
		}
		if e.Off == off {
			return i
		}
	}
	return 0
}

// share returns how much of the first n bytes to do one connection should
// take while others are or may come.
func (ps *pieces) share(n int64, others int) int64 {
	size := ps.left()
	if others > 0 {
		size /= 2 * int64(others+1)
	}
	size = min(max(size, minPiece), maxPiece)
	if n < size+minPiece/2 {
		return n
	}
	return size
}

func (ps *pieces) left() (n int64) {
	for _, e := range ps.todo {
		n += e.Len
	}
	return n
}

// slowest returns the piece that is to be shared first, or nil.
func (ps *pieces) slowest(now time.Time) *piece {
	var slow *piece
	for _, p := range ps.active {
		if now.Sub(p.started) < shareAfter || p.end-p.off < 2*minShare || p.eta(now) < ps.slow {
			continue
		}
		if slow == nil || p.eta(now) > slow.eta(now) {
			slow = p
		}
	}
	return slow
}

// next returns the rest of what nobody has claimed, or nil: for a connection
// that delivers the file from its start and so has all of it to itself.
func (ps *pieces) next(now time.Time) *piece {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.todo) == 0 {
		return nil
	}
	e := ps.todo[0]
	ps.todo = ps.todo[1:]
	p := &piece{from: e.Off, off: e.Off, end: e.Off + e.Len, started: now}
	ps.active = append(ps.active, p)
	return p
}

// bounds returns where p goes on and where it ends, for now.
func (ps *pieces) bounds(p *piece) (off, end int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return p.off, p.end
}

// take says that the next n bytes of p have arrived. It returns their place
// and how many of them are still p's to write.
func (ps *pieces) take(p *piece, n int) (off int64, mine int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	off = p.off
	mine = int(min(int64(n), p.end-p.off))
	p.off += int64(mine)
	ps.arrived += int64(mine)
	return off, mine
}

// giveBack ends the work on p. What has not arrived may be claimed again.
func (ps *pieces) giveBack(p *piece) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	i := slices.Index(ps.active, p)
	ps.active = slices.Delete(ps.active, i, i+1)
	if n := p.end - p.off; n > 0 {
		ps.insert(cache.Extent{Off: p.off, Len: n})
	}
	close(ps.changed)
	ps.changed = make(chan struct{})
}

func (ps *pieces) insert(e cache.Extent) {
	i, _ := slices.BinarySearchFunc(ps.todo, e.Off, func(x cache.Extent, off int64) int { return int(min(max(x.Off-off, -1), 1)) })
	if i < len(ps.todo) && ps.todo[i].Off == e.Off+e.Len {
		ps.todo[i] = cache.Extent{Off: e.Off, Len: e.Len + ps.todo[i].Len}
		return
	}
	ps.todo = slices.Insert(ps.todo, i, e)
}

// progress returns the number of bytes that have arrived.
func (ps *pieces) progress() int64 {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.arrived
}

// room returns how many more connections have something to do.
func (ps *pieces) room() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return int((ps.left() + minPiece - 1) / minPiece)
}
