package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// Readers of more files than the limit lets stay each get the right ones, some by fills,
// some from the store, some after an eviction anew. What is here is over the limit by no
// more than what is being read, and nothing stays open or running.
func TestEvictionUnderLoad(t *testing.T) {
	const (
		files   = 32
		readers = 8
		reads   = 12
		largest = 3 << 20
		limit   = 10 << 20
	)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	contents := make(map[string][]byte)
	entries := make([]cache.Entry, files)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range entries {
		size := random.IntN(largest + 1) // some are small: those below 1 MiB have another way in
		if i%4 == 0 {
			size %= 1 << 20
		}
		content := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(i)}).Read(content)
		path := fmt.Sprintf("file/%d", i)
		contents[path] = content
		entries[i] = cache.Entry{Kind: cache.KindKnown, Path: path, Digest: sha256.Sum256(content), Size: int64(size)}
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(contents[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	defer origin.Close()
	client := upstream.NewClient(nil)
	s := newSite(t, false)
	s.publish("stable", append(entries, s.put(cache.KindSite, "streams/v1/index.json", "{}"))...)
	s.store.SetCacheLimit(limit)
	addr := serve(t, s.server(Options{Pull: func(ctx context.Context, _, path string, in *cache.Ingest, o upstream.FetchOptions) (cache.Blob, error) {
		return client.Fetch(ctx, []string{origin.URL + "/" + path}, in, in.Size(), o)
	}}, stable))
	get(t, addr, "/ephemeral-v3/stable/streams/v1/index.json") // the server is up
	open, running := descriptors(t), runtime.NumGoroutine()

	ctx, stop := context.WithCancel(t.Context())
	var sampling sync.WaitGroup
	most := int64(0)
	sampling.Go(func() {
		for ctx.Err() == nil {
			most = max(most, s.store.PullStats().Bytes)
			time.Sleep(time.Millisecond)
		}
	})
	var all sync.WaitGroup
	for n := range readers {
		random := rand.New(rand.NewPCG(seed, uint64(n+1)))
		all.Go(func() {
			for range reads {
				if err := readOne(addr, contents, entries[random.IntN(files)].Path, random); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	stop()
	sampling.Wait()
	stats := s.store.PullStats()
	t.Logf("%d files were evicted; at most %d bytes were here", stats.Evicted, most)
	if stats.Evicted == 0 || most > limit+readers*largest {
		t.Errorf("%+v, at most %d bytes", stats, most)
	}
	waitUntil(t, func() bool { return s.store.PullStats().Bytes <= limit })
	waitUntil(t, func() bool {
		client.Close() // a connection is idle soon after its fill has ended
		return descriptors(t) <= open && runtime.NumGoroutine() <= running
	})
}

// readOne reads a file, or a part of it, as somebody who has no other connection.
func readOne(addr string, contents map[string][]byte, path string, random *rand.Rand) error {
	want, status := contents[path], http.StatusOK
	req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/ephemeral-v3/stable/"+path, nil)
	if err != nil {
		return err
	}
	if len(want) > 0 && random.IntN(3) == 0 {
		from := random.IntN(len(want))
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		want, status = want[from:], http.StatusPartialContent
	}
	resp, body, err := do(req)
	if err == nil && resp.StatusCode != status {
		err = errors.New(resp.Status)
	}
	if err == nil && !bytes.Equal(body, want) {
		err = fmt.Errorf("%d wrong bytes", len(body))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", path, req.Header.Get("Range"), err)
	}
	return nil
}

// descriptors returns how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
