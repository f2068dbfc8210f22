package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

// An exportWork writes a volume of a bundle. What it brings is said by ids, so that every process plans the same.
type exportWork struct {
	Snapshots map[string]cache.Digest // by stream
	Since     map[string]cache.Digest
	Have      []byte
	Split     int64
	MadeBy    string

	Bundle cache.Digest // that is meant
	Volume int
	From   int // the first member to be written

	handed // the volume, at the place where it goes on
}

func (w *exportWork) wants() int { return 1 }

// resolve finds the snapshots that are meant: those that are named, or the current one of each stream.
func (w *exportWork) resolve(files *cache.Files, args []string, since string) error {
	w.Snapshots, w.Since = map[string]cache.Digest{}, map[string]cache.Digest{}
	if len(args) == 0 {
		names, err := files.Streams()
		if err != nil {
			return err
		}
		for _, name := range names {
			if s, err := files.Current(name); err == nil {
				w.Snapshots[name] = s.ID
			} else if !errors.Is(err, cache.ErrNoSnapshot) {
				return err
			}
		}
		if len(w.Snapshots) == 0 {
			return &hinted{errors.New("nothing is published that a bundle could bring"), "`oxbow mirror sync URL` publishes a stream"}
		}
	}
	for _, arg := range args {
		s, err := findSnapshot(files, arg)
		if err != nil {
			return err
		}
		if _, twice := w.Snapshots[s.Stream]; twice {
			return fmt.Errorf("stream %s is there twice: a bundle brings one snapshot of each", s.Stream)
		}
		w.Snapshots[s.Stream] = s.ID
	}
	if since == "" {
		return nil
	}
	s, err := findSnapshot(files, since)
	if err != nil {
		return err
	}
	if _, meant := w.Snapshots[s.Stream]; !meant {
		return fmt.Errorf("--since is a snapshot of stream %s, of which the bundle brings none", s.Stream)
	}
	w.Since[s.Stream] = s.ID
	return nil
}

// planOn plans the bundle.
func (w *exportWork) planOn(ctx context.Context, files *cache.Files) (*mirror.Export, error) {
	o := mirror.ExportOptions{Since: w.Since, Split: w.Split, MadeBy: w.MadeBy}
	for stream, id := range w.Snapshots {
		man, err := files.Manifest(stream, id)
		if err != nil {
			return nil, err
		}
		o.Snapshots = append(o.Snapshots, cache.Snapshot{ID: id, Stream: stream, Created: man.Created})
	}
	if w.Have != nil {
		var err error
		if o.Have, err = mirror.ReadHave(w.Have); err != nil {
			return nil, err
		}
	}
	return mirror.PlanExport(ctx, files, o)
}

// write writes the volumes that are not there as a whole. All files are opened first: root may become another user to have the
// store read, who has no right to the medium.
func (w *exportWork) write(c *cli.Context, e *mirror.Export, v *exportView, out string) error {
	names, err := volumeNames(e, out)
	if err != nil {
		return err
	}
	if len(names) > filesAtOnce {
		return fmt.Errorf("%d volumes are more than %d: give a larger --split", len(names), filesAtOnce)
	}
	var volumes []*begunVolume
	defer func() {
		for _, b := range volumes {
			b.end()
		}
	}()
	need := int64(0)
	for i, name := range names {
		b, err := beginVolume(name, e.Volume(i+1), e.Contents.ID())
		if err != nil {
			return err
		}
		volumes = append(volumes, b)
		v.Volumes[i].File = name
		need += b.lacks(v.Volumes[i].Bytes)
	}
	if out != "-" {
		if err := roomFor(filepath.Dir(names[0]), need); err != nil {
			return err
		}
	}
	for i, b := range volumes {
		if b.from < 0 {
			printLine(c.App.ErrWriter, "oxbow: volume %d of %d is there: %s", i+1, len(names), names[i])
			continue
		}
		one := *w
		one.Bundle, one.Volume, one.From, one.files = e.Contents.ID(), i+1, b.from, []*os.File{b.file}
		if err := perform(c, &one, cache.Open); err != nil {
			return err
		}
		if out != "-" {
			printLine(c.App.ErrWriter, "oxbow: volume %d of %d, %s: %s", i+1, len(names), iec(v.Volumes[i].Bytes), names[i])
		}
	}
	return nil
}

func (w *exportWork) do(ctx context.Context, o *owner, _ *screen) error {
	lease := o.store.Lease()
	defer lease.Release()
	e, err := w.planOn(ctx, o.store.Files())
	if err != nil {
		return err
	}
	if e.Contents.ID() != w.Bundle {
		return errors.New("what the bundle brings has changed meanwhile, or the program: run the same command again")
	}
	for _, d := range e.Digests() {
		lease.Add(d)
	}
	file := w.files[0]
	if err := e.Write(ctx, file, w.Volume, w.From); err != nil {
		err = fmt.Errorf("cannot write volume %d: %w", w.Volume, err)
		if errors.Is(err, syscall.ENOSPC) {
			return &hinted{err, "make room there: the same command goes on from where it is"}
		}
		return err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("cannot make volume %d durable: %w", w.Volume, err)
	}
	return nil
}
