package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"oxbow/streams"
	"oxbow/streams/streamstest"
)

var long = flag.Bool("long", false, "let tests of load run for a minute each")

// loadTime is how long a test of load runs.
func loadTime() time.Duration {
	if *long {
		return time.Minute
	}
	return 6 * time.Second
}

// While a server has 32 readers, new days are published through its socket and rolled
// back, the store is swept, and the configuration is read again: no request fails, every
// reader sees index and lists of one snapshot, downloads of superseded files are
// completed, and descriptors and goroutines are as few afterwards as before.
func TestServeUnderLoad(t *testing.T) {
	const readers = 32
	s := newSide(t)
	s.upstream(streamstest.Shape{Size: func(ftype, path string) int64 {
		if ftype == "squashfs" {
			return 2 << 20
		}
		return streamstest.SmallSize(ftype, path)
	}})
	s.must("mirror", "sync", "UPSTREAM", "--max", "2", "--keyring", "DIR/upstream.gpg")
	d := s.daemon(t)
	base := d.url + demoPath + "/"
	s.newDay()
	before, running := d.descriptors(t), d.goroutines(t) // with the connections to upstream that are kept for the next sync

	ctx, cancel := context.WithTimeout(t.Context(), loadTime()+patience)
	defer cancel()
	enough := time.Now().Add(loadTime())
	var reads, slow atomic.Int64
	var all sync.WaitGroup
	for n := range readers {
		r := &loadReader{client: &http.Client{Transport: &http.Transport{}}, base: base}
		all.Go(func() {
			defer r.client.CloseIdleConnections()
			for ctx.Err() == nil {
				err := r.read()
				if n%8 == 0 && err == nil {
					err = r.slowly(loadTime() / 3)
					slow.Add(1)
				}
				if err != nil {
					t.Errorf("reader %d: %v", n, err)
					return
				}
				reads.Add(1)
			}
		})
	}
	days := 0
	for ctx.Err() == nil {
		s.newDay()
		s.must("snapshot", "rollback", "stable")
		s.must("snapshot", "rollback", "stable", "--resume")
		s.must("store", "sweep")
		if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		days++
		if time.Now().After(enough) && days > 3 && slow.Load() > 0 { // a machine may be busy with other things
			cancel()
		}
		_ = pause(ctx, loadTime()/20)
	}
	all.Wait()
	t.Logf("%d reads, %d of them slow, over %d days", reads.Load(), slow.Load(), days)
	if days < 2 || slow.Load() == 0 || reads.Load() < readers {
		t.Errorf("%d reads, %d slow ones, over %d days: the test does not test what it says", reads.Load(), slow.Load(), days)
	}
	if err := until(func() bool { return d.descriptors(t) <= before }); err != nil {
		t.Errorf("%d descriptors are open, %d were before the load", d.descriptors(t), before)
	}
	if err := until(func() bool { return d.goroutines(t) <= running }); err != nil {
		t.Errorf("%d goroutines are running, %d were before the load", d.goroutines(t), running)
	}
	if n := strings.Count(d.stderr.String(), "the configuration is in force"); n < 2 {
		t.Errorf("the configuration was read again %d times", n)
	}
	d.end()
	s.must("store", "check", "--deep")
}

// newDay publishes a day upstream and, through whoever has the store, here.
func (s *side) newDay() {
	s.t.Helper()
	s.tree.AddDay()
	s.tree.Trim(2)
	s.up.Publish(s.tree)
	s.must("mirror", "sync")
}

// A loadReader reads as MAAS does: the index, its lists, and some files.
type loadReader struct {
	client *http.Client
	base   string
	items  []*streams.Item // of the last read
}

func (r *loadReader) read() error {
	doc, err := r.get("streams/v1/index.sjson")
	if err != nil {
		return err
	}
	text, err := streams.ClearText(doc)
	if err != nil {
		return err
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		return err
	}
	r.items = nil
	days := map[string]bool{}
	for _, e := range x.Entries {
		if err := r.list(e.Path, days); err != nil {
			return err
		}
	}
	if len(days) != 1 {
		return fmt.Errorf("lists of the snapshots of %d days", len(days))
	}
	for range 3 {
		it := r.items[rand.IntN(len(r.items))]
		data, err := r.get(it.Path)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); !bytes.Equal(sum[:], it.SHA256) {
			return fmt.Errorf("%s is not what the list says", it.Path)
		}
	}
	return nil
}

// list reads a list, and notes the newest day in it. Boot loaders have no days.
func (r *loadReader) list(p streams.Path, days map[string]bool) error {
	doc, err := r.get(p)
	if err != nil {
		return err
	}
	text, err := streams.ClearText(doc)
	if err != nil {
		return err
	}
	l, err := streams.ParseProducts(text)
	if err != nil {
		return err
	}
	newest := ""
	for at, it := range l.Items() {
		r.items = append(r.items, it)
		newest = max(newest, at.Version[:8])
	}
	if !strings.Contains(l.ContentID, "bootloader") {
		days[newest] = true
	}
	return nil
}

func (r *loadReader) get(p streams.Path) ([]byte, error) {
	resp, err := r.client.Get(r.base + p.Escaped())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", p, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// slowly downloads a large file of the last read over so long a time that it is
// superseded meanwhile.
func (r *loadReader) slowly(d time.Duration) error {
	large := r.items[0]
	for _, it := range r.items {
		if it.Size > large.Size {
			large = it
		}
	}
	resp, err := r.client.Get(r.base + large.Path.Escaped())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h := sha256.New()
	const steps = 16
	for range steps {
		if _, err := io.CopyN(h, resp.Body, large.Size/steps); err != nil {
			return fmt.Errorf("%s, slowly: %w", large.Path, err)
		}
		time.Sleep(d / steps)
	}
	if _, err := io.Copy(h, resp.Body); err != nil {
		return fmt.Errorf("%s, slowly: %w", large.Path, err)
	}
	if !bytes.Equal(h.Sum(nil), large.SHA256) {
		return fmt.Errorf("%s, slowly: not what the list says", large.Path)
	}
	return nil
}
