package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"oxbow/cache"
)

// A Handover says that a site handed a snapshot over, to whoever has the bundle.
type Handover struct {
	Stream   string
	Snapshot cache.Digest
	Site     string // fingerprint of its key
	Time     time.Time
	MadeBy   string       // the program
	Before   cache.Digest // of the handover by which the site got it; zero: it made the snapshot
}

const handoverFormat = "oxbow handover 1"

func (h *Handover) encode() []byte {
	before := "nothing"
	if !h.Before.IsZero() {
		before = h.Before.String()
	}
	return fmt.Appendf(nil, "%s\nstream %s\nsnapshot %v\nsite %s\ntime %s\nmade by %s\nafter %s\n", handoverFormat, h.Stream, h.Snapshot, h.Site, h.Time.UTC().Format(time.RFC3339), h.MadeBy, before)
}

// parseHandover accepts only what encode returns.
func parseHandover(text []byte) (*Handover, error) {
	lines := strings.Split(string(text), "\n")
	values := map[string]string{}
	for i, prefix := range []string{handoverFormat, "stream ", "snapshot ", "site ", "time ", "made by ", "after ", ""} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], prefix) {
			return nil, errors.New("malformed handover")
		}
		values[prefix] = strings.TrimPrefix(lines[i], prefix)
	}
	h := &Handover{Stream: values["stream "], Site: values["site "], MadeBy: values["made by "]}
	var errs [3]error
	h.Snapshot, errs[0] = cache.ParseDigest(values["snapshot "])
	h.Time, errs[1] = time.Parse(time.RFC3339, values["time "])
	if values["after "] != "nothing" {
		h.Before, errs[2] = cache.ParseDigest(values["after "])
	}
	if err := errors.Join(errs[:]...); err != nil || !bytes.Equal(h.encode(), text) {
		return nil, errors.New("malformed handover")
	}
	return h, nil
}
