package cache

import (
	"bytes"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oxbow/cache/internal/durable"
)

// A powerDisk watches the directory of a store while something is done to it, and knows at every durable step what a power loss
// would leave. It holds the file system to what POSIX and rename(2) promise, and to nothing more:
//
//   - the bytes of a file are there as of its last fsync, or the last syncfs; what was written since is there, or not, or noise;
//   - a change of a directory (a name made, replaced or removed) is there once that directory was synced, or the file system;
//   - what was not synced may be there or not, each change by itself, whatever their order. But a rename is one change.
//
// What was changed it learns from the tree itself, which it reads before each step: so what goes round package durable counts, too.
// The index is no part of the tree: it is there as of its last durable write, or lost, or as of an earlier write. What Badger's
// files look like in the middle of a write is left out, and so is the parent of the store's directory.
type powerDisk struct {
	t       testing.TB
	dir     string
	root    *powerNode
	nodes   map[uint64]*powerNode // by inode
	paths   map[string]*powerNode // what is there now
	pending []powerChange         // what no sync covers yet, in order
	index   []*indexCopy          // as of every durable write, the newest last; nil is none
	random  *rand.Rand

	without   func(durable.Op) bool // syncs that do not count, as if the code had left them out
	at        int                   // the number of the sync that interrupt takes the place of, from 1 on; 0 is none
	interrupt func() error

	every  bool // there are images of every step, not only of acknowledgements
	acked  int  // how many operations were acknowledged
	images []*powerImage
	seen   map[string]bool // the sums of images
}

// A powerNode is a file or a directory, whatever its names.
type powerNode struct {
	id     int
	perm   fs.FileMode
	handle *os.File // keeps the inode from being used again

	entries, syncedEntries map[string]*powerNode // of a directory; nil for a file
	data, syncedData       []byte                // of a file
	quiet                  time.Time             // a directory that has this time has not changed since it was read
}

// A powerChange is what one system call changed.
type powerChange []powerEdit

type powerEdit struct {
	dir      *powerNode
	name     string
	from, to *powerNode // nil: no such name
}

// watchPower takes for safe what is in dir, which need not be a store yet.
func watchPower(t testing.TB, dir string) *powerDisk {
	seed := rand.Uint64()
	t.Logf("power loss: seed %d", seed)
	p := &powerDisk{t: t, dir: dir, nodes: map[uint64]*powerNode{}, seen: map[string]bool{}, random: rand.New(rand.NewPCG(seed, 0))}
	p.closeAtEnd()
	p.scan()
	p.syncAll()
	p.index = []*indexCopy{p.copyIndex()}
	return p
}

func (p *powerDisk) closeAtEnd() {
	p.t.Cleanup(func() {
		for _, n := range p.nodes {
			if n.handle != nil {
				n.handle.Close()
			}
		}
	})
}

// attach watches an open store.
func (p *powerDisk) attach(s *Store) {
	s.disk.Trace = p.step
	s.index.trace = func(step string) error { return p.step(durable.Op{Kind: step, Name: indexDir}) }
}

// options are those of a store that is watched from its opening on.
func (p *powerDisk) options(t *testing.T) *Options {
	o := testOptions(t)
	o.trace = p.step
	return o
}

// closeStore ends the watch.
func closeStore(t *testing.T, s *Store) {
	t.Helper()
	s.disk.Trace, s.index.trace = nil, nil
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// step is told of each durable step before it is carried out.
func (p *powerDisk) step(op durable.Op) error {
	p.scan()
	if p.every {
		p.take(op.Kind + " " + op.Name)
	}
	isSync := op.Kind == "syncfs" || op.Kind == "fsync"
	if isSync {
		if p.at--; p.at == 0 {
			return p.interrupt()
		}
	}
	switch {
	case p.without != nil && p.without(op):
	case op.Kind == "syncfs":
		p.syncAll()
	case isSync:
		p.sync(op.Name)
	case op.Kind == "written" || op.Kind == "replaced":
		p.index = append(p.index, p.copyIndex())
	}
	return nil
}

// ack notes that an operation is acknowledged: no power loss may take away from now on what it did.
func (p *powerDisk) ack() {
	p.acked++
	p.scan()
	p.take("")
}

// moved is p for a copy of its directory: the process was killed, and the next one goes on there.
func (p *powerDisk) moved(dir string) *powerDisk {
	q := *p
	q.dir, q.nodes, q.at = dir, make(map[uint64]*powerNode), 0
	for name, n := range p.paths {
		q.nodes[q.stat(name).Ino] = n
		if n.handle != nil {
			n.handle.Close()
			q.open(n, name)
		}
	}
	q.closeAtEnd()
	return &q
}

// scan finds out what has changed.
func (p *powerDisk) scan() {
	p.paths = make(map[string]*powerNode)
	p.root = p.node(".")
	var edits []powerEdit
	p.walk(".", p.root, &edits)
	p.pending = append(p.pending, changesOf(edits)...)
}

// unwatched are the names in the directory of a store that belong to the index.
var unwatched = []string{indexDir, indexDir + newSuffix, indexDir + openingSuffix, indexDir + oldSuffix}

func (p *powerDisk) walk(name string, dir *powerNode, edits *[]powerEdit) {
	if len(dir.entries) == 0 && p.isQuiet(name, dir) {
		return
	}
	list, err := os.ReadDir(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	now := make(map[string]*powerNode)
	for _, e := range list {
		if name == "." && slices.Contains(unwatched, e.Name()) {
			continue
		}
		n := p.node(path.Join(name, e.Name()))
		now[e.Name()] = n
		if was := dir.entries[e.Name()]; was != n {
			*edits = append(*edits, powerEdit{dir, e.Name(), was, n})
		}
		if n.entries != nil {
			p.walk(path.Join(name, e.Name()), n, edits)
		} else {
			p.read(n)
		}
	}
	for name, was := range dir.entries {
		if now[name] == nil {
			*edits = append(*edits, powerEdit{dir, name, was, nil})
		}
	}
	dir.entries = now
}

// isQuiet says whether a directory is as it was when it was read last. Its time tells if that was long enough after it.
func (p *powerDisk) isQuiet(name string, dir *powerNode) bool {
	const clock = 100 * time.Millisecond // a change may leave a time that was, but for some milliseconds
	st := p.stat(name)
	changed := time.Unix(st.Mtim.Unix())
	if changed.Equal(dir.quiet) {
		return true
	}
	if time.Since(changed) > clock {
		dir.quiet = changed
	}
	return false
}

// node returns the file or directory that has this name now.
func (p *powerDisk) node(name string) *powerNode {
	st := p.stat(name)
	n := p.nodes[st.Ino]
	if n == nil {
		n = &powerNode{id: len(p.nodes)}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			n.entries, n.syncedEntries = map[string]*powerNode{}, map[string]*powerNode{}
		}
		if path.Dir(name) != blobsDir { // those stay
			p.open(n, name)
		}
		p.nodes[st.Ino] = n
	}
	n.perm = fs.FileMode(st.Mode & 0o777)
	p.paths[name] = n
	return n
}

func (p *powerDisk) stat(name string) (st unix.Stat_t) {
	if err := unix.Lstat(filepath.Join(p.dir, name), &st); err != nil {
		p.t.Fatal(err)
	}
	return st
}

func (p *powerDisk) open(n *powerNode, name string) {
	var err error
	if n.handle, err = os.Open(filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *powerDisk) read(n *powerNode) {
	st, err := n.handle.Stat()
	if err != nil {
		p.t.Fatal(err)
	}
	data := make([]byte, st.Size())
	if _, err := n.handle.ReadAt(data, 0); err != nil {
		p.t.Fatal(err)
	}
	if !bytes.Equal(data, n.data) {
		n.data = data
	}
}

// changesOf makes one change of the two edits that a rename is.
func changesOf(edits []powerEdit) (changes []powerChange) {
	left := make(map[*powerNode]powerEdit)
	for _, e := range edits {
		if e.to == nil {
			left[e.from] = e
		}
	}
	for _, e := range edits {
		if e.to == nil {
			continue
		}
		c := powerChange{e}
		if l, ok := left[e.to]; ok {
			delete(left, e.to)
			c = append(c, l)
		}
		changes = append(changes, c)
	}
	for _, e := range left {
		changes = append(changes, powerChange{e})
	}
	return changes
}

func (p *powerDisk) syncAll() {
	for _, n := range p.nodes {
		n.syncedEntries, n.syncedData = maps.Clone(n.entries), n.data
	}
	p.pending = nil
}

// sync makes durable what an fsync of the named file or directory does. A file is named by the last element of its path.
func (p *powerDisk) sync(name string) {
	if n := p.paths[name]; n != nil && n.entries != nil {
		p.syncDir(n)
		return
	}
	for file, n := range p.paths {
		if path.Base(file) == name && n.entries == nil {
			n.syncedData = n.data
			return
		}
	}
	p.t.Fatalf("%s is synced, and is not there", name)
}

func (p *powerDisk) syncDir(dir *powerNode) {
	covered := func(c powerChange) bool {
		return slices.ContainsFunc(c, func(e powerEdit) bool { return e.dir == dir })
	}
	var rest []powerChange
	for _, c := range p.pending {
		if !covered(c) {
			rest = append(rest, c)
			continue
		}
		for _, e := range c {
			e.apply(e.dir.syncedEntries)
			for i := range rest { // what was changed before under this name cannot come after it
				rest[i] = slices.DeleteFunc(rest[i], func(o powerEdit) bool { return o.dir == e.dir && o.name == e.name })
			}
		}
	}
	p.pending = slices.DeleteFunc(rest, func(c powerChange) bool { return len(c) == 0 })
}

func (e powerEdit) apply(entries map[string]*powerNode) {
	if e.to == nil {
		delete(entries, e.name)
	} else {
		entries[e.name] = e.to
	}
}
