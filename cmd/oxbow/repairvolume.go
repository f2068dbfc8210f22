package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// volume looks for what is wanted in a file that may be a volume of a bundle. Whoever signed that, each content is proven by its
// digest; of a damaged volume, what is whole counts.
func (s *search) volume(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return s.passOver(err)
	}
	defer f.Close()
	r, err := bundle.NewReader(f, bundle.AnySite, time.Time{}) // a key that has expired since is as good
	if errors.Is(err, bundle.ErrNotBundle) {
		return nil
	}
	if err != nil {
		return s.passOver(fmt.Errorf("%s: %w", name, err))
	}
	for len(s.wanted) > 0 {
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		m, data, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return s.passOver(fmt.Errorf("the rest of %s: %w", name, err))
		}
		is := m.Content()
		if size, wanted := s.wanted[is]; !wanted || m.Kind() != bundle.KindDocument && (m.Kind() != bundle.KindFile || size != m.Size) {
			r.Skip()
			continue
		}
		from, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return s.passOver(err)
		}
		var file *os.File
		if m.Kind() == bundle.KindDocument {
			file, err = decompressed(m, data)
		} else {
			file, err = s.proven(name, from, data)
		}
		if err == nil {
			err = s.add(found{content{is, s.wanted[is]}, name, file})
		} else {
			err = s.passOver(fmt.Errorf("%s: %w", name, err))
		}
		if err != nil {
			return err
		}
		r.Skip()
	}
	return nil
}

// proven opens a volume at one of its files, once that is proven.
func (s *search) proven(name string, from int64, data io.Reader) (*os.File, error) {
	if _, err := io.Copy(io.Discard, &interrupted{s.ctx, data}); err != nil {
		return nil, err
	}
	file, err := os.Open(name) // the offset is its own, also where the owner of the store reads
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(from, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// decompressed returns a file with the document that a member is. It has no name, and is gone when it is closed.
func decompressed(m bundle.Member, data io.Reader) (*os.File, error) {
	text, err := bundle.Decompress(m, data, streams.MaxDocument)
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp("", "oxbow-")
	if err != nil {
		return nil, err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, os.Remove(file.Name())); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
