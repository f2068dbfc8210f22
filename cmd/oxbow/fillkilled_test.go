package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/streams/streamstest"
)

// A server that is killed in the middle of a fill leaves nothing wrong behind: a client
// has the right bytes, or sees that they are not all; the next server goes on with what
// has landed; and the store is whole.
func TestFillKilled(t *testing.T) {
	const size, kills = 24 << 20, 30
	rounds := 4
	if *long {
		rounds = kills
	}
	s := newSide(t)
	s.upstream(streamstest.Shape{Releases: []string{"noble"}, CentOS: []string{}, Kernels: []string{"ga"}, Versions: 2 + rounds, Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return size
		}
		return streamstest.SmallSize(ftype, path)
	}})
	s.up.SetFault(streamstest.At("squashfs", streamstest.Fault{BytesPerSecond: 1 << 20}))
	s.write("all.yaml", fmt.Appendf(nil, "store: {path: %[1]s/store}\nstreams: [{name: stable, upstream: %[2]s, keyring: %[1]s/upstream.gpg, path: %[3]s/}]\n", s.dir, s.url, demoPath))
	serve := func() *runningDaemon {
		return s.start(t, exec.Command("oxbow", "serve", "--listen", "127.0.0.1:0", "--log-format", "text", "--config", s.dir+"/all.yaml"))
	}
	var seed [32]byte
	copy(seed[:], fmt.Sprint(time.Now().UnixNano()))
	random := rand.New(rand.NewChaCha8(seed))
	t.Logf("seed %s", bytes.TrimRight(seed[:], "\x00"))

	var paths []string
	for path := range s.tree.Files() {
		if strings.HasSuffix(path, "/squashfs") {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	whole, asked := 0, map[string]int{}
	for cut := 0; cut < rounds; {
		path := paths[whole]
		asked[path]++
		d := serve()
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(1500*time.Millisecond))), d.kill)
		got, err := getAll(d.url + demoPath + "/" + path)
		if want := s.tree.Files()[path].Bytes(); !bytes.HasPrefix(want, got) || err == nil && len(got) != size {
			t.Fatalf("after %d kills: %d bytes and %v, not those of the file", cut, len(got), err)
		}
		if err == nil {
			whole++
		} else {
			cut++
		}
		if timer.Stop() {
			d.kill()
		}
	}
	d := serve()
	for _, path := range paths[:whole+1] {
		got, err := getAll(d.url + demoPath + "/" + path)
		if err != nil || !bytes.Equal(got, s.tree.Files()[path].Bytes()) {
			t.Errorf("%s, in the end: %d bytes, %v", path, len(got), err)
		}
		// What was in the air, or not recorded yet, when a server was killed comes again.
		const each = 4 << 20
		sent := s.up.Bytes(path)
		if sent < size || sent > size+int64(asked[path])*each {
			t.Errorf("%s: upstream sent %d bytes to %d servers, the file has %d", path, sent, asked[path]+1, size)
		}
		t.Logf("%s: upstream sent %.1f of %d MiB to %d servers", path, float64(sent)/(1<<20), size>>20, asked[path]+1)
	}
	d.end()
	t.Logf("%d kills in the middle of a fill; %d files were whole before the next one", rounds, whole)
	if out := s.oxbow("store", "check", "--deep"); out.Status != 0 || strings.Contains(out.Stdout, "fault:") {
		t.Errorf("check: status %d: %s%s", out.Status, out.Stdout, out.Stderr)
	}
}

// getAll returns the body as far as it came, and an error if that is not all of it.
func getAll(url string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", resp.Status)
	}
	return body, err
}
