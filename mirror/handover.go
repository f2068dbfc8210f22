package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// A handover says that a site handed a snapshot over, to whoever has the bundle.
type handover struct {
	Stream   string
	Snapshot cache.Digest
	Site     string       // fingerprint of its key
	Time     time.Time    // since when the site had it
	MadeBy   string       // the program that signed
	Before   cache.Digest // of the handover by which the site got it; zero: it made the snapshot
}

const handoverFormat = "oxbow handover 1"

func (h *handover) encode() []byte {
	before := "nothing"
	if !h.Before.IsZero() {
		before = h.Before.String()
	}
	return fmt.Appendf(nil, "%s\nstream %s\nsnapshot %v\nsite %s\ntime %s\nmade by %s\nafter %s\n", handoverFormat, h.Stream, h.Snapshot, h.Site, h.Time.UTC().Format(time.RFC3339), h.MadeBy, before)
}

// parseHandover accepts only what encode returns.
func parseHandover(text []byte) (*handover, error) {
	lines := strings.Split(string(text), "\n")
	values := map[string]string{}
	for i, prefix := range []string{handoverFormat, "stream ", "snapshot ", "site ", "time ", "made by ", "after ", ""} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], prefix) {
			return nil, errors.New("malformed handover")
		}
		values[prefix] = strings.TrimPrefix(lines[i], prefix)
	}
	h := &handover{Stream: values["stream "], Site: values["site "], MadeBy: values["made by "]}
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

// A HandoverView is a handover as it was signed.
type HandoverView struct {
	Snapshot string `json:"snapshot"` // another than the next one's, where the next site rolled back to it

	Site   string    `json:"site"`
	By     string    `json:"by"` // user id of the key, where it is known
	Time   time.Time `json:"time"`
	MadeBy string    `json:"made_by"`
	Proven bool      `json:"proven"` // the key that signed it is there
}

// handovers reads who handed the snapshot over. A rollback of a site makes a snapshot of its own, with the content of the one that came;
// so only the last has to be of this one.
func (md *bundleMetadata) handovers(s bundle.Snapshot) ([]*HandoverView, error) {
	ring, err := streams.ReadKeyring(slices.Concat(md.members[bundle.SitePath()], md.members[bundle.SiteKeysPath(s.Stream)]))
	if err != nil {
		return nil, err
	}
	var docs []string
	for n := 1; md.members[bundle.HandoverPath(s.Stream, n)] != nil; n++ {
		docs = append(docs, string(md.members[bundle.HandoverPath(s.Stream, n)]))
	}
	views, err := viewHandovers(docs, s.Stream, ring)
	if n := len(views); err == nil && n > 0 && views[n-1].Snapshot != s.ID.String() {
		return nil, fmt.Errorf("%s: it is of snapshot %s", bundle.HandoverPath(s.Stream, n), views[n-1].Snapshot)
	}
	return views, err
}

// viewHandovers reads handovers of a stream, of which each names the one before. Keys are judged at the date of the signature: one that
// has expired since was good when it signed.
func viewHandovers(docs []string, stream string, ring *streams.Keyring) (views []*HandoverView, err error) {
	var before cache.Digest
	for i, doc := range docs {
		v := &HandoverView{Proven: true}
		signed, err := ring.Verify([]byte(doc), time.Time{})
		text := []byte(nil)
		switch {
		case err == nil:
			text, v.By = signed.Text, signed.SignedBy
		case errors.Is(err, streams.ErrUnknownKey): // of a site between the first and the last
			v.Proven = false
			text, err = streams.ClearText([]byte(doc))
		}
		var h *handover
		if err == nil {
			h, err = parseHandover(text)
		}
		if err == nil && (h.Stream != stream || h.Before != before || signed != nil && signed.Fingerprint != h.Site) {
			err = errors.New("it is of something else, or does not follow the one before")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", bundle.HandoverPath(stream, i+1), err)
		}
		v.Snapshot, v.Site, v.Time, v.MadeBy = h.Snapshot.String(), h.Site, h.Time, h.MadeBy
		views = append(views, v)
		before = cache.Sum([]byte(doc))
	}
	return views, nil
}

// A Coming is an [Arrival] as those signed it who handed the snapshot over.
type Coming struct {
	Snapshot  string          `json:"snapshot"` // another, if a rollback published its content anew
	Time      time.Time       `json:"time"`     // when it came
	Handovers []*HandoverView `json:"handovers"`
}

// ReadComing returns how the content of a kept snapshot came by a bundle; nil: it did not. Who handed it over is told by the keys that
// bundles are trusted by here, and by those that sign what the stream's clients read. It needs no lock.
func ReadComing(f *cache.Files, s cache.Snapshot) (*Coming, error) {
	st, err := readState(f, s.Stream)
	if err != nil {
		return nil, err
	}
	came := st.Imported.arrival(s)
	if came == nil {
		return nil, nil
	}
	keys, err := TrustedKeys(f)
	if err != nil {
		return nil, err
	}
	ring, err := streams.ReadKeyring(slices.Concat(keys, st.Imported.Signers))
	if err != nil {
		return nil, err
	}
	views, err := viewHandovers(came.Handovers, s.Stream, ring)
	if err != nil {
		return nil, fmt.Errorf("cannot tell who handed snapshot %.12s over: %w", came.Snapshot, err)
	}
	return &Coming{came.Snapshot, came.Time, views}, nil
}
