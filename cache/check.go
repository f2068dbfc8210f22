package cache

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"sync"
)

// CheckOptions says how thorough a check is.
type CheckOptions struct {
	// Deep proves every blob by its SHA-256. Otherwise a blob that a snapshot
	// names is compared with the fingerprint taken when it was last proven,
	// which finds every accident and costs less.
	Deep bool

	// Part is the part of the blobs that is read. All are looked for, in the
	// right size.
	Part Part
}

// A Part is an arc of the circle on which blobs lie in the order of their
// digests: they are spread evenly. The zero Part is all of it.
type Part struct {
	From  float64 // where it begins: 0 to 1
	Share float64 // of the whole, up to 1; 0 is all
}

// has reports whether blob d lies in the part.
func (p Part) has(d Digest) bool {
	if p.Share == 0 || p.Share >= 1 {
		return true
	}
	at := float64(binary.BigEndian.Uint64(d[:])) / (1 << 64)
	return math.Mod(at-p.From+1, 1) < p.Share
}

// ErrUnsound: a check has found faults. Read its report.
var ErrUnsound = errors.New("the store has faults")

// A Report is the result of a check.
type Report struct {
	Deep      bool
	Snapshots int   // kept ones, read and proven
	Of        int   // blobs that there are to read; a part of them may be asked for
	Blobs     int   // read
	Bytes     int64 // read
	Problems  []Problem
	Notes     []Problem // what is no fault but worth knowing
}

// OK says whether there are no faults.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// Err is nil if there are no faults; otherwise it is ErrUnsound, and names the
// first of them.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	return fmt.Errorf("%w: %d, the first: %v", ErrUnsound, len(r.Problems), r.Problems[0])
}

// A checker is one check under way.
type checker struct {
	s    *Store
	deep bool
	part Part

	uses map[Digest]*use

	// What the index says, as long as the snapshots are read.
	records map[string]map[Digest]record
	counts  map[string]map[uint32]int

	mu     sync.Mutex // guards what follows
	report *Report
	proven map[Digest]blobFacts // to be recorded
}

// use is what the kept snapshots say of a blob.
type use struct {
	size     int64
	stream   string
	snapshot Digest
	path     string
	others   int
}

// Check compares the store with what its snapshots promise. The error says
// that the check could not be done; what it found is in the report. The store
// may be in use meanwhile.
func (s *Store) Check(ctx context.Context, o CheckOptions) (*Report, error) {
	c := &checker{s: s, deep: o.Deep, part: o.Part, report: &Report{Deep: o.Deep},
		uses: make(map[Digest]*use), proven: make(map[Digest]blobFacts)}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("cannot check the store: %w", err)
	}
	order := func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.File, b.File), cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Path, b.Path))
	}
	slices.SortStableFunc(c.report.Problems, order)
	slices.SortStableFunc(c.report.Notes, order)
	return c.report, nil
}

func (c *checker) run(ctx context.Context) error {
	if err := c.promises(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.facts, c.blobs, c.partials, c.foreign} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// promises reads what the snapshots say, and compares it with the index.
// Publications wait for as long, so that all of it is one state.
func (c *checker) promises(ctx context.Context) (err error) {
	if err := c.s.index.takeTurn(ctx); err != nil {
		return err
	}
	defer c.s.index.endTurn()
	if c.records, err = c.s.index.records(ctx); err != nil {
		return err
	}
	if c.counts, err = c.s.index.countEntries(ctx); err != nil {
		return err
	}
	if err := c.manifests(ctx); err != nil {
		return err
	}
	c.extraRecords()
	return nil
}

func (c *checker) fault(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Problems = append(c.report.Problems, p)
}

func (c *checker) note(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Notes = append(c.report.Notes, p)
}

// manifests reads every kept snapshot and learns what it names.
func (c *checker) manifests(ctx context.Context) error {
	kept := make(map[string]map[Digest]bool)
	streams, err := c.s.files.published()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		kept[stream] = make(map[Digest]bool)
		if err := c.kept(ctx, stream, kept[stream]); err != nil {
			return err
		}
	}
	unguarded, err := c.s.files.unguarded()
	if err != nil {
		return err
	}
	for _, stream := range unguarded {
		if err := c.s.lostCurrent(stream); err != nil {
			c.fault(Problem{Kind: DanglingCurrent, File: currentName(stream), Stream: stream, Detail: err.Error(), Remedy: remedyCurrent})
			kept[stream] = make(map[Digest]bool)
			if err := c.spare(stream, kept[stream]); err != nil {
				return err
			}
		}
	}
	return c.others(ctx, kept)
}

func (c *checker) kept(ctx context.Context, stream string, kept map[Digest]bool) error {
	ids, err := c.s.files.kept(stream)
	if err != nil {
		c.fault(Problem{Kind: DanglingCurrent, File: currentName(stream), Stream: stream, Detail: err.Error(), Remedy: remedyCurrent})
		return c.spare(stream, kept)
	}
	absent, remedy := DanglingCurrent, remedyPublish
	for _, id := range ids {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		kept[id] = true
		m, err := c.s.files.Manifest(stream, id)
		if err == nil {
			c.keep(id, m)
			if err := c.compareIndex(ctx, id, m); err != nil {
				return err
			}
		} else {
			p := Problem{Kind: DamagedManifest, File: manifestName(stream, id), Stream: stream, Snapshot: id, Detail: err.Error(), Remedy: remedy}
			if errors.Is(err, ErrNoSnapshot) {
				p.Kind, p.Detail = absent, "the manifest is not there"
			}
			c.fault(p)
		}
		absent, remedy = MissingManifest, remedyManifest
	}
	return nil
}

// spare counts all manifests of a stream as kept, since nobody can tell which of
// them are not.
func (c *checker) spare(stream string, kept map[Digest]bool) error {
	ids, err := c.s.files.manifests(stream)
	for _, id := range ids {
		kept[id] = true
	}
	return err
}

func (c *checker) keep(id Digest, m *Manifest) {
	c.report.Snapshots++
	for _, e := range m.Entries {
		if e.Kind == KindKnown {
			continue
		}
		u := c.uses[e.Digest]
		if u == nil {
			c.uses[e.Digest] = &use{size: e.Size, stream: m.Stream, snapshot: id, path: e.Path}
			continue
		}
		u.others++
		if u.size != e.Size {
			c.fault(Problem{Kind: WrongSize, Digest: e.Digest, File: blobName(e.Digest), Stream: m.Stream, Snapshot: id, Path: e.Path,
				Detail: fmt.Sprintf("%d bytes here, %d in another entry", e.Size, u.size), Remedy: remedyManifest})
		}
	}
}

// others looks at the manifests that are not kept.
func (c *checker) others(ctx context.Context, kept map[string]map[Digest]bool) error {
	streams, err := c.s.files.archived()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		ids, err := c.s.files.manifests(stream)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if !kept[stream][id] {
				delete(c.records[stream], id) // what a failed publication left is no fault
				c.note(Problem{Kind: Unpublished, File: manifestName(stream, id), Stream: stream, Snapshot: id, Remedy: remedySweep})
			}
		}
	}
	return nil
}

func (c *checker) partials(context.Context) error {
	list, err := c.s.files.Partials()
	if err != nil {
		return err
	}
	for _, p := range list {
		c.note(Problem{Kind: PartialFile, File: path.Join(ingestDir, p.Key+partSuffix), Detail: fmt.Sprintf("%d of %d bytes", p.Have, p.Size)})
	}
	return nil
}

// foreign looks for files in the store that are not its own.
func (c *checker) foreign(context.Context) error {
	own := []string{formatFile, lockFile, streamsDir, path.Dir(blobsDir), snapshotsDir, currentDir, pinsDir, bundlesDir, ingestDir, keysDir,
		indexDir, indexDir + newSuffix, indexDir + openingSuffix, ballastFile, scheduleFile, "oxbow.sock"}
	stream := func(isDir bool) func(fs.DirEntry) bool {
		return func(e fs.DirEntry) bool { return checkName(e.Name()) == nil && e.IsDir() == isDir }
	}
	type place struct {
		dir string
		own func(fs.DirEntry) bool
	}
	places := []place{
		{".", func(e fs.DirEntry) bool { return slices.Contains(own, e.Name()) }},
		{path.Dir(blobsDir), func(e fs.DirEntry) bool { return e.Name() == path.Base(blobsDir) }},
		{blobsDir, func(e fs.DirEntry) bool {
			return len(e.Name()) == 2 && strings.Trim(e.Name(), "0123456789abcdef") == "" && e.IsDir()
		}},
		{snapshotsDir, stream(true)},
		{currentDir, stream(false)},
		{pinsDir, isDigest},
		{bundlesDir, isDigest},
		{ingestDir, regular},
	}
	for i := range 256 {
		shard := fmt.Sprintf("%02x", i)
		places = append(places, place{path.Join(blobsDir, shard), func(e fs.DirEntry) bool { return isDigest(e) && e.Name()[:2] == shard }})
	}
	streams, err := c.s.files.archived()
	if err != nil {
		return err
	}
	for _, name := range streams {
		places = append(places, place{path.Join(snapshotsDir, name), isDigest})
	}
	for _, p := range places {
		list, err := c.s.files.readDir(p.dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			if !p.own(e) {
				c.note(Problem{Kind: ForeignFile, File: path.Join(p.dir, e.Name())})
			}
		}
	}
	return nil
}
