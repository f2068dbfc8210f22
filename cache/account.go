package cache

import (
	"container/list"
	"slices"
	"time"
)

// An account lists the pulled blobs by their last use. It says in memory what the index says on disk, and times of use that are
// not there yet. It holds some hundred bytes a blob.
type account struct {
	limit int64 // of bytes; 0 is none
	bytes int64 // of all
	all   map[Digest]*list.Element
	order *list.List // of *pulled, the least recently used first
	stats PullStats  // the evicted ones
}

// A pulled is one pulled blob.
type pulled struct {
	digest   Digest
	size     int64
	used     time.Time
	saved    bool // the index says so as well
	withheld bool // a publication is about to name it: it stays
}

func (p *pulled) facts() pullFacts { return pullFacts{Size: p.size, Used: p.used} }

func newAccount(limit int64) account {
	return account{limit: limit, all: make(map[Digest]*list.Element), order: list.New()}
}

// get returns nil for a blob that is not pulled.
func (a *account) get(d Digest) *pulled {
	if e := a.all[d]; e != nil {
		return e.Value.(*pulled)
	}
	return nil
}

// use notes a use of a blob, if it is pulled.
func (a *account) use(d Digest, at time.Time) {
	if e := a.all[d]; e != nil {
		p := e.Value.(*pulled)
		p.used, p.saved = at, false
		a.order.MoveToBack(e)
	}
}

// add lists blobs of which the index says the same. Those that are listed already keep the later time of use.
func (a *account) add(pulls map[Digest]pullFacts) {
	for d, f := range pulls {
		p := a.get(d)
		if p == nil {
			p = &pulled{digest: d, size: f.Size, used: f.Used, saved: true}
			a.all[d] = a.order.PushBack(p)
			a.bytes += p.size
		} else if p.used.Before(f.Used) {
			p.used, p.saved = f.Used, true
		}
	}
	if len(pulls) > 0 {
		a.sort()
	}
}

// sort puts the blobs in the order of their use, as far as they are not: what is added is new as a rule, and at its place.
func (a *account) sort() {
	ordered := true
	for e := a.order.Front(); e != nil && e.Next() != nil; e = e.Next() {
		ordered = ordered && !e.Next().Value.(*pulled).used.Before(e.Value.(*pulled).used)
	}
	if ordered {
		return
	}
	var all []*list.Element
	for e := a.order.Front(); e != nil; e = e.Next() {
		all = append(all, e)
	}
	slices.SortStableFunc(all, func(x, y *list.Element) int { return x.Value.(*pulled).used.Compare(y.Value.(*pulled).used) })
	for _, e := range all {
		a.order.MoveToBack(e)
	}
}

func (a *account) remove(d Digest) {
	if e := a.all[d]; e != nil {
		a.bytes -= a.order.Remove(e).(*pulled).size
		delete(a.all, d)
	}
}

// changed returns the blobs of which the index does not know the last use, and takes them for saved.
func (a *account) changed() map[Digest]pullFacts {
	out := make(map[Digest]pullFacts)
	for e := a.order.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*pulled); !p.saved && !p.withheld {
			p.saved = true
			out[p.digest] = p.facts()
		}
	}
	return out
}

// unsaved undoes changed.
func (a *account) unsaved(pulls map[Digest]pullFacts) {
	for d := range pulls {
		if p := a.get(d); p != nil {
			p.saved = false
		}
	}
}

// tooLarge reports whether a blob exceeds the limit by itself.
func (a *account) tooLarge(size int64) bool { return a.limit > 0 && size > a.limit }

// fitting returns the bytes of the blobs that are not too large.
func (a *account) fitting() (n int64) {
	for e := a.order.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*pulled); !a.tooLarge(p.size) {
			n += p.size
		}
	}
	return n
}
