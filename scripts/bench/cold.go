package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A cold scenario serves one file of 400 MiB that is not mirrored to clients that all
// ask at once.
func cold(measure func(b *bench, ctx context.Context, t *tree, upstream string) error) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		t, err := makeTree(b, []int64{400 * mib})
		if err != nil {
			return err
		}
		defer t.remove()
		base, stop, err := nginx(ctx, b, t.dir, "")
		if err != nil {
			return err
		}
		defer stop()
		return measure(b, ctx, t, base)
	}
}

// coldBesideVarnish compares with what is usually put before a slow upstream.
func (b *bench) coldBesideVarnish(ctx context.Context, t *tree, base string) error {
	const readers = 16
	p, err := compare(b.runs,
		func() (usage, error) {
			return b.pulled(ctx, t, base, func(o *oxbowServer) (usage, error) { return clients(ctx, o.url(t), readers) })
		},
		func() (usage, error) {
			v, err := varnish(ctx, b, base)
			if err != nil {
				return usage{}, err
			}
			defer v.stop()
			return clients(ctx, "http://"+v.addr+"/"+t.paths[0], readers)
		})
	if err != nil {
		return err
	}
	p.print(fmt.Sprintf("one cold file of 400 MiB to %d clients", readers), "varnish", readers*t.bytes)
	return nil
}

// narrow compares with one curl that has a wire of 100 MiB/s for itself and keeps nothing.
func (b *bench) narrow(ctx context.Context, t *tree, base string) error {
	const readers = 4 // as many as this machine serves beside the wire
	wire, err := throttle(strings.TrimPrefix(base, "http://"), 100*mib)
	if err != nil {
		return err
	}
	defer wire.Close()
	narrow := "http://" + wire.Addr().String()
	p, err := compare(b.runs,
		func() (usage, error) {
			return b.pulled(ctx, t, narrow, func(o *oxbowServer) (usage, error) { return clients(ctx, o.url(t), readers) })
		},
		func() (usage, error) { return clients(ctx, narrow+"/"+t.paths[0], 1) })
	if err != nil {
		return err
	}
	p.print(fmt.Sprintf("one cold file of 400 MiB to %d clients over a wire of 105 MB/s", readers), "one curl", t.bytes)
	return nil
}

// crowd asks with 64 clients that prove what they get, and prints when the last of them
// had its first byte, beside one that asks upstream, and what upstream sent.
func (b *bench) crowd(ctx context.Context, t *tree, base string) error {
	const n = 64
	for range b.runs {
		direct := fetch(ctx, base+"/"+t.paths[0])
		if direct.err != nil {
			return direct.err
		}
		sent, err := t.sent()
		if err != nil {
			return err
		}
		used, err := b.pulled(ctx, t, base, func(o *oxbowServer) (usage, error) {
			start := time.Now()
			first, err := fetchAll(ctx, o.url(t), n, direct.sum)
			if err != nil {
				return usage{}, err
			}
			fmt.Printf("one cold file of 400 MiB to %d clients: last first byte after %d ms (upstream's own: %d ms); ",
				n, first.Milliseconds(), direct.first.Milliseconds())
			return usage{wall: time.Since(start)}, nil
		})
		if err != nil {
			return err
		}
		after, err := t.sent()
		if err != nil {
			return err
		}
		fmt.Printf("all hashes right after %.2f s; upstream sent %d bytes more than the file; oxbow peak RSS %d MiB\n",
			used.wall.Seconds(), after-sent-t.bytes, used.rss>>20)
	}
	return nil
}

// A fetched is what one client got.
type fetched struct {
	first time.Duration // until the first byte of the body
	sum   [sha256.Size]byte
	err   error
}

// fetchAll fetches a URL n times at once. It returns the slowest first byte.
func fetchAll(ctx context.Context, url string, n int, want [sha256.Size]byte) (time.Duration, error) {
	results := make(chan fetched, n)
	for range n {
		go func() { results <- fetch(ctx, url) }()
	}
	var last time.Duration
	var errs []error
	for range n {
		r := <-results
		if r.err == nil && r.sum != want {
			r.err = errors.New("wrong bytes")
		}
		errs = append(errs, r.err)
		last = max(last, r.first)
	}
	return last, errors.Join(errs...)
}

// fetch fetches a URL on a connection of its own.
func fetch(ctx context.Context, url string) (f fetched) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fetched{err: err}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fetched{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fetched{err: fmt.Errorf("%s: %s", url, resp.Status)}
	}
	h := sha256.New()
	var one [1]byte
	if _, f.err = io.ReadFull(resp.Body, one[:]); f.err != nil {
		return f
	}
	f.first = time.Since(start)
	h.Write(one[:])
	_, f.err = io.CopyBuffer(h, resp.Body, make([]byte, 256<<10))
	f.sum = [sha256.Size]byte(h.Sum(nil))
	return f
}

// An oxbowServer has fetched nothing yet but the metadata.
type oxbowServer struct {
	*process
	addr string
}

func (o *oxbowServer) url(t *tree) string { return "http://" + o.addr + "/bench/" + t.paths[0] }

// pulled does its work with a server that has an empty store, and adds the server's peak memory.
func (b *bench) pulled(ctx context.Context, t *tree, upstream string, work func(*oxbowServer) (usage, error)) (usage, error) {
	store, done, err := b.fresh(t)
	if err != nil {
		return usage{}, err
	}
	defer done()
	addr, err := freeAddress()
	if err != nil {
		return usage{}, err
	}
	config := filepath.Join(store, "oxbow.yaml")
	text := fmt.Sprintf("store: {path: %s/store}\nserve: {listen: %q}\nstreams:\n  - {name: bench, upstream: [%q], keyring: %s, path: /bench/, advertise: all}\n",
		store, addr, upstream, t.keyring)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return usage{}, err
	}
	p, err := start(b.oxbow, "serve", "--config", config, "--log-level", "error")
	if err != nil {
		return usage{}, err
	}
	defer p.stop()
	if err := answering(ctx, addr); err != nil {
		return usage{}, err
	}
	if f := fetch(ctx, "http://"+addr+"/bench/streams/v1/index.sjson"); f.err != nil {
		return usage{}, f.err
	}
	u, err := work(&oxbowServer{p, addr})
	if err != nil {
		return usage{}, err
	}
	u.rss, err = p.peak()
	return u, err
}

// sent returns how many bytes of the tree's files upstream has sent so far.
func (t *tree) sent() (sum int64, err error) {
	text, err := os.ReadFile(t.log())
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var n int64
		var path string
		if _, err := fmt.Sscan(line, &n, &path); err != nil {
			return 0, fmt.Errorf("%s: %q: %w", t.log(), line, err)
		}
		if slices.Contains(t.paths, strings.TrimPrefix(path, "/")) {
			sum += n
		}
	}
	return sum, nil
}
