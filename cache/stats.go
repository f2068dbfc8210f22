package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Stats says what a store holds.
type Stats struct {
	Blobs        int   // all, named or not
	Bytes        int64 // of all blobs
	Named        int   // blobs that kept snapshots name and that are here
	NamedBytes   int64 // of these
	Pulled       int   // of the others, those that kept snapshots know: they may be evicted
	PulledBytes  int64 // of these
	Unreadable   int   // kept snapshots of which the manifest is lost or damaged: they count for nothing else
	Streams      []StreamStats
	Partials     int   // unfinished downloads
	PartialBytes int64 // what they hold
}

// StreamStats says what a store holds of one stream.
type StreamStats struct {
	Name      string
	Snapshots int      // kept ones that can be read
	Current   Snapshot // the newest of them, which is the one that is served or the best that there is
	Blobs     int      // distinct ones that the kept snapshots name; streams may share them
	Bytes     int64    // of these
}

// Stats reads the manifests and the directories of the store. It needs no lock
// and may be off by what changes meanwhile.
func (f *Files) Stats(ctx context.Context) (*Stats, error) {
	st := new(Stats)
	named := make(map[Digest]bool) // false: known only
	if err := f.streamStats(ctx, st, named); err != nil {
		return nil, fmt.Errorf("cannot count what store %s holds: %w", f.dir, err)
	}
	err := f.eachBlob(ctx, func(d Digest, size int64) error {
		st.Blobs++
		st.Bytes += size
		switch needed, asked := named[d]; {
		case needed:
			st.Named++
			st.NamedBytes += size
		case asked:
			st.Pulled++
			st.PulledBytes += size
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot count what store %s holds: %w", f.dir, err)
	}
	partials, err := f.Partials()
	if err != nil {
		return nil, err
	}
	for _, p := range partials {
		st.Partials++
		st.PartialBytes += p.Have
	}
	return st, nil
}

func (f *Files) streamStats(ctx context.Context, st *Stats, named map[Digest]bool) error {
	streams, err := f.published()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		ids, err := f.kept(stream)
		if err != nil {
			return err
		}
		s := StreamStats{Name: stream}
		seen := make(map[Digest]bool)
		for _, id := range ids {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			m, err := f.Manifest(stream, id)
			if errors.Is(err, ErrNoSnapshot) || errors.Is(err, ErrCorrupt) {
				st.Unreadable++
				continue
			}
			if err != nil {
				return err
			}
			if s.Snapshots++; s.Snapshots == 1 {
				s.Current = m.summary(id)
				s.Current.Current = true
			}
			for _, e := range m.Entries {
				if e.Kind == KindKnown {
					if !named[e.Digest] {
						named[e.Digest] = false
					}
					continue
				}
				if seen[e.Digest] {
					continue
				}
				seen[e.Digest], named[e.Digest] = true, true
				s.Blobs++
				s.Bytes += e.Size
			}
		}
		st.Streams = append(st.Streams, s)
	}
	return nil
}

// blobSize returns the size of a blob in bytes, or ErrMiss where there is none: a directory, a symbolic link or a pipe of its name
// is none.
func (f *Files) blobSize(d Digest) (int64, error) {
	info, err := f.root.Lstat(blobName(d))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return 0, ErrMiss
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
