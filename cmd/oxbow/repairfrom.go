package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

// A content is what a blob should be.
type content struct {
	Digest cache.Digest
	Size   int64
}

// repairFrom repairs, and takes what is left from the files below dir. It is this process that looks there: the owner of the store
// may have no right to, or see another /media.
func repairFrom(c *cli.Context, w *checkWork, dir string) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("cannot repair from a directory: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("cannot repair from %s: it is not a directory", dir)
	}
	inJSON := w.JSON
	w.JSON, w.Quiet = true, true
	var v checkView
	err := performFor(c, w, cache.Open, &v)
	if v.Repair == nil {
		return err // said already
	}
	if err := v.takeFrom(c, dir); err != nil {
		return err
	}
	if inJSON {
		err = printJSON(c.App.Writer, &v)
	} else {
		v.showFound(c.App.Writer)
		for _, m := range v.Repair.Mended {
			printLine(c.App.Writer, "repaired: %v", m)
		}
		err = v.showEnd(c.App.Writer)
	}
	if err != nil {
		return err
	}
	return v.verdict()
}

// performFor has a work done that prints JSON, and reads that.
func performFor(c *cli.Context, w work, open opening, v any) error {
	var printed bytes.Buffer
	err := performOn(c, w, open, &printed)
	return readPrinted(printed.Bytes(), v, err)
}

// readPrinted reads the JSON that a work printed, if it came to that; err is how it ended.
func readPrinted(printed []byte, v any, err error) error {
	if len(printed) == 0 {
		return err
	}
	if failed := json.Unmarshal(printed, v); failed != nil {
		return fmt.Errorf("the owner of the store says something else than it should: %w", failed)
	}
	return err
}

// takeFrom hands over what is found of the blobs that are left, as files and within volumes of bundles. Links to files are followed,
// and dir may be a link itself; links to directories below it are not, since they may lead around.
func (v *checkView) takeFrom(c *cli.Context, dir string) error {
	s := &search{ctx: c.Context, stderr: c.App.ErrWriter, wanted: map[cache.Digest]int64{}, sizes: map[int64]bool{},
		take: func(batch []found) error { return v.take(c, batch) }}
	for _, l := range v.Repair.Left {
		s.wanted[l.Digest], s.sizes[l.Size] = l.Size, true
	}
	below := dir + string(filepath.Separator) // what a link leads to, not the link
	err := filepath.WalkDir(below, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return s.passOver(err)
		}
		if len(s.wanted) == 0 {
			return filepath.SkipAll
		}
		if e.IsDir() {
			return nil
		}
		return s.file(name)
	})
	if flushed := s.flush(); err == nil {
		err = flushed
	}
	return err
}

// A search is one for contents that are wanted.
type search struct {
	ctx    context.Context // of the command
	stderr io.Writer
	wanted map[cache.Digest]int64 // sizes of what was not found yet
	sizes  map[int64]bool         // of all that was wanted
	batch  []found
	take   func([]found) error // hands a batch over
}

// passOver tells of what cannot be read.
func (s *search) passOver(err error) error {
	printLine(s.stderr, "oxbow: passed over: %v", err)
	return nil
}

// file looks at a file.
func (s *search) file(name string) error {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if strings.HasSuffix(name, volumeSuffix) {
		if err := s.volume(name); err != nil {
			return err
		}
	}
	if !s.sizes[info.Size()] {
		return nil
	}
	f, err := openContent(s.ctx, name)
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if err != nil {
		return s.passOver(err)
	}
	if size, wanted := s.wanted[f.Digest]; !wanted || size != f.Size {
		return f.file.Close()
	}
	return s.add(f)
}

// add adds a content that is wanted to the batch.
func (s *search) add(f found) error {
	delete(s.wanted, f.Digest)
	if s.batch = append(s.batch, f); len(s.batch) < filesAtOnce {
		return nil
	}
	return s.flush()
}

// flush hands over the batch.
func (s *search) flush() error {
	err := s.take(s.batch)
	for _, f := range s.batch {
		f.file.Close()
	}
	s.batch = nil
	return err
}

// A found is a file of a content that is wanted.
type found struct {
	content
	name string
	file *os.File // at its beginning, with others behind it in a volume
}

// openContent opens a file and tells its content.
func openContent(ctx context.Context, name string) (found, error) {
	file, err := os.Open(name)
	if err != nil {
		return found{}, err
	}
	is, err := contentOf(ctx, file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return found{}, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return found{is, name, file}, nil
}

// contentOf reads a file to its end.
func contentOf(ctx context.Context, file *os.File) (content, error) {
	h := sha256.New()
	n, err := io.Copy(h, &interrupted{ctx, file})
	if err != nil {
		return content{}, err
	}
	return content{cache.Digest(h.Sum(nil)), n}, nil
}

// An interrupted reader ends with its context.
type interrupted struct {
	ctx context.Context
	r   io.Reader
}

func (r *interrupted) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// take hands files to the owner of the store, and moves what it took from what is left to what is mended.
func (v *checkView) take(c *cli.Context, batch []found) error {
	if len(batch) == 0 {
		return nil
	}
	w := &checkWork{Left: v.left()}
	names := map[string]string{}
	for _, f := range batch {
		w.Take, w.files = append(w.Take, f.content), append(w.files, f.file)
		names[f.Digest.String()] = f.name
	}
	var results []takenView
	if err := performFor(c, w, cache.Open, &results); len(results) == 0 {
		return err
	}
	for _, r := range results {
		v.Repair.settle(r, names[r.Digest])
	}
	return nil
}

// settle notes what became of a file that was handed over.
func (v *repairView) settle(r takenView, name string) {
	var left []mirror.Left
	for _, l := range v.Left {
		switch {
		case l.Digest.String() != r.Digest:
			left = append(left, l)
		case r.Error != "":
			l.Reason += fmt.Sprintf("; and %s could not be taken in: %s", name, r.Error)
			left = append(left, l)
		default:
			v.Mended = append(v.Mended, mirror.Mended{Digest: l.Digest, Size: l.Size, Stream: l.Hurts[0].Stream, Path: l.Hurts[0].Path, How: "taken from " + name})
		}
	}
	v.Left = present(left)
}

// A takenView is what became of a file that was handed over.
type takenView struct {
	Digest string `json:"digest"`
	Error  string `json:"error,omitempty"`
}

// take takes in the files that came with the work. What they are is proven here.
func (w *checkWork) take(ctx context.Context, o *owner, out *screen) error {
	results := make([]takenView, len(w.Take))
	left := w.Left
	for i, want := range w.Take {
		results[i].Digest = want.Digest.String()
		_, err := o.store.Take(ctx, cache.Want{SHA256: want.Digest, Size: want.Size}, io.LimitReader(w.files[i], want.Size))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, cache.ErrExists) {
			results[i].Error = err.Error()
			continue
		}
		left--
	}
	if err := o.store.Flush(ctx); err != nil {
		return err
	}
	o.foundFaults(left)
	return printJSON(out.stdout, results)
}
