package cache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// maxSchedule bounds the schedule file in bytes: thousands of streams.
const maxSchedule = 4 << 20

// WriteSchedule replaces what reading commands and the next owner are told of scheduled syncs: whole or not at all, but without a
// sync. After a crash it may be the old one, none or garbage, which costs at most a sync that was not due.
func (s *Store) WriteSchedule(data []byte) error {
	if len(data) > maxSchedule {
		return fmt.Errorf("cannot write %s of store %s: it has %d bytes, more than %d", scheduleFile, s.dir, len(data), maxSchedule)
	}
	temp := path.Join(ingestDir, "write-"+rand.Text())
	err := s.root.WriteFile(temp, data, 0o644)
	if err == nil {
		err = s.root.Rename(temp, scheduleFile)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s of store %s: %w", scheduleFile, s.dir, errors.Join(s.full(err), ignoreMissing(s.root.Remove(temp))))
	}
	return nil
}

// ReadSchedule returns what [Store.WriteSchedule] wrote, or an [ErrMiss].
func (f *Files) ReadSchedule() ([]byte, error) {
	data, err := f.readFile(scheduleFile, maxSchedule)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrMiss
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s of store %s: %w", scheduleFile, f.dir, err)
	}
	return data, nil
}
