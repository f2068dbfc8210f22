package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"oxbow/cache"
)

// BenchmarkServeHot sends one file of 400 MB to eight clients at once, in turn from this
// package and from http.FileServer, and reports how fast we are in terms of the latter.
func BenchmarkServeHot(b *testing.B) {
	const (
		size    = 400 << 20
		clients = 8
	)
	s := newSite(b, false)
	e := s.putZeros("big", size)
	s.publish("stable", e)
	ours := "http://" + serve(b, New(&Options{Store: s.store, Streams: func() []Stream { return []Stream{stable} }})) + "/ephemeral-v3/stable/big"

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	plain := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(s.dir, "blobs", "sha256", e.Digest.String()[:2])))}
	go plain.Serve(ln)
	b.Cleanup(func() { plain.Close() })
	theirs := fmt.Sprintf("http://%v/%v", ln.Addr(), e.Digest)

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	round := func(url string) time.Duration {
		began := time.Now()
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				resp, err := client.Get(url)
				if err != nil {
					b.Error(err)
					return
				}
				defer resp.Body.Close()
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 256<<10)); err != nil || n != size {
					b.Errorf("%d bytes: %v", n, err)
				}
			})
		}
		all.Wait()
		return time.Since(began)
	}
	round(ours) // warm both
	round(theirs)
	var our, their time.Duration
	b.SetBytes(clients * size)
	for b.Loop() {
		our += round(ours)
		b.StopTimer()
		their += round(theirs)
		b.StartTimer()
	}
	b.ReportMetric(their.Seconds()/our.Seconds(), "x-fileserver")
}

// BenchmarkServeDocument measures a small request on a kept connection.
func BenchmarkServeDocument(b *testing.B) {
	s := newSite(b, false)
	s.publish("stable", s.put(cache.KindSite, "streams/v1/index.sjson", "index"))
	url := "http://" + serve(b, s.server(Options{}, stable)) + "/ephemeral-v3/stable/streams/v1/index.sjson"
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for b.Loop() {
		resp, err := client.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
