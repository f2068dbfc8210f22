package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"oxbow/cache/internal/durable"
)

// The layout of a store; all names are relative to its directory.
const (
	formatFile   = "FORMAT"
	lockFile     = "LOCK"
	streamsDir   = "streams"
	blobsDir     = "blobs/sha256"
	snapshotsDir = "snapshots"
	currentDir   = "current"
	pinsDir      = "pins"
	bundlesDir   = "bundles"
	ingestDir    = "ingest"
	keysDir      = "keys"
	trustedDir   = "keys/trusted"
	indexDir     = "index"
	ballastFile  = "ballast"
	scheduleFile = "schedule.json"
)

var (
	// ErrNoStore: the directory holds no store. Create one, or name the right directory.
	ErrNoStore = errors.New("no oxbow store")
	// ErrLocked: another process owns the store. Ask that one, or wait for it. See [LockedError].
	ErrLocked = errors.New("store is in use")
	// ErrMiss: the store does not have it. Fetch it.
	ErrMiss = errors.New("not in the store")
	// ErrExists: the store has it already. Use what is there. See [ExistsError].
	ErrExists = errors.New("already in the store")
	// ErrCorrupt: bytes are not what they should be. Drop them, try another source. See [MismatchError].
	ErrCorrupt = errors.New("content does not match")
	// ErrNoSpace: the disk is too full. Make room. See [NoSpaceError].
	ErrNoSpace = errors.New("no space left for the store")
	// ErrIncomplete: bytes are missing yet. Fetch them and commit again.
	ErrIncomplete = errors.New("content is incomplete")
)

// Options configures a [Store]. The zero value is ready to use.
type Options struct {
	// Owner is the command line that others are shown when they find the store in use. If empty, os.Args is used.
	Owner string
	// Reserve is the free space in bytes that ingest leaves alone. If zero, it is 2 GiB; if negative, there is none.
	Reserve int64
	// Ballast is the size in bytes of the file that is given up when the disk is full. If zero, it is 128 MiB; if negative,
	// there is none.
	Ballast int64
	// CacheLimit bounds the bytes of the pulled blobs: those that came by [Store.BeginPull] and that no kept snapshot needs. If
	// zero, it is 50 GiB; if negative, there is none. [Store.SetCacheLimit] changes it.
	CacheLimit int64
	// Now is the clock. If nil, [time.Now] is used.
	Now func() time.Time
	// Log is told what an operator should know. If nil, nothing is logged.
	Log *slog.Logger

	// trace, if set, is told of every durable step as [durable.Disk].Trace is, and of the writes of the index. It lets tests see
	// what comes before a store is open.
	trace func(durable.Op) error
}

// DefaultReserve is [Options].Reserve where that is zero.
const DefaultReserve = 2 << 30

// DefaultCacheLimit is [Options].CacheLimit where that is zero.
const DefaultCacheLimit = 50 << 30

const defaultBallast = 128 << 20

func (o *Options) withDefaults() Options {
	var v Options
	if o != nil {
		v = *o
	}
	if v.Owner == "" {
		v.Owner = strings.Join(os.Args, " ")
	}
	v.Reserve = orDefault(v.Reserve, DefaultReserve)
	v.Ballast = orDefault(v.Ballast, defaultBallast)
	v.CacheLimit = orDefault(v.CacheLimit, DefaultCacheLimit)
	if v.Now == nil {
		v.Now = time.Now
	}
	if v.Log == nil {
		v.Log = slog.New(slog.DiscardHandler)
	}
	return v
}

// orDefault returns n, or def where n is zero, or 0 where n is negative.
func orDefault(n, def int64) int64 {
	if n == 0 {
		return def
	}
	return max(n, 0)
}

// A Store is a store that this process owns. Its methods may be called concurrently.
type Store struct {
	dir     string
	opts    Options
	log     *slog.Logger
	root    *os.Root
	parts   *os.Root // ingestDir, so that a small file costs one openat
	files   *Files
	disk    *durable.Disk
	index   *index
	lock    *os.File
	buffers sync.Pool // *[]byte of bufferSize, for hashing what was written before

	// landing is held shared while proven bytes go from ingest to the index, and alone while a sweep takes blobs away: so a
	// sweep never removes a file that has just landed.
	landing sync.RWMutex

	// flushing holds one token: the right to flush.
	flushing chan struct{}

	// promising makes looking for room and taking it one step.
	promising sync.Mutex
	promised  atomic.Int64 // bytes that running ingests may still write

	died    bool // the last owner did not close the store, and this is not put right yet
	recount bool // set while the store is opened: the account may hold what a snapshot needs

	// tending is the goroutine that evicts and saves times of use; stop ends it, due calls for an eviction.
	tending sync.WaitGroup
	stop    chan struct{} // nil: it was not started
	due     chan struct{}

	// mu guards what follows, and is never held during I/O.
	mu      sync.Mutex
	running map[string]*Ingest // by key: at most one ingest of one content
	staged  map[Digest]*staged // proven small blobs that wait for Flush
	leases  map[Digest]int     // how many leases count on it
	leaving map[Digest]bool    // blobs that are being removed: they are not here any more
	doubted map[Digest]bool    // blobs that snapshots may need and that are unknown until they are proven again
	pulled  account
	epoch   int // how many syncs of the whole file system have failed
}

// Files is the read-only view of a store. It reads files only, needs no lock, and so works beside the process that owns the store.
type Files struct {
	dir  string
	root *os.Root
	own  bool // Close closes root
}

// Create makes a store in dir, which must be absent (its parent must be there), empty, or a store already, and opens it.
func Create(dir string, o *Options) (*Store, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot create store %s: %w", dir, err)
	}
	s, err := newStore(dir, o)
	if err != nil {
		return nil, err
	}
	if err := s.create(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Open opens the store in dir and owns it until Close. It fails with [ErrNoStore], [ErrLocked] or a [*FormatError] where dir is no
// store, is owned by another process, or is of a layout that this code does not know.
func Open(dir string, o *Options) (*Store, error) {
	s, err := newStore(dir, o)
	if err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func newStore(dir string, o *Options) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot open store %s: %w: no such directory; name another with --store, or create one there", dir, ErrNoStore)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open store %s: %w", dir, err)
	}
	opts := o.withDefaults()
	return &Store{
		dir:      dir,
		opts:     opts,
		log:      opts.Log,
		root:     root,
		files:    &Files{dir: dir, root: root},
		buffers:  sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }},
		flushing: make(chan struct{}, 1),
		running:  make(map[string]*Ingest),
		staged:   make(map[Digest]*staged),
		leases:   make(map[Digest]int),
		leaving:  make(map[Digest]bool),
		doubted:  make(map[Digest]bool),
		pulled:   newAccount(opts.CacheLimit),
		due:      make(chan struct{}, 1),
	}, nil
}

// create writes FORMAT, which makes the directory a store, once the lock is held; then it goes on as open does.
func (s *Store) create() error {
	if _, err := s.root.Stat(formatFile); err == nil || s.files.hasBlobs() {
		return s.open()
	}
	if err := s.refuseForeign(); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if err := s.openDisk(); err != nil {
		return err
	}
	format := fmt.Appendf(nil, "oxbow store %d\n", formatVersion)
	if err := s.disk.WriteFile(formatFile, format, 0o644); err != nil {
		return fmt.Errorf("cannot create store %s: %w", s.dir, s.full(err))
	}
	if err := syncParent(s.dir); err != nil {
		return fmt.Errorf("cannot create store %s: %w", s.dir, err)
	}
	return s.openRest()
}

// refuseForeign fails when the directory holds anything but what a fresh file system or an interrupted create leaves.
func (s *Store) refuseForeign() error {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("cannot create store %s: %w", s.dir, err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"lost+found", lockFile, ingestDir}, e.Name()) {
			return fmt.Errorf("cannot create store %s: the directory is not empty (it holds %q) and is no store; choose an empty or a new one",
				s.dir, e.Name())
		}
	}
	return nil
}

// syncParent makes the name of the directory dir durable.
func syncParent(dir string) error {
	f, err := os.Open(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (s *Store) open() error {
	if err := s.files.checkFormat(); err != nil {
		return err
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if err := s.openDisk(); err != nil {
		return err
	}
	return s.openRest()
}

func (s *Store) openDisk() (err error) {
	if err := s.root.MkdirAll(ingestDir, 0o755); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	if s.parts, err = s.root.OpenRoot(ingestDir); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	if s.disk, err = durable.New(s.root, ingestDir); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	s.disk.Trace = s.opts.trace
	if s.disk.Trace == nil && s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.disk.Trace = func(op durable.Op) error {
			s.log.Debug("disk", "op", op.Kind, "name", op.Name)
			return nil
		}
	}
	return nil
}

// openRest completes the layout, clears waste, and opens the index: with the lock held, nobody else can be at work here.
func (s *Store) openRest() (err error) {
	defer s.step(stepOpen)()
	if err := s.makeLayout(); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, s.full(err))
	}
	if s.died {
		s.settleNames()
	}
	if err := s.clearWaste(); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	s.restoreBallast()
	if err := s.roomFor(leastRoom); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	if s.index, err = openIndex(filepath.Join(s.dir, indexDir), s.log, s.roomFor); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	if trace := s.opts.trace; trace != nil {
		s.index.trace = func(step string) error { return trace(durable.Op{Kind: step, Name: indexDir}) }
	}
	if err := s.settle(context.Background()); err != nil {
		return fmt.Errorf("cannot open store %s: %w", s.dir, err)
	}
	s.died = false
	stop := make(chan struct{})
	s.stop = stop
	s.tending.Go(func() { s.tend(stop) })
	s.callEvictor()
	return nil
}

// makeLayout makes the directories that are missing, and makes them durable. The last of the blob directories comes last, so that
// its being there says that all the others are.
func (s *Store) makeLayout() error {
	made := false
	mkdir := func(name string, perm fs.FileMode) error {
		err := s.root.Mkdir(name, perm)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		made = made || err == nil
		return err
	}
	for _, dir := range []string{streamsDir, snapshotsDir, currentDir, pinsDir, path.Dir(blobsDir), blobsDir} {
		if err := mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{keysDir, trustedDir} {
		if err := mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if _, err := s.root.Stat(blobsDir + "/ff"); err != nil {
		if err := s.makeBlobDirs(); err != nil {
			return err
		}
		made = true
	}
	if !made {
		return nil
	}
	return s.disk.SyncFS()
}

// makeBlobDirs makes what is missing of the directories of blobs, the last of which stands for all.
func (s *Store) makeBlobDirs() error {
	blobs, err := s.root.OpenRoot(blobsDir) // once: each name below the root takes an open of every directory on its way
	if err != nil {
		return err
	}
	defer blobs.Close()
	for i := range 256 {
		if err := blobs.Mkdir(fmt.Sprintf("%02x", i), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Close gives the store up. No other method may be running, and no [Ingest] be open. Blobs that were not flushed are not lost
// altogether: the next owner finds their bytes among the partial downloads.
func (s *Store) Close() error {
	var errs []error
	if s.stop != nil {
		close(s.stop)
		s.stop = nil
		s.tending.Wait()
		s.saveUses()
	}
	left := false
	if s.index != nil {
		err := s.index.close()
		if left = errors.Is(err, errLeft); left {
			s.log.Warn("the index could not be closed, and the next start opens it as after a crash", "store", s.dir, "reason", err)
		} else {
			errs = append(errs, err)
		}
	}
	if s.disk != nil {
		errs = append(errs, s.disk.Close())
	}
	if s.parts != nil {
		errs = append(errs, s.parts.Close())
	}
	errs = append(errs, s.dropLock(left || s.died), s.root.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot close store %s: %w", s.dir, err)
	}
	return nil
}

// Files returns the read-only view of the store. It ends with the store; closing it does nothing.
func (s *Store) Files() *Files { return s.files }
