package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// formatVersion is the version of the layout that this code reads and writes.
const formatVersion = 1

const (
	formatPrefix = "oxbow store "

	// restoreFormat is what to do about a store whose FORMAT is lost.
	restoreFormat = "if it is a store, put back the one line `oxbow store 1`"
)

// A FormatError says that a store has a layout that this code does not know, or that the file is lost which tells.
type FormatError struct {
	Dir       string
	Found     string // what FORMAT says; "" where it is empty or lost
	Lost      bool   // there is no FORMAT, but there are blobs
	Supported int    // the newest version that this code knows
}

func (e *FormatError) Error() string {
	if e.Lost {
		return fmt.Sprintf("%s has blobs, but its file FORMAT is gone; %s", e.Dir, restoreFormat)
	}
	if !strings.HasPrefix(e.Found, formatPrefix) {
		return fmt.Sprintf("%s has %q in its file FORMAT, which no oxbow wrote: this is no store, or FORMAT is damaged; %s", e.Dir, e.Found, restoreFormat)
	}
	return fmt.Sprintf("store %s has format %q, but this oxbow knows formats up to %d: use the oxbow that wrote it, or a newer one",
		e.Dir, e.Found, e.Supported)
}

func (f *Files) hasBlobs() bool {
	st, err := f.root.Stat(blobsDir)
	return err == nil && st.IsDir()
}

// checkFormat says whether the directory holds a store that this code can read.
func (f *Files) checkFormat() error {
	data, err := f.root.ReadFile(formatFile)
	if errors.Is(err, fs.ErrNotExist) && f.hasBlobs() {
		return &FormatError{Dir: f.dir, Lost: true, Supported: formatVersion}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot open store %s: %w: it has no file FORMAT; name another directory with --store, or create a store in an empty one",
			f.dir, ErrNoStore)
	}
	if err != nil {
		return fmt.Errorf("cannot open store %s: %w", f.dir, err)
	}
	found := strings.TrimSpace(string(data))
	version, ok := strings.CutPrefix(found, formatPrefix)
	if n, err := strconv.Atoi(version); !ok || err != nil || n < 1 || n > formatVersion {
		return &FormatError{Dir: f.dir, Found: found, Supported: formatVersion}
	}
	return nil
}
