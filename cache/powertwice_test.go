package cache

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestPowerLossAfterARetry promises that what is acknowledged at the second try, after any step of the first one failed, is there
// after a power loss: nothing is taken for durable because it was done before.
func TestPowerLossAfterARetry(t *testing.T) {
	t.Parallel()
	created := time.Unix(1_800_000_000, 0)
	item := itemOf("a", content(1, 100))
	first := &Manifest{Stream: "stable", Created: created, Entries: []Entry{item}}
	next := &Manifest{Stream: "stable", Parent: Sum(first.Encode()), Created: created.Add(time.Hour), Entries: []Entry{item}}
	prepare := func(m ...*Manifest) func(t *testing.T, s *Store) {
		return func(t *testing.T, s *Store) {
			ingest(t, s, content(1, 100))
			flush(t, s)
			for _, m := range m {
				if _, err := s.Publish(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.WriteState("stable", []byte("old")); err != nil {
				t.Fatal(err)
			}
		}
	}
	ids := func(m ...*Manifest) (list []Digest) {
		for _, m := range m {
			list = append(list, Sum(m.Encode()))
		}
		return list
	}
	for i, test := range []struct {
		summary string
		before  func(t *testing.T, s *Store)
		do      func(t *testing.T, s *Store) error
		want    func(s *Store) error
	}{
		{"a first snapshot", prepare(),
			func(t *testing.T, s *Store) error { _, err := s.Publish(t.Context(), first); return err },
			func(s *Store) error { return keeps(s, "stable", [][]Digest{ids(first)}) }},
		{"another snapshot", prepare(first),
			func(t *testing.T, s *Store) error { _, err := s.Publish(t.Context(), next); return err },
			func(s *Store) error { return keeps(s, "stable", [][]Digest{ids(next, first)}) }},
		{"a drop", prepare(first),
			func(t *testing.T, s *Store) error { return s.Drop(t.Context(), "stable") },
			func(s *Store) error { return keeps(s, "stable", [][]Digest{nil}) }},
		{"a pin", prepare(first),
			func(t *testing.T, s *Store) error { return s.Pin(t.Context(), Sum(first.Encode()), "") },
			func(s *Store) error { return isPinned(s, Sum(first.Encode()), true) }},
		{"the end of a state", prepare(),
			func(t *testing.T, s *Store) error { return s.RemoveState("stable") },
			func(s *Store) error { return isOneOf(s, "streams/stable.json", []string{""}) }},
		{"a large blob", nothing,
			func(t *testing.T, s *Store) error { return takeIn(t, s, content(2, smallSize)) },
			func(s *Store) error { return holds(s, 1, content(2, smallSize)) }},
		{"a state", prepare(),
			func(t *testing.T, s *Store) error { return s.WriteState("stable", []byte("new")) },
			func(s *Store) error { return isOneOf(s, "streams/stable.json", []string{"new"}) }},
		{"a small blob", nothing,
			func(t *testing.T, s *Store) error { return takeIn(t, s, content(3, 100)) },
			func(s *Store) error { return holds(s, 1, content(3, 100)) }},
	} {
		if raceEnabled && !*long && i > 5 {
			break // the rest writes anew whatever was tried before
		}
		t.Run(test.summary, func(t *testing.T) {
			t.Parallel()
			c := &powerCase{before: test.before, want: func(s *Store, _ int) error { return test.want(s) }}
			place := &powerPlace{dir: memoryDir(t)}
			for sync, failed := 1, true; failed; sync++ {
				failed = false
				s, p := c.begin(t)
				p.at, p.interrupt = sync, func() error { failed = true; return errFault }
				if err := test.do(t, s); failed && !errors.Is(err, errFault) || !failed && err != nil {
					t.Fatalf("sync %d: %v", sync, err)
				}
				if p.at = 0; failed {
					if err := test.do(t, s); err != nil {
						t.Fatalf("sync %d, tried again: %v", sync, err)
					}
				}
				p.checkLost(t, c, place, fmt.Sprintf("sync %d failed at first", sync))
				closeStore(t, s)
			}
		})
	}
}

// checkLost checks what is left when the power fails now and all goes that was not synced.
func (p *powerDisk) checkLost(t *testing.T, c *powerCase, place *powerPlace, before string) {
	p.images = nil
	p.ack()
	p.images[0].what += ": " + before
	if err := c.check(t, p.images[0], place); err != nil {
		t.Error(err)
	}
}

// takeIn is ingest and flush for what may fail, or be there already.
func takeIn(t *testing.T, s *Store, data []byte) error {
	err := s.put(t.Context(), wantOf(data), data)
	if errors.Is(err, ErrExists) {
		err = nil
	}
	return errors.Join(err, s.Flush(t.Context()))
}

// TestPowerLossAfterAKill promises that who opens the store of a process that was killed before any of its syncs builds on nothing
// that the power may still take: what it serves stays, whatever it then sweeps.
func TestPowerLossAfterAKill(t *testing.T) {
	t.Parallel()
	cases := []*powerCase{dropping()}
	if *long || !raceEnabled {
		cases = append(cases, firstSnapshot(), nextSnapshot(), takingOver(), sweeping())
	}
	for _, c := range cases {
		t.Run(c.summary, func(t *testing.T) {
			t.Parallel()
			place := &powerPlace{dir: memoryDir(t)}
			for sync := 1; ; sync++ {
				p := c.killed(t, sync)
				if p == nil {
					return
				}
				s, err := Open(p.dir, p.options(t))
				if err != nil {
					t.Fatal(err)
				}
				endTending(s)
				expire(t, s)
				stable, other := servedNow(s, "stable"), servedNow(s, "other")
				next := &powerCase{before: nothing, want: func(s *Store, _ int) error {
					return errors.Join(keeps(s, "stable", stable), keeps(s, "other", other))
				}}
				p.checkLost(t, next, place, fmt.Sprintf("killed before sync %d, opened and swept", sync))
				closeStore(t, s)
			}
		})
	}
}

// servedNow is what keeps wants when nothing may change.
func servedNow(s *Store, stream string) [][]Digest {
	list, _ := s.Snapshots(stream)
	return [][]Digest{idsOf(list)}
}

// killed does what the case says up to a sync, and returns a copy of what is there then; nil where there was no such sync.
func (c *powerCase) killed(t *testing.T, sync int) (left *powerDisk) {
	s, p := c.begin(t)
	defer closeStore(t, s)
	p.at, p.interrupt = sync, func() error {
		left = p.moved(copyStore(t, p.dir))
		panic(errKilled)
	}
	defer func() {
		if reason := recover(); reason != nil && reason != errKilled {
			panic(reason)
		}
	}()
	c.run(t, s, p)
	return left
}

var errKilled = errors.New("killed")
