package main

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/streams/streamstest"
)

// A wild upstream changes day by day, and goes wrong in every way. It has what its metadata named in the last days, as upstreams
// do, so that all that a snapshot knows can be had for a while.
type wild struct {
	tree *streamstest.Tree
	up   *streamstest.Upstream
	url  string

	away *streamstest.Product // wildProduct while upstream does not have it; nil: it has

	gone   [][]string // paths that the metadata names no longer, by day, the oldest first
	broken string     // path of the file that is; "": none

	mu     sync.Mutex // guards the rest
	files  map[string]*streamstest.File
	faults map[string]int // that came to pass, by kind
	left   int            // how many more may
	moves  bool           // the tree is to be published in the midst of what comes
}

// wildProduct comes and goes.
const wildProduct = "com.ubuntu.maas.stable:v3:boot:24.04:amd64:hwe-24.04"

const (
	goneDays  = 30      // for so long upstream has what it names no longer
	wildRate  = 4 << 20 // bytes a second of a large file
	wildStall = 200 * time.Millisecond
)

func newWild(t *testing.T) *wild {
	w := &wild{files: map[string]*streamstest.File{}, faults: map[string]int{}}
	w.tree = streamstest.MAAS(streamstest.Shape{Releases: []string{"noble", "jammy"}, Kernels: []string{"ga", "hwe"}, CentOS: []string{}, Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return 1<<20 + 100_000 + streamstest.SmallSize(ftype, path)
		}
		return streamstest.SmallSize(ftype, path)
	}})
	w.tree.Extra = map[string]*streamstest.File{}
	w.up = streamstest.NewUpstream(w.tree)
	w.note()
	server := httptest.NewServer(http.StripPrefix(demoPath, w.up))
	t.Cleanup(func() {
		w.up.Release()
		server.Close()
	})
	w.url = server.URL + demoPath
	return w
}

// note keeps the files of the tree for those who know paths. A snapshot may be gone back to after many days.
func (w *wild) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for path, f := range w.tree.Files() {
		w.files[path] = f
	}
}

// file returns what is published under a path, or was.
func (w *wild) file(path string) *streamstest.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.files[path]
}

// change changes the tree, which is not published yet. What it names no longer can be had for a while.
func (w *wild) change(how func()) {
	w.mu.Lock()
	w.moves = false // from here on no request looks at the tree
	w.mu.Unlock()
	w.mend()
	before := w.tree.Files()
	how()
	now := w.tree.Files()
	var gone []string
	for path, f := range before {
		if now[path] == nil {
			w.tree.Extra[path] = f
			gone = append(gone, path)
		}
	}
	if w.gone = append(w.gone, gone); len(w.gone) > goneDays {
		for _, path := range w.gone[0] {
			delete(w.tree.Extra, path)
		}
		w.gone = w.gone[1:]
	}
	w.note()
}

// day makes the next day. If it is a bad one, a file that the mirror wants is broken.
func (w *wild) day(bad bool, random *rand.Rand) {
	var added []string
	w.change(func() {
		added = w.tree.AddDay()
		w.tree.Trim(2)
	})
	if !bad {
		return
	}
	for _, path := range added {
		if strings.HasPrefix(path, "noble/") && (w.broken == "" || random.IntN(3) == 0) {
			w.broken = path
		}
	}
	w.tree.Break(w.broken, []streamstest.Breakage{streamstest.Absent, streamstest.Flipped, streamstest.Short}[random.IntN(3)])
	w.count("broken file")
}

// turn has wildProduct go, or come again.
func (w *wild) turn() {
	w.change(func() {
		for _, l := range w.tree.Lists {
			i := slices.IndexFunc(l.Products, func(p *streamstest.Product) bool { return p.Name == wildProduct })
			switch {
			case i >= 0:
				w.away = l.Products[i]
				w.tree.Drop(wildProduct)
				return
			case w.away != nil && strings.Contains(l.ContentID, "v3:download"):
				l.Products = append(l.Products, w.away)
				w.away = nil
				return
			}
		}
	})
}

// mend makes the broken file whole.
func (w *wild) mend() {
	if w.broken != "" {
		w.tree.Break(w.broken, streamstest.Whole)
		w.broken = ""
	}
}

// publish publishes the tree as it is.
func (w *wild) publish() { w.up.Publish(w.tree) }

func (w *wild) count(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[kind]++
}

// behave ends the faults: everything is whole, and published.
func (w *wild) behave() {
	w.up.SetFault(nil)
	w.up.Release()
	w.mend()
	w.publish()
	w.up.Reset()
}

// misbehave has some of the requests from now on go wrong: up to so many, and others for what only fills ask for. If moves is
// set, one of them may find the tree published that was not before.
func (w *wild) misbehave(random *rand.Rand, most int, moves bool) {
	w.mu.Lock()
	w.left, w.moves = most, moves
	w.mu.Unlock()
	w.up.SetFault(func(r *http.Request) streamstest.Fault { return w.fault(random, r) })
}

// fault decides how a request goes wrong, if it does.
func (w *wild) fault(random *rand.Rand, r *http.Request) (f streamstest.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/")
	file := w.files[path]
	within := int64(400) // what every body has
	if file != nil && file.Length() >= 1<<20 {
		f.BytesPerSecond = wildRate
		if r.Header.Get("Range") == "" {
			within = file.Length()
		}
	}
	kinds := []string{"error 500", "cut", "wrong byte", "stall", "no answer"}
	switch {
	case strings.HasPrefix(path, "jammy/") && random.IntN(3) == 0: // only fills ask for it, and go on
		kinds = append(kinds, "wrong byte", "wrong byte")
	case w.left > 0 && random.IntN(8) == 0: // few, since a sync waits after each
		w.left--
		if w.moves && file != nil {
			kinds = []string{"moved on"}
		}
	default:
		return f
	}
	kind := kinds[random.IntN(len(kinds))]
	w.faults[kind]++
	at := 1 + random.Int64N(within)
	switch kind {
	case "error 500":
		f.Status = http.StatusInternalServerError
	case "cut":
		f.CutAfter = at
	case "wrong byte":
		f.FlipAt = at
	case "stall":
		f.HangAfter = at
		time.AfterFunc(wildStall, w.up.Release)
	case "no answer":
		f.Drop = true
	case "moved on":
		w.moves = false
		w.up.Publish(w.tree)
		f.Status = http.StatusNotFound
	}
	return f
}
