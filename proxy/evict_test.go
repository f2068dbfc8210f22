package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
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
	"oxbow/mirror"
)

// More is asked for than the cache may hold, by many at once: each reader gets its file
// whole, the limit is exceeded by what is on its way at most, and nothing stays open.
func TestEvictionUnderLoad(t *testing.T) {
	const files, size, readers, rounds = 8, 512 << 10, 12, 10
	content := map[string][]byte{}
	random := rand.NewChaCha8([32]byte{1})
	for i := range files {
		data := make([]byte, size)
		random.Read(data)
		content[fmt.Sprintf("f%d", i)] = data
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	defer upstream.Close()
	client := mirror.NewClient(nil)
	defer client.Close()
	pull := func(ctx context.Context, _, path string, in *cache.Ingest, o mirror.FetchOptions) (cache.Blob, error) {
		return client.Fetch(ctx, []string{upstream.URL + "/" + path}, in, in.Size(), o)
	}
	s := newSite(t, false)
	entries := []cache.Entry{s.put(cache.KindSite, "streams/v1/index.json", "{}")}
	for path, data := range content {
		entries = append(entries, cache.Entry{Kind: cache.KindKnown, Path: path, Digest: cache.Sum(data), Size: size})
	}
	s.publish("stable", entries...)
	const limit = 3 * size
	s.store.SetCacheLimit(limit)
	addr := serve(t, s.server(Options{Pull: pull}, stable))

	get := func(path string) error {
		http := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := http.Get("http://" + addr + "/ephemeral-v3/stable/" + path)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.Equal(got, content[path]) {
			err = fmt.Errorf("%s, %d bytes", resp.Status, len(got))
		}
		return err
	}
	if err := get("f0"); err != nil {
		t.Fatal(err)
	}
	goroutines, descriptors := settled(t)
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for range rounds {
				if err := get(fmt.Sprintf("f%d", rand.IntN(files))); err != nil {
					t.Error(err)
				}
				// Each reader holds one file, and each fill brings one.
				if st := s.store.PullStats(); st.Bytes > limit+readers*size {
					t.Errorf("%d bytes are pulled, %d allowed", st.Bytes, limit)
				}
			}
		})
	}
	all.Wait()
	if st := s.store.PullStats(); st.Evicted == 0 {
		t.Errorf("nothing was evicted: %+v", st)
	}
	upstream.CloseClientConnections() // those that are kept for the next fill
	var g, d int
	for range 100 {
		if g, d = settled(t); g <= goroutines+2 && d <= descriptors+2 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if g > goroutines+2 || d > descriptors+2 {
		t.Errorf("%d goroutines and %d descriptors, %d and %d before", g, d, goroutines, descriptors)
	}
}

// settled returns how many goroutines and descriptors there are.
func settled(t *testing.T) (goroutines, descriptors int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return runtime.NumGoroutine(), len(open)
}
