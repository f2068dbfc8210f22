package cache

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A powerImage is what a power loss leaves.
type powerImage struct {
	next   string // the step that would have come next; "" after an acknowledgement
	what   string // what of the unsynced is there
	acked  int
	files  []powerFile // in an order in which they can be made
	index  *indexCopy  // nil: lost
	behind bool        // the index is lost, or older than it can be: who opens the store has to correct it
}

type powerFile struct {
	name string
	perm fs.FileMode
	dir  bool
	data []byte
}

func (i *powerImage) String() string {
	next := i.next
	if next == "" {
		next = "anything else"
	}
	return fmt.Sprintf("before %s, with %d acknowledged, %s", next, i.acked, i.what)
}

// A powerVariant says what of the unsynced is there.
type powerVariant struct {
	what   string
	change func(i int) bool // whether a pending change happened
	data   func(*powerNode) []byte
}

// variants returns what a power loss may make of this moment: thoroughly also the first changes one by one.
func (p *powerDisk) variants(thoroughly bool) []powerVariant {
	all, none := func(int) bool { return true }, func(int) bool { return false }
	vs := []powerVariant{
		{"all lost", none, syncedBytes},
		{"all done", all, writtenBytes},
		{"names without bytes", all, syncedBytes},
		{"names with noise", all, noise},
		{"some of it", func(int) bool { return p.random.IntN(2) == 0 }, func(n *powerNode) []byte {
			return []func(*powerNode) []byte{syncedBytes, writtenBytes, noise}[p.random.IntN(3)](n)
		}},
	}
	few := 4
	if p.without != nil {
		few = 8
	}
	if thoroughly {
		for n := range min(few, len(p.pending)) {
			vs = append(vs,
				powerVariant{fmt.Sprintf("change %d alone", n), func(i int) bool { return i == n }, syncedBytes},
				powerVariant{fmt.Sprintf("all but change %d", n), func(i int) bool { return i != n }, writtenBytes})
		}
	}
	return vs
}

// The bytes that a file may have after a power loss.
func syncedBytes(n *powerNode) []byte  { return n.syncedData }
func writtenBytes(n *powerNode) []byte { return n.data }

func noise(n *powerNode) []byte {
	if bytes.Equal(n.data, n.syncedData) {
		return n.data
	}
	return content(uint64(n.id), len(n.data))
}

// take makes images of this moment, but for those that there are already.
func (p *powerDisk) take(next string) {
	vs := p.variants(next == "" || p.without != nil)
	newest, older := p.index[len(p.index)-1], p.index[p.random.IntN(len(p.index))]
	lostWith, olderWith := p.random.IntN(len(vs)), p.random.IntN(len(vs))
	for i, v := range vs {
		image := powerImage{next: next, what: v.what, acked: p.acked, files: p.files(v), index: newest}
		p.add(image)
		image.behind = true
		if i == lostWith {
			image.what, image.index = v.what+", the index lost", nil
			p.add(image)
		}
		if i == olderWith && older != newest {
			image.what, image.index = v.what+", the index older", older
			p.add(image)
		}
	}
}

func (p *powerDisk) add(i powerImage) {
	h := sha256.New()
	fmt.Fprintf(h, "%d %p\n", i.acked, i.index)
	for _, f := range i.files {
		io.WriteString(h, f.name)
		if !f.dir {
			fmt.Fprintf(h, " %v %d\n", f.perm, len(f.data))
			h.Write(f.data)
		}
	}
	if sum := string(h.Sum(nil)); !p.seen[sum] {
		p.seen[sum] = true
		p.images = append(p.images, &i)
	}
}

// files returns the tree as a variant has it.
func (p *powerDisk) files(v powerVariant) []powerFile {
	changed := make(map[*powerNode]map[string]*powerNode)
	for i, c := range p.pending {
		if !v.change(i) {
			continue
		}
		for _, e := range c {
			if changed[e.dir] == nil {
				changed[e.dir] = maps.Clone(e.dir.syncedEntries)
			}
			e.apply(changed[e.dir])
		}
	}
	var files []powerFile
	var walk func(name string, dir *powerNode)
	walk = func(name string, dir *powerNode) {
		entries, ok := changed[dir]
		if !ok {
			entries = dir.syncedEntries
		}
		for _, base := range slices.Sorted(maps.Keys(entries)) {
			n := entries[base]
			f := powerFile{name: path.Join(name, base), perm: n.perm, dir: n.entries != nil}
			if !f.dir {
				f.data = v.data(n)
			}
			files = append(files, f)
			if f.dir {
				walk(f.name, n)
			}
		}
	}
	walk(".", p.root)
	return files
}

// A powerPlace is a directory for one image after another.
type powerPlace struct {
	dir  string
	last *powerImage
}

// put makes the place what a power loss left.
func (pl *powerPlace) put(i *powerImage) error {
	if err := pl.clear(i); err != nil {
		return err
	}
	pl.last = i
	for _, f := range i.files {
		name := filepath.Join(pl.dir, f.name)
		if !f.dir {
			if err := os.WriteFile(name, f.data, f.perm); err != nil {
				return err
			}
		} else if err := os.Mkdir(name, f.perm); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if i.index == nil {
		return nil
	}
	return i.index.write(filepath.Join(pl.dir, indexDir))
}

// clear leaves the directories that the next image has. Most of them are for blobs, and empty: no blob comes in here.
func (pl *powerPlace) clear(next *powerImage) error {
	stays, used := make(map[string]bool), make(map[string]bool)
	for _, f := range next.files {
		stays[f.name] = f.dir
	}
	if pl.last != nil {
		for _, f := range pl.last.files {
			used[path.Dir(f.name)] = true
		}
	}
	var clear func(name string) error
	clear = func(name string) error {
		if pl.last != nil && path.Dir(name) == blobsDir && !used[name] {
			return nil
		}
		list, err := os.ReadDir(filepath.Join(pl.dir, name))
		if err != nil {
			return err
		}
		for _, e := range list {
			if sub := path.Join(name, e.Name()); e.IsDir() && stays[sub] {
				err = clear(sub)
			} else {
				err = os.RemoveAll(filepath.Join(pl.dir, sub))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return clear(".")
}

// An indexCopy is the directory of an index at one moment. Its files are mostly holes.
type indexCopy struct{ files []indexFile }

type indexFile struct {
	name string
	size int64
	data map[int64][]byte // by offset
}

// copyIndex returns nil where there is none.
func (p *powerDisk) copyIndex() *indexCopy {
	dir := filepath.Join(p.dir, indexDir)
	list, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	c := new(indexCopy)
	for _, e := range list {
		f := indexFile{name: e.Name()}
		if err == nil {
			err = f.read(filepath.Join(dir, e.Name()))
		}
		c.files = append(c.files, f)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (f *indexFile) read(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	f.size, f.data = st.Size(), make(map[int64][]byte)
	for at := int64(0); at < f.size; {
		begin, err := file.Seek(at, unix.SEEK_DATA)
		if err != nil {
			return nil // ENXIO: the rest is a hole
		}
		if at, err = file.Seek(begin, unix.SEEK_HOLE); err != nil {
			return err
		}
		data := make([]byte, at-begin)
		if _, err := file.ReadAt(data, begin); err != nil {
			return err
		}
		f.data[begin] = data
	}
	return nil
}

func (c *indexCopy) write(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, f := range c.files {
		file, err := os.Create(filepath.Join(dir, f.name))
		if err != nil {
			return err
		}
		err = file.Truncate(f.size)
		for at, data := range f.data {
			if err == nil {
				_, err = file.WriteAt(data, at)
			}
		}
		file.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
