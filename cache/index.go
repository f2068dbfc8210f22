package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// An index holds in Badger what the files of a store say, arranged for
// lookups on the way of a request: the entries of the kept snapshots by path,
// and the size and fingerprint of every blob. The files are the truth: an
// index that is lost, damaged or behind is made again from them.
//
// Its methods may be called from several goroutines.
type index struct {
	dir string
	log *slog.Logger

	// trace, if set, is told of every write: "write" before it is made durable,
	// "written" after that; and of "replace" and "replaced". An error that it
	// returns is that of the operation. It lets tests see the order of
	// operations and make them fail.
	trace func(step string) error

	// room says whether the disk has room of so many bytes for another batch of
	// writes. Badger maps its files into memory, so on a full disk the process
	// would die.
	room func(need int64) error

	closeTime time.Duration
	closed    chan error // what came of closing db

	handle sync.RWMutex // held for writing only while db is replaced
	db     *badger.DB

	// changing is held for reading by who writes facts, for writing by replace.
	// It is taken before handle.
	changing sync.RWMutex

	// turn holds a token while a publication, a sweep or a rebuild is under
	// way: one at a time.
	turn chan struct{}

	shelving sync.RWMutex // guards shelves; a shelf itself never changes
	shelves  map[string]*shelf
}

// indexVersion is the version of the keys and values below. An index with
// another one is thrown away and made again.
const indexVersion = 1

// The first byte of a key says what it is about.
const (
	prefixBlob     = 'b' // digest → blobFacts
	prefixEntry    = 'e' // stream 0 path 0 inverse sequence, kind → digest, size
	prefixNote     = 'n' // key → value
	prefixPull     = 'p' // digest → pullFacts
	prefixSnapshot = 's' // stream 0 id → record
	prefixWhole    = 'w' // nothing: the index was once made from the files to the end
)

// maxNote bounds the value of a note in bytes.
const maxNote = 64 << 10

// indexOptions keeps Badger small: the index of a large store is some tens of
// megabytes, read by single keys and written a few times a day.
//
// Tables are not compressed, so they are read where they are mapped and need
// no block cache. Values stay far below the threshold, so the value log stays
// empty. What costs memory is compaction, which maps the old and the new
// tables at once and takes some megabytes for each table that it builds: so it
// waits for many tables, goes to the last level at once, and is done when the
// index is closed rather than by who opens it.
func indexOptions(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithExternalMagic(indexVersion).
		WithSyncWrites(true).
		WithBypassLockGuard(true). // LOCK guards the whole store
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithMemTableSize(2 << 20).
		WithNumMemtables(1).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(64 << 20).
		WithNumLevelZeroTables(10).
		WithNumLevelZeroTablesStall(20).
		WithNumCompactors(2). // the least that Badger takes
		WithCompactL0OnClose(true).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithValueThreshold(maxNote + 1).
		WithValueLogFileSize(1 << 20).
		WithChecksumVerificationMode(options.OnBlockRead)
}

// What stands beside an index, by what is added to its name.
const (
	newSuffix     = ".new"     // the one that is to replace it
	openingSuffix = ".opening" // says that it is being opened
	oldSuffix     = ".old"     // one that is being removed
)

// openIndex opens the index in dir, and makes an empty one if there is none
// or it cannot be used. The latter is logged.
func openIndex(dir string, log *slog.Logger, room func(need int64) error) (*index, error) {
	x := &index{dir: dir, log: log, room: room, closeTime: closeTime, turn: make(chan struct{}, 1), shelves: make(map[string]*shelf)}
	for _, left := range []string{dir + newSuffix, dir + newSuffix + openingSuffix, dir + oldSuffix} {
		if err := os.RemoveAll(left); err != nil {
			return nil, fmt.Errorf("cannot remove what a rebuild left: %w", err)
		}
	}
	err := x.open()
	if err != nil && damaged(err) {
		log.Warn("the index cannot be used and is made again from the files", "dir", dir, "reason", err)
		if err := discard(dir); err != nil {
			return nil, fmt.Errorf("cannot remove the damaged index: %w", err)
		}
		err = x.open()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the index %s: %w", dir, err)
	}
	return x, nil
}

var errOpening = errors.New("the process that opened it last died meanwhile")

// open opens x.db. A file beside the index marks the attempt: Badger ends the
// process on some kinds of damage, and the next attempt must not meet it again.
func (x *index) open() (err error) {
	opening := x.dir + openingSuffix
	if _, err := os.Lstat(opening); err == nil {
		if err := discard(x.dir); err != nil {
			return err
		}
		x.log.Warn("the index is made again from the files", "dir", x.dir, "reason", errOpening)
	}
	if err := os.WriteFile(opening, nil, 0o600); err != nil {
		return err
	}
	defer os.Remove(opening)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("badger panics: %v", p)
		}
	}()
	switch err := os.Mkdir(x.dir, 0o755); {
	case err == nil:
		if err := syncParent(x.dir); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := removeEmptyLogs(x.dir); err != nil {
		return err
	}
	if err := verifyTables(x.dir); err != nil {
		return err
	}
	// The compaction when it is closed writes most of it anew.
	db, err := badger.Open(indexOptions(x.dir, x.log).WithCompactL0OnClose(x.room(indexRoom) == nil))
	if err == nil {
		x.db = db
	}
	return err
}

// discard removes the index in dir, so that a crash leaves all of it under its name or nothing: of a part Badger might not notice
// that it is one.
func discard(dir string) error {
	old := dir + oldSuffix
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncParent(dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// takeTurn waits until nobody else publishes, sweeps or rebuilds.
func (x *index) takeTurn(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	select {
	case x.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (x *index) endTurn() { <-x.turn }

// isWhole tells an index that holds what the files say from one that was
// begun only.
func (x *index) isWhole() (bool, error) {
	_, err := x.get([]byte{prefixWhole})
	if errors.Is(err, ErrMiss) {
		return false, nil
	}
	return err == nil, err
}

func (x *index) setWhole() error {
	return x.write(func(b *batch) error { return b.set([]byte{prefixWhole}, nil) })
}

// replace puts the index that build fills in the place of x. Lookups go on
// meanwhile; who has facts to write waits. A crash in the middle leaves the
// old index or none.
func (x *index) replace(build func(new *index) error) error {
	x.changing.Lock()
	defer x.changing.Unlock()
	dir := x.dir + newSuffix
	if err := errors.Join(os.RemoveAll(dir), x.room(indexRoom)); err != nil {
		return err
	}
	new, err := openIndex(dir, x.log, x.room)
	if err != nil {
		return err
	}
	err = build(new)
	if err = errors.Join(err, new.close()); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := errors.Join(x.closable(), x.traced("replace")); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := x.take(new); err != nil {
		return err
	}
	if err := x.traced("replaced"); err != nil {
		return err
	}
	return os.RemoveAll(x.dir + oldSuffix)
}

// take puts new, which is closed, in the place of x, which is moved out of the way.
func (x *index) take(new *index) error {
	x.handle.Lock()
	defer x.handle.Unlock()
	if err := x.db.Close(); err != nil {
		x.log.Warn("the old index did not close well", "reason", err)
	}
	old := x.dir + oldSuffix
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(x.dir, old); err != nil {
		return err
	}
	if err := os.Rename(new.dir, x.dir); err != nil {
		return err
	}
	if err := syncParent(x.dir); err != nil {
		return err
	}
	if err := x.open(); err != nil {
		return err
	}
	x.shelving.Lock()
	defer x.shelving.Unlock()
	x.shelves = new.shelves
	return nil
}

// view runs f on one consistent state of the index.
func (x *index) view(f func(*badger.Txn) error) error {
	x.handle.RLock()
	defer x.handle.RUnlock()
	return x.db.View(f)
}

// A batch collects writes and asks for room on the disk as it goes. It is not
// atomic: readers and a crash may see a part of it, but never a write without
// those before it, since Badger makes one transaction durable after another.
type batch struct {
	x  *index
	wb *badger.WriteBatch
	n  int // writes since room was last asked for
}

// batchRoom is how many writes follow one look at the free space: some
// hundred kilobytes.
const batchRoom = 2000

func (b *batch) set(key, value []byte) error {
	if err := b.count(indexRoom); err != nil {
		return err
	}
	return b.wb.Set(key, value)
}

// mark is set for who is on the way to free more.
func (b *batch) mark(key, value []byte) error {
	if err := b.count(leastRoom); err != nil {
		return err
	}
	return b.wb.Set(key, value)
}

func (b *batch) delete(key []byte) error {
	if err := b.count(leastRoom); err != nil {
		return err
	}
	return b.wb.Delete(key)
}

func (b *batch) count(need int64) error {
	if b.n++; b.n%batchRoom != 1 {
		return nil
	}
	return b.x.room(need)
}

// write runs f and returns when all that it wrote is durable.
func (x *index) write(f func(*batch) error) error {
	x.handle.RLock()
	defer x.handle.RUnlock()
	b := &batch{x: x, wb: x.db.NewWriteBatch()}
	b.wb.SetMaxPendingTxns(4)
	defer b.wb.Cancel()
	if err := f(b); err != nil {
		return err
	}
	if err := x.traced("write"); err != nil {
		return err
	}
	if err := b.wb.Flush(); err != nil {
		return err
	}
	return x.traced("written")
}

func (x *index) traced(step string) error {
	if x.trace == nil {
		return nil
	}
	return x.trace(step)
}

// scan calls f with each key that begins with prefix, and with its value if
// values are asked for. Both are valid during the call only.
func (x *index) scan(ctx context.Context, prefix []byte, values bool, f func(key, value []byte) error) error {
	x.handle.RLock()
	defer x.handle.RUnlock()
	return scan(ctx, x.db, prefix, values, f)
}

func scan(ctx context.Context, db *badger.DB, prefix []byte, values bool, f func(key, value []byte) error) error {
	return db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			key := it.Item().Key()
			visit := func(value []byte) error { return f(key, value) }
			var err error
			if values {
				err = it.Item().Value(visit)
			} else {
				err = visit(nil)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// get returns the value of key, or ErrMiss.
func (x *index) get(key []byte) (value []byte, err error) {
	err = x.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return ErrMiss
		}
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

// badgerLog passes on Badger's log. What it calls informational is of use
// only to who debugs it.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) print(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "index", "badger", strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

func (l badgerLog) Errorf(format string, args ...any)   { l.print(slog.LevelError, format, args) }
func (l badgerLog) Warningf(format string, args ...any) { l.print(slog.LevelWarn, format, args) }
func (l badgerLog) Infof(format string, args ...any)    { l.print(slog.LevelDebug, format, args) }
func (l badgerLog) Debugf(format string, args ...any)   { l.print(slog.LevelDebug, format, args) }
