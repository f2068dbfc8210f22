package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// A Have is what a site says that it has: what the next bundle for it can do without, and the receipt for the last.
type Have struct {
	MadeBy    string
	Time      time.Time
	Site      string                  // fingerprint of the key that signs
	Snapshots map[string]cache.Digest // the newest of each stream, before any rollback
	Blobs     map[cache.Digest]bool   // that kept snapshots name
}

const haveFormat = "oxbow have 1"

// Have returns, clearsigned, what kept snapshots have here.
func (m *Mirror) Have(madeBy string) ([]byte, error) {
	key, err := m.Key()
	if err != nil {
		return nil, err
	}
	f := m.store.Files()
	h := &Have{MadeBy: madeBy, Time: m.now().UTC().Truncate(time.Second), Site: key.Fingerprint(), Snapshots: map[string]cache.Digest{}, Blobs: map[cache.Digest]bool{}}
	all, err := f.Streams()
	if err != nil {
		return nil, err
	}
	for _, stream := range all {
		kept, err := m.store.Snapshots(stream)
		if errors.Is(err, cache.ErrNoSnapshot) {
			continue
		}
		if err != nil {
			return nil, err
		}
		h.Snapshots[stream] = kept[0].ID
		if st, err := readState(f, stream); err == nil && st.Imported != nil {
			if id, err := cache.ParseDigest(st.Imported.Snapshot); err == nil {
				h.Snapshots[stream] = id
			}
		}
		for _, s := range kept {
			man, err := f.Manifest(stream, s.ID)
			if err != nil {
				return nil, err
			}
			for _, e := range man.Entries {
				if e.Kind == cache.KindItem && !h.Blobs[e.Digest] && m.store.Holds(e.Digest) {
					h.Blobs[e.Digest] = true
				}
			}
		}
	}
	return key.Clearsign(h.encode(), h.Time)
}

func (h *Have) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nmade by %s\ntime %s\nsite %s\n", haveFormat, h.MadeBy, h.Time.Format(time.RFC3339), h.Site)
	for _, stream := range slices.Sorted(maps.Keys(h.Snapshots)) {
		fmt.Fprintf(&b, "snapshot %s %v\n", stream, h.Snapshots[stream])
	}
	for _, d := range sortedDigests(h.Blobs) {
		fmt.Fprintf(&b, "%v\n", d)
	}
	return b.Bytes()
}

// ReadHave reads what [Mirror.Have] returned. Whose signature is on it does not matter: a forged one leads to a bundle that does not
// fit, which the other side refuses.
func ReadHave(doc []byte) (*Have, error) {
	text, err := streams.ClearText(doc)
	if err != nil {
		return nil, fmt.Errorf("cannot use what the other side has: %w", err)
	}
	h, err := parseHave(string(text))
	if err == nil && !bytes.Equal(h.encode(), text) {
		err = errors.New("it is not as it would be written")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use what the other side has: this is not what `oxbow bundle have` prints: %w", err)
	}
	return h, nil
}

func parseHave(text string) (*Have, error) {
	h := &Have{Snapshots: map[string]cache.Digest{}, Blobs: map[cache.Digest]bool{}}
	n := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		var err error
		switch word, rest, _ := strings.Cut(line, " "); {
		case n == 0 && line == haveFormat:
		case n == 1 && strings.HasPrefix(line, "made by "):
			h.MadeBy = strings.TrimPrefix(line, "made by ")
		case n == 2 && word == "time":
			h.Time, err = time.Parse(time.RFC3339, rest)
		case n == 3 && word == "site":
			h.Site = rest
		case n > 3 && word == "snapshot":
			stream, id, _ := strings.Cut(rest, " ")
			h.Snapshots[stream], err = cache.ParseDigest(id)
		case n > 3:
			var d cache.Digest
			d, err = cache.ParseDigest(line)
			h.Blobs[d] = true
		default:
			err = fmt.Errorf("line %d is %.80q", n+1, line)
		}
		if err != nil {
			return nil, err
		}
		n++
	}
	if n < 4 {
		return nil, errors.New("it ends too early")
	}
	return h, nil
}
