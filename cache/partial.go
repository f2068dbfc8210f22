package cache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// A partial download is two files in ingest/: KEY.part has the bytes, KEY.have says which of them are there. KEY is the kind and
// the value of the sum that was wanted, as in "sha256-" and 64 digits. A file below smallSize has no KEY.have: it is whole, or worth nothing.
//
// KEY.have is text. Its first line is recordHeader and the wanted size (-1 where that is not known); each other line is the offset
// and the length of a run of bytes that were written before the line was. Lines that make no sense are passed over. Nothing in
// it is believed: the bytes are hashed again before they become a blob.
const (
	partSuffix   = ".part"
	recordSuffix = ".have"
	recordHeader = "oxbow ingest 1"
)

// smallSize is the size in bytes from which on a blob is made durable by itself, and its download recorded for resume. Below it
// one sync for many is what makes thousands of tiny files cheap.
const smallSize = 1 << 20

// recordEvery is how many bytes of one writer may be lost to a crash, at most twice: a run is recorded when it has grown this long.
const recordEvery = 512 << 10

// A Partial is a download that is not finished.
type Partial struct {
	Key      string    // kind and value of the wanted sum: "sha256-…"
	Have     int64     // bytes that are there, as far as is recorded
	Size     int64     // bytes wanted, or -1
	Modified time.Time // when the last bytes came
}

// Partials lists the downloads that are not finished, those under way among them, by key.
func (f *Files) Partials() ([]Partial, error) {
	entries, err := fs.ReadDir(f.root.FS(), ingestDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list partial downloads of store %s: %w", f.dir, err)
	}
	var out []Partial
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), partSuffix)
		if !ok || !regular(e) {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // finished meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list partial downloads of store %s: %w", f.dir, err)
		}
		p := Partial{Key: key, Have: st.Size(), Size: st.Size(), Modified: st.ModTime()}
		if r, err := f.root.Open(ingestDir + "/" + key + recordSuffix); err == nil {
			have, size, ok := readRecord(r)
			r.Close()
			if ok {
				p.Have, p.Size = have.clip(st.Size()).total(), size
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// readRecord reads a KEY.have: the extents, and the wanted size. It is not ok when it is no record at all.
func readRecord(r io.Reader) (have extents, size int64, ok bool) {
	lines := bufio.NewScanner(r)
	if !lines.Scan() {
		return nil, 0, false
	}
	if n, err := fmt.Sscanf(lines.Text(), recordHeader+" %d", &size); n != 1 || err != nil {
		return nil, 0, false
	}
	for lines.Scan() {
		var e Extent
		n, err := fmt.Sscanf(lines.Text(), "%d %d", &e.Off, &e.Len)
		if n == 2 && err == nil && e.Off >= 0 && e.Len > 0 && e.Len <= math.MaxInt64-e.Off {
			have = have.add(e)
		}
	}
	return have, size, true
}

// clearWaste removes from ingest/ what nobody can resume. Nobody else writes there: the lock is held.
func (s *Store) clearWaste() error {
	entries, err := fs.ReadDir(s.parts.FS(), ".")
	if err != nil {
		return err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	has := func(name string) bool { _, ok := slices.BinarySearch(names, name); return ok }
	for _, e := range entries {
		keep := false
		if key, ok := strings.CutSuffix(e.Name(), partSuffix); ok {
			st, err := e.Info()
			keep = err == nil && (has(key+recordSuffix) || st.Size() < smallSize)
		}
		if key, ok := strings.CutSuffix(e.Name(), recordSuffix); ok {
			keep = has(key + partSuffix)
		}
		if keep && regular(e) {
			continue
		}
		if err := s.parts.RemoveAll(e.Name()); err != nil {
			s.log.Warn("cannot remove waste", "store", s.dir, "file", ingestDir+"/"+e.Name(), "reason", err)
		}
	}
	return nil
}

// removePartial deletes a partial download, and reports whether it did: it leaves alone what is being fetched or waits for Flush.
func (s *Store) removePartial(key string) (bool, error) {
	if !s.claim(key, &Ingest{done: make(chan struct{})}) {
		return false, nil
	}
	defer s.unclaim(key)
	if s.waits(key) {
		return false, nil
	}
	if err := s.removeParts(key); err != nil {
		return false, fmt.Errorf("cannot remove partial download %s of store %s: %w", key, s.dir, err)
	}
	return true, nil
}

// removeParts deletes the files of a partial download: the bytes first, because a record without them is waste to anyone.
func (s *Store) removeParts(key string) error {
	return errors.Join(s.parts.RemoveAll(key+partSuffix), s.parts.RemoveAll(key+recordSuffix))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// openPart opens the files of the partial download, or makes them; in.have is then what they hold.
func (in *Ingest) openPart() error {
	if in.want.Size >= 0 && in.want.Size < smallSize {
		return in.openSmall()
	}
	return in.openLarge()
}

// openSmall makes a file that is read-only to everybody else from the start: so it needs no chmod later. One that is there
// already was committed and not flushed, or is waste: reading it tells.
func (in *Ingest) openSmall() (err error) {
	name := in.key + partSuffix
	in.f, err = in.s.parts.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if in.f, err = in.s.parts.Open(name); err != nil {
		return err
	}
	in.have = extents{}.add(Extent{0, in.want.Size})
	in.prefix.Store(in.want.Size)
	if in.hashTo(in.want.Size) == nil && in.sums.check(in.want) == nil && in.sizeIs(in.want.Size) {
		return nil
	}
	in.f.Close()
	in.forget()
	if err := in.s.removeParts(in.key); err != nil {
		return err
	}
	in.f, err = in.s.parts.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	return err
}

func (in *Ingest) sizeIs(size int64) bool {
	st, err := in.f.Stat()
	return err == nil && st.Size() == size
}

func (in *Ingest) openLarge() (err error) {
	if in.f, err = in.openOwn(partSuffix, os.O_RDWR|os.O_CREATE); err != nil {
		return err
	}
	in.record, err = in.openOwn(recordSuffix, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if err != nil {
		in.f.Close()
		return err
	}
	if err := in.resume(); err != nil {
		in.f.Close()
		in.record.Close()
		return err
	}
	return nil
}

// openOwn opens a file of the partial download. What is in its place and cannot be one, a small file with the same sum or none
// at all, it removes.
func (in *Ingest) openOwn(suffix string, flag int) (*os.File, error) {
	name := in.key + suffix
	f, err := in.s.parts.OpenFile(name, flag, 0o644)
	if err == nil {
		return f, nil
	}
	st, statErr := in.s.parts.Lstat(name)
	if statErr != nil || st.Mode().IsRegular() && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if err := in.s.parts.RemoveAll(name); err != nil {
		return nil, err
	}
	return in.s.parts.OpenFile(name, flag, 0o644)
}

// resume finds out which bytes are there already.
func (in *Ingest) resume() error {
	st, err := in.f.Stat()
	if err != nil {
		return err
	}
	have, _, ok := readRecord(in.record)
	if !ok {
		if err := in.f.Truncate(0); err != nil {
			return err
		}
		if err := in.record.Truncate(0); err != nil {
			return err
		}
		_, err := fmt.Fprintf(in.record, "%s %d\n", recordHeader, in.want.Size)
		return err
	}
	have = have.clip(min(st.Size(), in.want.bound()))
	if in.want.Size < 0 {
		have = have.clip(have.prefix())
	}
	in.have = have
	in.prefix.Store(have.prefix())
	_, err = in.record.WriteString("\n") // ends a line that a crash cut off
	return err
}
