package mirror

import (
	"bytes"
	"testing"
	"time"

	"oxbow/cache"
)

// A handover is read only as it would be written: one text, one meaning.
func FuzzParseHandover(f *testing.F) {
	first := handover{Stream: "stable", Snapshot: cache.Sum(nil), Site: "4C1E", Time: time.Unix(1764252310, 0).UTC(), MadeBy: "oxbow 1.2.0"}
	next := first
	next.Before = cache.Sum(first.encode())
	f.Add(first.encode())
	f.Add(next.encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := parseHandover(text)
		if err != nil {
			return
		}
		if again := h.encode(); !bytes.Equal(again, text) {
			t.Errorf("%q is read, and would be written %q", text, again)
		}
	})
}

// A receipt that is read names what it was written with, whatever else its text has.
func FuzzParseHave(f *testing.F) {
	h := Have{MadeBy: "oxbow 1.2.0", Time: time.Unix(1764252310, 0).UTC(), Site: "4C1E",
		Snapshots: map[string]cache.Digest{"stable": cache.Sum([]byte("a"))}, Blobs: map[cache.Digest]bool{cache.Sum([]byte("b")): true}}
	f.Add(string(h.encode()))
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parseHave(text)
		if err != nil {
			return
		}
		again, err := parseHave(string(h.encode()))
		if err != nil || !bytes.Equal(again.encode(), h.encode()) {
			t.Errorf("%q is read as %+v, and that as %+v, %v", text, h, again, err)
		}
	})
}
