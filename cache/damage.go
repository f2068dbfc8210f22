package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
)

// damaged tells an index that is broken from a system that is: only the
// former gets better by throwing the index away.
func damaged(err error) bool {
	for _, system := range []error{
		fs.ErrPermission, syscall.EWOULDBLOCK, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS,
		syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
	} {
		if errors.Is(err, system) {
			return false
		}
	}
	return true
}

// removeEmptyLogs removes logs without a byte from the index in dir, which Badger takes for damage. It leaves one itself when it dies
// just after it has made a log, or in the middle of removing one whose content is in a table.
func removeEmptyLogs(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if st, err := os.Stat(name); err != nil || st.Size() > 0 {
			continue
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// verifyTables reads every table of the index in dir. Badger itself ends the
// process on one of which the frame is damaged, and takes the keys of a damaged
// block for missing. Tables that its manifest does not list it removes unread:
// it died while it wrote them.
func verifyTables(dir string) error {
	listed, err := listedTables(dir)
	if err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	var buf []byte
	for _, name := range names {
		if id, ok := table.ParseFileID(name); !ok || !listed[id] {
			continue
		}
		if buf, err = readInto(buf, name); err != nil {
			return err
		}
		if err := verifyTable(buf); err != nil {
			return fmt.Errorf("table %s is damaged: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// listedTables returns the tables in Badger's manifest; none where there is no manifest yet.
func listedTables(dir string) (map[uint64]bool, error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	manifest, _, err := badger.ReplayManifestFile(f, indexVersion, badger.DefaultOptions(dir))
	if err != nil {
		return nil, err
	}
	listed := make(map[uint64]bool)
	for id := range manifest.Tables {
		listed[id] = true
	}
	return listed, nil
}

// verifyTable needs the recover because nothing that the reading of a table
// relies on is proven before.
func verifyTable(data []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("its frame makes no sense")
		}
	}()
	t, err := table.OpenInMemoryTable(data, 1, &table.Options{ChkMode: options.OnTableRead, Compression: options.None})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}

// readInto reads a file into buf if it fits, and into a larger one otherwise.
func readInto(buf []byte, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return buf, err
	}
	if int64(cap(buf)) < st.Size() {
		buf = make([]byte, st.Size())
	}
	buf = buf[:st.Size()]
	_, err = io.ReadFull(f, buf)
	return buf, err
}
