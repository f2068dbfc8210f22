package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// upstreamIndex reads upstream's index in a snapshot. A document that cannot be read is passed over, and is the error only where the
// others are no index.
func upstreamIndex(f *cache.Files, man *cache.Manifest) (*streams.Index, error) {
	var unread error
	for _, e := range man.Entries {
		if e.Kind != cache.KindUpstream || strings.HasSuffix(e.Path, ".gpg") {
			continue
		}
		data, err := readEntry(f, e)
		if err != nil {
			unread = cmp.Or(unread, err)
			continue
		}
		text, err := textOf(data)
		if err != nil {
			unread = cmp.Or(unread, fmt.Errorf("cannot read %s: %w", e.Path, err))
			continue
		}
		if x, err := streams.ParseIndex(text); err == nil {
			return x, nil
		}
	}
	return nil, cmp.Or(unread, errors.New("the snapshot has no index of upstream's"))
}

// upstreamIndexTime returns the date that upstream's index of a snapshot gives itself; zero if that cannot be told. How old it is shows
// how old the images are, however new the bundle is that brought them.
func upstreamIndexTime(f *cache.Files, man *cache.Manifest) time.Time {
	x, err := upstreamIndex(f, man)
	if err != nil {
		return time.Time{}
	}
	at, _ := streams.ParseTime(x.Updated)
	return at
}
