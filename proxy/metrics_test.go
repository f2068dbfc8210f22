package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"oxbow/cache"
	"oxbow/mirror"
)

// scrape returns the samples of /-/metrics, name and labels to value.
func scrape(t *testing.T, addr string) (samples map[string]string, text string) {
	t.Helper()
	resp, text := get(t, addr, "/-/metrics")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("scrape: %d %v", resp.StatusCode, resp.Header)
	}
	samples = map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && line[0] != '#' {
			samples[name+"}"] = value
		} else if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && line[0] != '#' {
			samples[name] = value
		}
	}
	return samples, text
}

// A scrape has what an operator watches, in Prometheus' own conventions.
func TestMetrics(t *testing.T) {
	s := newSite(t, true)
	gone := s.put(cache.KindItem, "gone", "gone")
	s.publish("stable", s.put(cache.KindItem, "old", "0123456789"))
	s.publish("stable", s.put(cache.KindItem, "a", "01234"), gone,
		cache.Entry{Kind: cache.KindKnown, Path: "known", Digest: cache.Digest{1}, Size: 7})
	if err := os.Remove(s.blobFile(gone)); err != nil {
		t.Fatal(err)
	}
	m := NewMetrics("v1.2.3")
	at := time.Unix(1700000000, 0)
	unfinished := func() []*mirror.UnfinishedBundle {
		missing := func(bytes ...int64) (all []mirror.MissingVolume) {
			for i, n := range bytes {
				all = append(all, mirror.MissingVolume{Volume: i + 1, Files: 1, Bytes: n})
			}
			return all
		}
		return []*mirror.UnfinishedBundle{
			{Bundle: "a", Snapshots: map[string]string{"stable": "1", "coming": "2"}, Missing: missing(3, 4), KeptUntil: at.Add(2 * time.Second)},
			{Bundle: "b", Snapshots: map[string]string{"stable": "3"}, Missing: missing(5), KeptUntil: at.Add(time.Second)},
			{Bundle: "of an older program", KeptUntil: at},
		}
	}
	srv := s.server(Options{Metrics: m, Unfinished: unfinished, Syncs: func(stream string) mirror.Standing {
		if stream != "stable" {
			return mirror.Standing{}
		}
		return mirror.Standing{Attempt: at, Good: at.Add(1500 * time.Millisecond), Next: at.Add(2 * time.Second), Failures: 3, UpstreamIndex: at.Add(3 * time.Second), NoCustody: "x", Held: at}
	}}, stable, Stream{Name: "stable", Path: "/again"}, Stream{Name: "empty", Path: "/empty"})
	addr := serve(t, srv)

	for _, line := range []string{"GET /a", "GET /a", "GET /old", "HEAD /a", "GET /known", "GET /gone", "GET /nothing", "PROPFIND /a"} {
		method, path, _ := strings.Cut(line, " ")
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, httptest.NewRequest(method, "/ephemeral-v3/stable"+path, nil))
	}
	w := dial(t, addr)
	w.send(t, "GET /ephemeral-v3/stable/gone HTTP/1.1\r\nHost: mirror\r\nUser-Agent: maas/3.8.0\r\n\r\n")
	if !w.ended() {
		t.Error("a client that takes a status as final is answered")
	}
	m.Synced(mirror.Event{Stream: "stable", Outcome: mirror.OutcomeDone, Duration: 20 * time.Second, Fetched: mirror.Amount{Files: 2, Bytes: 300}})
	m.Synced(mirror.Event{Stream: "stable", Outcome: mirror.OutcomeFailed, Duration: time.Second})
	m.Command("mirror sync", 3)
	m.Reloaded(true, at)
	m.Reloaded(false, at.Add(time.Hour))

	got, text := scrape(t, addr)
	for range 100 { // a client sees the end of its connection before the server takes note of it
		if got["oxbow_http_connections_open"] == "1" {
			break
		}
		time.Sleep(10 * time.Millisecond)
		got, text = scrape(t, addr)
	}
	for name, want := range map[string]string{
		`build_info{goversion="*",version="v1.2.3"}`:                                 "1",
		`http_requests_total{cache="hit",code="200",method="GET",stream="stable"}`:   "2",
		`http_requests_total{cache="hit",code="200",method="HEAD",stream="stable"}`:  "1",
		`http_requests_total{cache="older",code="200",method="GET",stream="stable"}`: "1",
		`http_requests_total{cache="miss",code="404",method="GET",stream="stable"}`:  "1",
		`http_requests_total{cache="none",code="404",method="GET",stream="stable"}`:  "2",
		`http_requests_total{cache="none",code="cut",method="GET",stream="stable"}`:  "1",
		`http_requests_total{cache="none",code="405",method="other",stream="-"}`:     "1",
		`http_response_bytes_total{stream="stable"}`:                                 "60",
		`http_request_duration_seconds_count{stream="stable"}`:                       "8",
		`http_request_duration_seconds_bucket{stream="stable",le="3600"}`:            "8",
		`http_requests_in_flight`:                                  "1",
		`http_connections_open`:                                    "1",
		`integrity_events_total{stream="stable"}`:                  "2",
		`integrity_events_total{stream="empty"}`:                   "0", // there before the first one
		`syncs_total{outcome="done",stream="stable"}`:              "1",
		`syncs_total{outcome="failed",stream="stable"}`:            "1",
		`sync_duration_seconds_sum{stream="stable"}`:               "21",
		`sync_fetched_bytes_total{stream="stable"}`:                "300",
		`sync_fetched_files_total{stream="stable"}`:                "2",
		`sync_last_timestamp_seconds{stream="stable"}`:             "1.7e+09",
		`sync_last_success_timestamp_seconds{stream="stable"}`:     "1.7000000015e+09",
		`sync_next_timestamp_seconds{stream="stable"}`:             "1.700000002e+09",
		`sync_consecutive_failures{stream="stable"}`:               "3",
		`sync_consecutive_failures{stream="empty"}`:                "0",
		`sync_last_timestamp_seconds{stream="empty"}`:              "",
		`upstream_index_timestamp_seconds{stream="stable"}`:        "1.700000003e+09",
		`stream_custody_missing{stream="stable"}`:                  "1",
		`stream_custody_missing{stream="empty"}`:                   "0",
		`stream_held{stream="stable"}`:                             "1",
		`stream_held{stream="empty"}`:                              "0",
		`snapshot_published_timestamp_seconds{stream="stable"}`:    "1.769875445e+09",
		`snapshot_files{stream="stable"}`:                          "2",
		`snapshot_bytes{stream="stable"}`:                          "9",
		`snapshot_files{stream="empty"}`:                           "",
		`bundle_missing_volumes{stream="stable"}`:                  "3",
		`bundle_missing_bytes{stream="stable"}`:                    "12",
		`bundle_missing_bytes{stream="coming"}`:                    "7",
		`bundle_missing_bytes{stream="empty"}`:                     "",
		`bundle_kept_until_timestamp_seconds{stream="stable"}`:     "1.700000001e+09",
		`store_reserve_bytes`:                                      "0",
		`pulled_files`:                                             "0",
		`evicted_files_total`:                                      "0",
		`control_commands_total{command="mirror sync",status="3"}`: "1",
		`config_last_reload_successful`:                            "0",
		`config_last_reload_success_timestamp_seconds`:             "1.7e+09",
	} {
		if name = "oxbow_" + strings.Replace(name, "*", runtime.Version(), 1); got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	for name := range got {
		if !strings.HasPrefix(name, "oxbow_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not ours", name)
		}
	}
	for _, name := range []string{"oxbow_store_free_bytes", "oxbow_store_size_bytes", "process_open_fds", "go_goroutines"} {
		if got[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "oxbow_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// What clients send makes no series.
func TestSeriesAreBounded(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	m := NewMetrics("v1")
	srv := s.server(Options{Metrics: m}, stable)
	addr := serve(t, srv)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	hostile := func(from int) {
		methods := []string{"GET", "HEAD", "POST", "get", "G\u00e9T", "GET\n", fmt.Sprint("M", random.Uint64())}
		for i := range 300 {
			path := fmt.Sprintf("/ephemeral-v3/stable/%x", random.Uint64())
			if i%3 == 0 {
				path = fmt.Sprintf("/-/snapshots/s%d/%x/a", from+i, random.Uint64())
			}
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Method = methods[i%len(methods)]
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-", random.Uint32()))
			r.Header.Set("Cache-Status", "oxbow; hit")
			srv.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	hostile(0)
	scrape(t, addr) // which is a request itself
	before, _ := scrape(t, addr)
	hostile(1000)
	after, _ := scrape(t, addr)
	ours := 0
	for name := range after {
		if strings.HasPrefix(name, "oxbow_") {
			ours++
		}
		if _, known := before[name]; !known && !strings.HasPrefix(name, "go_") {
			t.Errorf("a new series (seed %d): %s", seed, name)
		}
	}
	if ours > 160 {
		t.Errorf("%d series", ours)
	}
}

// The series of a stream go when it is not served any more, and those of the others stay.
func TestSeriesGoWithTheirStream(t *testing.T) {
	s := newSite(t, false)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	s.publish("other", s.put(cache.KindItem, "a", "0123456789"))
	m := NewMetrics("v1")
	streams := []Stream{stable, {Name: "other", Path: "/other"}}
	addr := serve(t, s.server(Options{Metrics: m, Streams: func() []Stream { return streams }}))
	for _, path := range []string{"/ephemeral-v3/stable/a", "/other/a"} {
		get(t, addr, path)
	}
	for _, stream := range []string{"stable", "other"} {
		m.Synced(mirror.Event{Stream: stream, Outcome: mirror.OutcomeDone})
		m.Damaged(stream)
	}
	_, text := scrape(t, addr)
	whole := strings.Count(text, `stream="stable"`)
	if n := strings.Count(text, `stream="other"`); n != whole || n < 30 {
		t.Errorf("%d lines of one stream, %d of another", whole, n)
	}
	streams = streams[:1]
	_, text = scrape(t, addr)
	if n, gone := strings.Count(text, `stream="stable"`), strings.Count(text, `stream="other"`); n != whole || gone != 0 {
		t.Errorf("%d lines of %d are left, and %d of the stream that went", n, whole, gone)
	}
}

// Without metrics nothing is counted, and who tells need not know.
func TestNoMetrics(t *testing.T) {
	var m *Metrics
	m.Synced(mirror.Event{Stream: "stable"})
	m.Command("mirror sync", 0)
	m.Reloaded(true, time.Now())
}
