package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const mib = 1 << 20

// A mirroring is a scenario: oxbow syncs a tree of files with these sizes,
// beside curls that write the same files to the same disk and check nothing.
type mirroring struct {
	title string
	sizes []int64
	rate  string // what upstream grants to a connection, as in "20m"; "" for all it can
	rival string // what prints call the peer
	peer  func(b *bench, ctx context.Context, t *tree, base string) (usage, error)
}

func (m mirroring) run(ctx context.Context, b *bench) error {
	t, err := makeTree(b, m.sizes)
	if err != nil {
		return err
	}
	defer t.remove()
	base, stop, err := nginx(ctx, b, t.dir, m.rate)
	if err != nil {
		return err
	}
	defer stop()
	p, err := compare(b.runs,
		func() (usage, error) { return b.sync(ctx, t, base) },
		func() (usage, error) { return m.peer(b, ctx, t, base) })
	if err != nil {
		return err
	}
	p.print(m.title, m.rival, t.bytes)
	return nil
}

// curls fetches the tree with n processes of curl.
func curls(n int) func(*bench, context.Context, *tree, string) (usage, error) {
	return func(b *bench, ctx context.Context, t *tree, base string) (usage, error) {
		return b.curl(ctx, t, base, n)
	}
}

// imageSizes are some 3 GiB in the mix that boot images have.
func imageSizes() []int64 { return slices.Repeat([]int64{400 * mib, 90 * mib, 14 * mib, mib / 64}, 6) }

// tinySizes are 8,000 below 1 KiB.
func tinySizes() []int64 {
	sizes := make([]int64, 8000)
	for i := range sizes {
		sizes[i] = 200 + int64(i%800)
	}
	return sizes
}

// hot serves one file of 400 MiB, mirrored before, to eight clients at once,
// beside Go's own file server on the same bytes.
func hot(ctx context.Context, b *bench) error {
	t, err := makeTree(b, []int64{400 * mib})
	if err != nil {
		return err
	}
	defer t.remove()
	base, stopUpstream, err := nginx(ctx, b, t.dir, "")
	if err != nil {
		return err
	}
	defer stopUpstream()
	store := filepath.Join(b.dir, "hot-store")
	defer os.RemoveAll(store)
	if _, err := measure(ctx, b.oxbow, b.syncArgs(t, base, store)...); err != nil {
		return err
	}
	ours, err := freeAddress()
	if err != nil {
		return err
	}
	theirs, err := freeAddress()
	if err != nil {
		return err
	}
	server, err := start(b.oxbow, "serve", "--store", store, "--listen", ours, "--log-level", "error")
	if err != nil {
		return err
	}
	defer server.stop()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	peer, err := start(self, "fileserver", theirs, t.dir)
	if err != nil {
		return err
	}
	defer peer.stop()
	for _, addr := range []string{ours, theirs} {
		if err := answering(ctx, addr); err != nil {
			return err
		}
	}
	p, err := compare(b.runs,
		func() (usage, error) { return clients(ctx, "http://"+ours+"/bench/"+t.paths[0], 8) },
		func() (usage, error) { return clients(ctx, "http://"+theirs+"/"+t.paths[0], 8) })
	if err != nil {
		return err
	}
	p.print("one hot file of 400 MiB to 8 clients", "http.FileServer", 8*t.bytes)
	return nil
}

func (b *bench) syncArgs(t *tree, base, store string) []string {
	return []string{"mirror", "sync", base, "--store", store, "--keyring", t.keyring, "--name", "bench", "--path", "/bench/"}
}

// fresh makes a directory for one run. When done it is emptied, unless the tree
// has many files: an ext4 without a journal passes over inodes that were freed in the
// last minutes, one by one, so that removing thousands would make the next run's
// creations slow.
func (b *bench) fresh(t *tree) (dir string, done func(), err error) {
	dir, err = os.MkdirTemp(b.dir, "run-")
	return dir, func() {
		if len(t.paths) < 1000 {
			_ = os.RemoveAll(dir)
		}
	}, err
}

// sync mirrors the tree into a fresh store.
func (b *bench) sync(ctx context.Context, t *tree, base string) (usage, error) {
	store, done, err := b.fresh(t)
	if err != nil {
		return usage{}, err
	}
	defer done()
	return measure(ctx, b.oxbow, b.syncArgs(t, base, filepath.Join(store, "store"))...)
}

// curl fetches the tree's files to disk with n processes.
func (b *bench) curl(ctx context.Context, t *tree, base string, n int) (usage, error) {
	out, done, err := b.fresh(t)
	if err != nil {
		return usage{}, err
	}
	defer done()
	script := fmt.Sprintf(`printf '%%s\n' "$@" | xargs -P %d -I{} curl -sSf --create-dirs -o %s/{} %s/{}`, n, out, base)
	return measure(ctx, "sh", append([]string{"-c", script, "sh"}, t.paths...)...)
}

// curlConfig fetches the tree's files to disk with one process on eight connections.
func (b *bench) curlConfig(ctx context.Context, t *tree, base string) (usage, error) {
	out, done, err := b.fresh(t)
	if err != nil {
		return usage{}, err
	}
	defer done()
	var config strings.Builder
	for _, p := range t.paths {
		fmt.Fprintf(&config, "url = %s/%s\noutput = %s/%s\n", base, p, out, p)
	}
	file := filepath.Join(b.dir, "curl.conf")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return usage{}, err
	}
	return measure(ctx, "curl", "-sSf", "--parallel", "--parallel-max", "8", "--create-dirs", "--config", file)
}

// clients measures n curls that fetch one URL at once and keep nothing.
func clients(ctx context.Context, url string, n int) (usage, error) {
	start := time.Now()
	failed := make(chan error, n)
	for range n {
		go func() {
			_, err := execute(ctx, "curl", "-sSf", "-o", "/dev/null", url)
			failed <- err
		}()
	}
	var first error
	for range n {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
	}
	return usage{wall: time.Since(start)}, first
}
