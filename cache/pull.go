package cache

import (
	"context"
	"os"
)

func (s *Store) BeginPull(ctx context.Context, w Want) (*Ingest, error) { return s.Begin(ctx, w) }

func (s *Store) Touch(Digest) {}

func (in *Ingest) Follow() (*os.File, error) { return in.s.parts.Open(in.key + partSuffix) }

func (in *Ingest) Ahead(off int64) int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	i, ok := in.have.search(off)
	if !ok {
		i--
	}
	if i < 0 || in.have[i].end() <= off {
		return 0
	}
	return in.have[i].end() - off
}
