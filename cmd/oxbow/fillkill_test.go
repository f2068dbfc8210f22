package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/streams/streamstest"
)

const (
	killedSize = 24 << 20

	// lostToKill is what a kill may cost upstream: what each of 8 connections has brought
	// and not recorded, and what was on its way.
	lostToKill = 8 * (512 + 256) << 10
)

// A server that is killed while it pulls a file through, again and again, sends no wrong
// bytes: who was reading has the beginning of what was asked for. The next run goes on
// where that one was, and in the end every file is whole and the store as well.
func TestFillKilled(t *testing.T) {
	kills, versions := 6, 3
	if *long {
		kills, versions = 30, 6
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newSide(t)
	s.upstream(streamstest.Shape{Releases: []string{"noble", "jammy"}, Versions: versions, Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return killedSize
		}
		return streamstest.SmallSize(ftype, path)
	}})
	s.pullThrough()
	s.up.SetFault(streamstest.At("/squashfs", streamstest.Fault{BytesPerSecond: 8 << 20}))
	killed, most := 0, int64(0)
	for path, file := range s.tree.Files() {
		if !strings.HasSuffix(path, "/squashfs") || killed == kills {
			continue
		}
		r := &killedReader{path: path, content: file.Bytes()}
		before := killed
		for !r.whole && r.err == nil {
			d := s.start(t, exec.Command("oxbow", s.pulling()...))
			brings := s.up.Bytes(path) + 1 + random.Int64N(killedSize/2)
			done := r.read(d.url, random)
			for killed < kills && s.up.Bytes(path) < brings && !done() {
				time.Sleep(time.Millisecond)
			}
			if killed < kills && !done() {
				killed++
				d.kill()
			}
			r.all.Wait()
			d.kill()
		}
		if r.err != nil {
			t.Fatal(r.err)
		}
		twice := s.up.Bytes(path) - killedSize
		most = max(most, twice/int64(max(killed-before, 1)))
		if limit := int64(killed-before) * lostToKill; twice > limit {
			t.Errorf("%s: upstream sent %d bytes twice over %d kills, want at most %d", path, twice, killed-before, limit)
		}
	}
	t.Logf("%d kills; upstream sent up to %d bytes twice for each", killed, most)
	if killed < kills {
		t.Errorf("killed %d times, want %d", killed, kills)
	}
	s.must("store", "check", "--deep")
}

// pullThrough has the side's store know all of upstream's, and fetch nothing yet.
func (s *side) pullThrough() {
	s.write("pull.yaml", fmt.Appendf(nil, "streams: [{name: stable, upstream: %q, keyring: upstream.gpg, path: %s/}]\n", s.url, demoPath))
	s.must("mirror", "sync", "--config", "DIR/pull.yaml")
}

// pulling returns the arguments of a server that pulls through.
func (s *side) pulling() []string {
	return s.line("serve", "--listen", "127.0.0.1:0", "--log-format", "text", "--config", "DIR/pull.yaml")[1:]
}

// A killedReader reads a file, whole and in part, from a server that may be killed.
type killedReader struct {
	path    string
	content []byte

	all   sync.WaitGroup
	mu    sync.Mutex // guards the rest
	whole bool       // all of the file came
	err   error
}

// read begins to read, and returns what tells whether the file has come.
func (r *killedReader) read(base string, random *rand.Rand) (ended func() bool) {
	size := len(r.content)
	from := random.IntN(size)
	to := from + 1 + random.IntN(size-from)
	r.all.Go(func() { r.get(base, "", 0, size) })
	r.all.Go(func() { r.get(base, fmt.Sprintf("bytes=%d-%d", from, to-1), from, to) })
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.whole || r.err != nil
	}
}

// get reads content[from:to]. What comes has to be that, or its beginning where it is cut.
func (r *killedReader) get(base, ranges string, from, to int) {
	req, err := http.NewRequest(http.MethodGet, base+demoPath+"/"+r.path, nil)
	if err != nil {
		panic(err)
	}
	status := http.StatusOK
	if ranges != "" {
		req.Header.Set("Range", ranges)
		status = http.StatusPartialContent
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		return // killed before the first byte
	}
	defer resp.Body.Close()
	body, cut := io.ReadAll(resp.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch want := r.content[from:to]; {
	case resp.StatusCode != status:
		r.err = fmt.Errorf("%s %s: %s", r.path, ranges, resp.Status)
	case !bytes.HasPrefix(want, body):
		r.err = fmt.Errorf("%s %s: wrong among %d bytes (%v)", r.path, ranges, len(body), cut)
	case cut == nil && len(body) < len(want):
		r.err = fmt.Errorf("%s %s: complete after %d bytes of %d", r.path, ranges, len(body), len(want))
	case cut == nil && ranges == "":
		r.whole = true
	}
}
