package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"oxbow/mirror/bundle"
)

// errTooSmall: a file does not fit into a volume.
var errTooSmall = errors.New("a volume is too small")

// contentsRoom is what a table of contents takes beside its lines of files: the lines of volumes, and the signature.
const contentsRoom = 64 << 10

// pack lays the files into volumes: each into the first in which it fits, the largest first.
func (e *exporting) pack() error {
	c := e.res.Contents
	for _, n := range c.Needs {
		delete(e.files, n.Digest) // another stream of the bundle would bring it
	}
	files := make([]bundle.Member, 0, len(e.files))
	for d, size := range e.files {
		files = append(files, bundle.Member{Path: bundle.FilePath(d), Digest: d, Size: size})
	}
	slices.SortFunc(files, func(a, b bundle.Member) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Path, b.Path)) })
	c.Volumes = 1
	if e.o.Split > 0 {
		if err := e.split(files); err != nil {
			return err
		}
	} else {
		for i := range files {
			files[i].Volume = 1
		}
	}
	for n := 1; n <= c.Volumes; n++ {
		c.Members = append(c.Members, bundle.VolumeMember(n))
		for _, f := range files {
			if f.Volume == n {
				c.Members = append(c.Members, f)
			}
		}
	}
	return nil
}

// split says in which volume each file is.
func (e *exporting) split(files []bundle.Member) error {
	c := e.res.Contents
	whole := *c
	whole.Members = slices.Concat(c.Members, files)
	fixed := contentsRoom + int64(len(whole.Encode()))
	for _, m := range c.Members {
		fixed += tarSize(m.Size)
	}
	var free []int64
	for i, f := range files {
		need := tarSize(f.Size)
		n := slices.IndexFunc(free, func(left int64) bool { return need <= left })
		if n < 0 {
			if need > e.o.Split-fixed {
				return fmt.Errorf("%w: --split is %d bytes, and has to be %d at least: metadata takes %d, and a file (%.12s) has %d", errTooSmall, e.o.Split, fixed+need, fixed, f.Digest, f.Size)
			}
			n, free = len(free), append(free, e.o.Split-fixed)
		}
		free[n] -= need
		files[i].Volume = n + 1
	}
	if e.o.Split < fixed {
		return fmt.Errorf("%w: --split is %d bytes, and metadata alone takes %d", errTooSmall, e.o.Split, fixed)
	}
	if c.Volumes = max(1, len(free)); c.Volumes > bundle.MaxVolumes {
		return fmt.Errorf("%w: it would take %d of them, more than %d", errTooSmall, c.Volumes, bundle.MaxVolumes)
	}
	return nil
}

// tarSize bounds what a file of n bytes takes in a volume.
func tarSize(n int64) int64 { return n + 2048 }
