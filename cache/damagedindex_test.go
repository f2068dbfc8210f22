package cache

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// TestAKilledIndexWithADamagedFile promises that whatever file of the index that a killed process left is gone, or is not what it
// was, the store opens with all that it had: and knows no blob that is gone.
func TestAKilledIndexWithADamagedFile(t *testing.T) {
	t.Parallel()
	data := contents(3, 100)
	var first, second Digest
	c := &powerCase{
		before: func(t *testing.T, s *Store) {
			first = publish(t, s, "stable", put(t, s, KindItem, "a", "content of a"), knownOf("0", data[0]), knownOf("1", data[1]))
			for _, d := range data[:2] {
				pull(t, s, d)
			}
			ingest(t, s, data[2])
			flush(t, s)
		},
		opens: true,
		want:  func(s *Store, _ int) error { return keeps(s, "stable", [][]Digest{{second, first}}) },
	}
	dir := memoryDir(t)
	c.make(t, dir)
	s := reopenStore(t, dir) // so that what was before is in a table, and the rest in the log
	endTending(s)
	second = publish(t, s, "stable", put(t, s, KindItem, "b", "content of b"), itemOf("0", data[0]))
	expire(t, s)
	s.SetCacheLimit(1)
	evict(t, s)
	p := watchPower(t, dir)
	p.ack()
	killed := p.images[0]

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	place := &powerPlace{dir: memoryDir(t)}
	for n, f := range killed.index.files {
		for _, harm := range []string{"gone", []string{"empty", "cut off", "noise", "zeros", "longer", "a bit flipped"}[random.IntN(6)]} {
			i := *killed
			i.what, i.behind = fmt.Sprintf("%s is %s", f.name, harm), true
			i.index = killed.index.harmed(n, harm, random)
			if err := c.check(t, &i, place); err != nil {
				t.Error(err)
			}
		}
	}
}

// harmed returns a copy in which something was done to one of the files.
func (c *indexCopy) harmed(n int, harm string, random *rand.Rand) *indexCopy {
	h := &indexCopy{files: append([]indexFile{}, c.files...)}
	f := &h.files[n]
	data := maps.Clone(f.data)
	f.data = data
	switch harm {
	case "gone":
		h.files = append(h.files[:n:n], h.files[n+1:]...)
	case "empty":
		f.size, f.data = 0, nil
	case "cut off":
		f.size = random.Int64N(f.size + 1)
		for at, d := range data {
			if data[at] = d[:max(0, min(int64(len(d)), f.size-at))]; len(data[at]) == 0 {
				delete(data, at)
			}
		}
	case "noise":
		for at, d := range data {
			data[at] = content(random.Uint64(), len(d))
		}
	case "zeros":
		f.data = nil
	case "longer":
		data[f.size] = content(random.Uint64(), 5000)
	case "a bit flipped":
		for at, d := range data {
			flipped := append([]byte{}, d...)
			flipped[random.IntN(len(d))] ^= 1 << random.IntN(8)
			data[at] = flipped
		}
	}
	return h
}
