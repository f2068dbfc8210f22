package proxy

import (
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Clients that take nothing of what they asked for cost a fixed amount of memory each,
// whatever the size of the file: from the store, from a fill that goes on, and from a host
// that is relayed.
func TestSlowReadersCostNoMemory(t *testing.T) {
	const (
		readers = 100
		size    = 24 << 20
		most    = 160 << 10 // bytes a reader, with the other ends of its connections, which are here too
	)
	var more atomic.Bool
	far := newFar(t, func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 16<<10)
		for n := 0; n < size && r.Context().Err() == nil; n += len(block) {
			w.Write(block)
		}
	})
	o := newOrigin(t, 8<<20)
	o.fault = func(w http.ResponseWriter, r *http.Request, _ int64) http.ResponseWriter {
		w.Header().Set("Content-Length", "8388608")
		w.Write(o.content[:7<<20])
		w.(http.Flusher).Flush()
		for !more.Load() && r.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}
	f := newForwarded(t, Options{Pull: puller(t, o.url), Metrics: NewMetrics("v1")}, ubuntu, far)
	f.publish("stable", f.putZeros("here", size), o.entry("cold"))
	f.listen(t)
	for _, url := range []string{ubuntu[0] + "/here", ubuntu[0] + "/cold", "http://" + far + "/"} {
		before := memoryInUse()
		wires := make([]*wire, readers)
		for i := range wires {
			wires[i] = dial(t, f.addr)
			wires[i].send(t, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", url)
			wires[i].head(t, http.MethodGet)
		}
		time.Sleep(200 * time.Millisecond) // until what fits into the kernel is there
		cost := (memoryInUse() - before) / readers
		t.Logf("%s: %d KiB a reader", url, cost>>10)
		if cost > most {
			t.Errorf("%s: %d bytes a reader", url, cost)
		}
		more.Store(true)
		for _, w := range wires {
			w.Close()
		}
		waitUntil(t, func() bool {
			samples, _ := scrape(t, f.front)
			return samples["oxbow_http_requests_in_flight"] == "1" // the scrape
		})
	}
}

// memoryInUse returns the bytes of heap and stacks that are in use.
func memoryInUse() int {
	runtime.GC()
	runtime.GC() // empties the pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// No more connections than the limit are served at once, of both listeners together. Who
// comes then is served as soon as another goes.
func TestConnections(t *testing.T) {
	f := newForwarded(t, Options{Connections: 2}, ubuntu)
	f.listen(t)
	ask := func(w *wire, path string) { w.send(t, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", path) }
	answered := func(w *wire, patience time.Duration) bool {
		w.SetReadDeadline(time.Now().Add(patience))
		_, err := w.r.Peek(1)
		return err == nil
	}
	first, second := dial(t, f.front), dial(t, f.addr)
	ask(first, "/-/healthz")
	ask(second, ubuntu[0]+"/noble/squashfs")
	if !answered(first, 10*time.Second) || !answered(second, 10*time.Second) {
		t.Fatal("no answer below the limit")
	}
	third, fourth := dial(t, f.front), dial(t, f.addr)
	ask(third, "/-/healthz")
	ask(fourth, ubuntu[0]+"/noble/squashfs")
	if answered(third, 200*time.Millisecond) || answered(fourth, time.Millisecond) {
		t.Error("an answer beyond the limit")
	}
	first.Close()
	second.Close()
	if !answered(third, 10*time.Second) || !answered(fourth, 10*time.Second) {
		t.Error("who waited is not served")
	}
	// One that waits does not keep the server from ending: the end of the test ends it.
	dial(t, f.front)
}

// A head that is too large is refused by the forward proxy as by the front end.
func TestLargeHeadToForward(t *testing.T) {
	f := newForwarded(t, Options{}, ubuntu)
	f.listen(t)
	for size, status := range map[int]int{maxHeader - 1<<10: http.StatusOK, 2 * maxHeader: http.StatusRequestHeaderFieldsTooLarge} {
		if resp, _ := f.ask(t, "GET", ubuntu[0]+"/noble/squashfs", "X: "+strings.Repeat("x", size)); resp.StatusCode != status {
			t.Errorf("%d bytes: %d", size, resp.StatusCode)
		}
	}
}
