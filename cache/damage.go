package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

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

// verifyTables reads every table of the index in dir. Badger itself ends the
// process on one of which the frame is damaged, and takes the keys of a damaged
// block for missing.
func verifyTables(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return err
	}
	var buf []byte
	for _, name := range names {
		if buf, err = readInto(buf, name); err != nil {
			return err
		}
		if err := verifyTable(buf); err != nil {
			return fmt.Errorf("table %s is damaged: %w", filepath.Base(name), err)
		}
	}
	return nil
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
