package cache

import "context"

// An owner that closed the store left LOCK empty. Where it is not, that process died, by itself or together with the machine. Two
// things then are not what they seem to be.
//
// What it did last may not be durable, and nobody is left to sync it: a name that is there may be gone after a power loss. Before
// anything is built on it, all is synced.
//
// And the index may be as of an earlier time. Badger goes on without a word where the end of its log is lost or damaged. What the
// index lacks then is found or completed anyhow; what it has too much is dropped here: blobs that were removed since, and pulled
// ones that a snapshot needs since.

// settleNames makes durable what a process that died has left. A failure is for the operator to judge: at the next try it would not
// be told any more.
func (s *Store) settleNames() {
	if err := s.disk.SyncFS(); err != nil {
		s.log.Error("what the last owner of the store did before it died may not all be on disk; run `oxbow store check --deep`",
			"store", s.dir, "reason", err)
	}
}

// dropGone drops blobs from the index that are not there.
func (s *Store) dropGone(ctx context.Context) error {
	var gone []Digest
	err := s.index.scan(ctx, []byte{prefixBlob}, false, func(key, _ []byte) error {
		if d := Digest(key[1:]); !s.disk.Exists(blobName(d)) {
			gone = append(gone, d)
		}
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	s.log.Warn("the index had blobs that are not there", "blobs", len(gone))
	return s.index.dropBlobs(gone...)
}
