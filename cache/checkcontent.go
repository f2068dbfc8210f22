package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"
)

// checkers is how many blobs are read at once: enough to keep a disk busy
// while the sums of another are computed.
const checkers = 2

// blobs reads the blobs that kept snapshots name, and if the check is deep all
// others too.
func (c *checker) blobs(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(checkers)
	c.report.Of = len(c.uses)
	for _, d := range slices.SortedFunc(maps.Keys(c.uses), Digest.Compare) {
		g.Go(func() error { return c.named(gctx, d, c.uses[d]) })
	}
	if c.deep {
		err := c.s.files.eachBlob(gctx, func(d Digest, _ int64) error {
			if c.uses[d] != nil {
				return nil
			}
			c.report.Of++
			if c.part.has(d) {
				g.Go(func() error { return c.unnamed(gctx, d) })
			}
			return nil
		})
		if err != nil {
			return errors.Join(g.Wait(), err)
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.record(1)
}

// named checks a blob that a kept snapshot names.
func (c *checker) named(ctx context.Context, d Digest, u *use) error {
	p := Problem{Digest: d, File: blobName(d), Stream: u.stream, Snapshot: u.snapshot, Path: u.path, Others: u.others}
	size, err := c.s.files.blobSize(d)
	switch {
	case errors.Is(err, ErrMiss):
		p.Kind, p.Remedy = MissingBlob, remedyRepair
		c.fault(p)
		return nil
	case err != nil:
		return c.unread(ctx, p, err)
	case size != u.size:
		p.Kind, p.Remedy, p.Detail = WrongSize, remedyRepair, fmt.Sprintf("%d bytes, not %d", size, u.size)
		c.fault(p)
		return nil
	}
	facts, err := c.s.index.blob(d)
	known := err == nil && facts.Size == size
	if err != nil && !errors.Is(err, ErrMiss) {
		return err
	}
	if known && !c.part.has(d) {
		return nil
	}
	if known && !c.deep && !facts.Proven.IsZero() {
		same, err := c.compare(ctx, d, facts)
		if err != nil {
			return c.unread(ctx, p, err)
		}
		if same {
			return nil
		}
	}
	return c.proveNamed(ctx, p, facts, known)
}

// unread makes an error of reading one blob a finding, unless it is the end of
// ctx: the others are read all the same.
func (c *checker) unread(ctx context.Context, p Problem, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	p.Kind, p.Remedy, p.Detail = DamagedBlob, remedyRepair, err.Error()
	c.fault(p)
	if e, ok := errors.AsType[*MismatchError](err); ok { // it was read
		c.count(e.Size)
	}
	return nil
}

// proveNamed hashes a blob, and has its fingerprint recorded. One that the index does not know, and that is damaged, is damaged
// only: it was set aside for that.
func (c *checker) proveNamed(ctx context.Context, p Problem, old blobFacts, known bool) error {
	facts, err := c.s.prove(ctx, p.Digest)
	if err != nil {
		return c.unread(ctx, p, err)
	}
	c.count(facts.Size)
	if !known {
		p.Kind, p.Remedy, p.Detail = IndexLacks, remedyIndex, "the index does not have the blob, or has another size"
		c.fault(p)
		return nil
	}
	if !old.Proven.IsZero() && old.XXH64 != facts.XXH64 {
		p.Kind, p.Detail = IndexLacks, "the blob is sound, but its fingerprint in the index was not; it is right now"
		c.fault(p)
	}
	c.mu.Lock()
	c.proven[p.Digest] = facts
	c.mu.Unlock()
	return c.record(500)
}

// compare reads a blob and says whether it has the fingerprint in facts.
func (c *checker) compare(ctx context.Context, d Digest, facts blobFacts) (bool, error) {
	f, err := c.s.files.Blob(d)
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := xxhash.New()
	if err := c.s.hash(ctx, h, f); err != nil {
		return false, fmt.Errorf("cannot read blob %v: %w", d, err)
	}
	if h.Sum64() != facts.XXH64 {
		return false, nil
	}
	c.count(facts.Size)
	return true, nil
}

// unnamed proves a blob that no kept snapshot names.
func (c *checker) unnamed(ctx context.Context, d Digest) error {
	facts, err := c.s.prove(ctx, d)
	switch {
	case errors.Is(err, ErrMiss):
		return nil // swept meanwhile
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		c.fault(Problem{Kind: DamagedBlob, Digest: d, File: blobName(d), Detail: err.Error() + ", and no snapshot names it", Remedy: remedyIndex})
		return nil
	}
	c.count(facts.Size)
	return nil
}

func (c *checker) count(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Blobs++
	c.report.Bytes += bytes
}

// record writes what was proven to the index if it is worth it and there is
// room. A sweep may have taken a blob meanwhile; it must not come back.
func (c *checker) record(least int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.proven) < least {
		return nil
	}
	c.s.landing.RLock()
	defer c.s.landing.RUnlock()
	for d := range c.proven {
		if _, err := c.s.index.blob(d); err != nil {
			delete(c.proven, d)
		}
	}
	err := c.s.index.putBlobs(c.proven)
	clear(c.proven)
	if errors.Is(err, ErrNoSpace) {
		c.s.log.Warn("there is no room to record what was proven, and the next check proves it again", "reason", err)
		return nil
	}
	return err
}

// compareIndex compares the entries in the index with those of a kept snapshot.
func (c *checker) compareIndex(ctx context.Context, id Digest, m *Manifest) error {
	r, ok := c.records[m.Stream][id]
	delete(c.records[m.Stream], id)
	p := Problem{Kind: IndexLacks, Stream: m.Stream, Snapshot: id, Remedy: remedyIndex}
	if sh := c.s.index.shelf(m.Stream); !ok || !r.Whole || sh == nil || !sh.has(id) {
		p.Detail = "the index does not have the snapshot"
		c.fault(p)
		return nil
	}
	lacks, have, err := c.s.index.compareEntries(ctx, m, r.Seq)
	if err != nil {
		return err
	}
	if len(lacks) > 0 {
		p.Path, p.Digest, p.Others = lacks[0].Path, lacks[0].Digest, len(lacks)-1
		p.Detail = "the index does not have the entry, or has another"
		c.fault(p)
	}
	if all := c.counts[m.Stream][r.Seq]; all > have {
		c.extra(m.Stream, id, all-have)
	}
	return nil
}

// extraRecords reports what the index has of snapshots that are not there.
// What it serves but has lost its manifest is reported as that.
func (c *checker) extraRecords() {
	for stream, rest := range c.records {
		for id, r := range rest {
			if sh := c.s.index.shelf(stream); sh == nil || !sh.has(id) {
				c.extra(stream, id, c.counts[stream][r.Seq])
			}
		}
	}
}

// facts looks for blobs that the index has and the files do not. Those that a
// snapshot names are found missing elsewhere.
func (c *checker) facts(ctx context.Context) error {
	var missing []Digest
	err := c.s.index.scan(ctx, []byte{prefixBlob}, false, func(key, _ []byte) error {
		d := Digest(key[1:])
		if c.uses[d] != nil {
			return nil
		}
		_, err := c.s.files.blobSize(d)
		if errors.Is(err, ErrMiss) {
			missing = append(missing, d)
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range missing {
		if _, err := c.s.index.blob(d); errors.Is(err, ErrMiss) {
			continue // swept or evicted meanwhile
		}
		c.fault(Problem{Kind: IndexExtra, Digest: d, File: blobName(d), Detail: "the index has a blob that is not there", Remedy: remedyIndex})
	}
	return c.pulls(ctx)
}

// pulls looks for blobs that may be evicted and must not.
func (c *checker) pulls(ctx context.Context) error {
	all, err := c.s.index.pulls(ctx)
	if err != nil {
		return err
	}
	for d, f := range all {
		if f.State == pullKept && c.uses[d] != nil {
			c.fault(Problem{Kind: IndexExtra, Digest: d, File: blobName(d), Stream: c.uses[d].stream, Snapshot: c.uses[d].snapshot,
				Path: c.uses[d].path, Detail: "the index has the blob as one that may be evicted", Remedy: remedyIndex})
		}
	}
	return nil
}

func (c *checker) extra(stream string, id Digest, n int) {
	c.fault(Problem{Kind: IndexExtra, Stream: stream, Snapshot: id, Detail: fmt.Sprintf("the index has %d entries that the snapshot does not", n), Remedy: remedyIndex})
}
