package proxy

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"oxbow/mirror"
)

// Metrics counts what happens, for Prometheus: requests by itself, what else happens when
// it is told. How things stand is asked of the server at each scrape (gauges.go). Its
// methods may be called from any goroutine; those of a nil *Metrics do nothing.
//
// Labels take few values: a stream is one that is served, and what clients make up is
// "other". The series of a stream go with it.
type Metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	requests    *prometheus.CounterVec
	sent        *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	inFlight    prometheus.Gauge
	connections prometheus.Gauge
	integrity   *prometheus.CounterVec

	syncs        *prometheus.CounterVec
	syncDuration *prometheus.HistogramVec
	fetchedBytes *prometheus.CounterVec
	fetchedFiles *prometheus.CounterVec

	filling prometheus.Gauge
	filled  *prometheus.CounterVec
	pulled  *prometheus.CounterVec

	swept, sweptBytes prometheus.Counter
	scrubbed          prometheus.Counter
	faults            prometheus.Gauge

	forwarded *prometheus.CounterVec
	tunnelled prometheus.Gauge
	tunnelSum prometheus.Counter

	commands *prometheus.CounterVec
	reloads  reloads

	named sync.Map // the streams that counters have series of
}

// noStream is the label of what belongs to no stream. No stream has that name.
const noStream = "-"

// NewMetrics returns metrics that say they are those of a version of oxbow.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.makeHTTP()
	m.makeFills()
	m.makeForward()
	m.makeSyncs()
	m.swept = m.counters("swept_items_total", "Snapshots, files and unfinished downloads that sweeps of the server removed.").WithLabelValues()
	m.scrubbed = m.counters("scrubbed_bytes_total", "What scrubs of the server read of the store.").WithLabelValues()
	m.faults = m.gauge("store_faults", "Faults that the last check, scrub or repair left in the store (`oxbow store check` says which).")
	m.sweptBytes = m.counters("swept_bytes_total", "What these took on disk.").WithLabelValues()
	m.commands = m.counters("control_commands_total", "Commands that came over the control socket, by name and by the status of the answer.", "command", "status")
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "oxbow_build_info",
			Help:        "Always 1; the labels say which oxbow this is and what built it.",
			ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
		&m.reloads,
	)
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{DisableCompression: true})
	return m
}

func (m *Metrics) makeHTTP() {
	m.requests = m.counters("http_requests_total", "Requests answered. cache is hit for a file of the current snapshot, older for one of a superseded snapshot, miss for one that is listed and was not here, collapsed for one that another request's fill brought, none for all else; code is cut where the connection was broken instead of an answer.", "stream", "method", "code", "cache")
	m.sent = m.counters("http_response_bytes_total", "Bytes of bodies sent to clients.", "stream")
	m.duration = m.histograms("http_request_duration_seconds", "Time from the head of a request to the end of its answer; for an image that is the whole download.",
		[]float64{0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600})
	m.inFlight = m.gauge("http_requests_in_flight", "Requests that are being answered.")
	m.connections = m.gauge("http_connections_open", "Connections of clients, idle ones included.")
	m.integrity = m.counters("integrity_events_total", "Published files that the store lost or damaged, as a request or a scrub found (the log says which; they are fetched again where upstream has them), and sources that delivered something else than their metadata says (the log says which; nothing of it was stored).", "stream")
}

func (m *Metrics) makeFills() {
	m.filling = m.gauge("fills_in_progress", "Files that are being pulled through from upstream.")
	m.filled = m.counters("fills_total", "Files that were pulled through: done, or failed (nothing was stored).", "stream", "outcome")
	m.pulled = m.counters("fill_bytes_total", "Bytes that fills took from upstream.", "stream")
}

func (m *Metrics) makeForward() {
	m.forwarded = m.counters("forward_requests_total", "Requests to the forward proxy: served from the streams, relayed or tunnelled to a host that is allowed, failed where that did not answer, refused for what is not allowed, denied for want of a token, loop for one that came from here.", "outcome")
	for _, o := range outcomes {
		m.forwarded.WithLabelValues(o)
	}
	m.tunnelled = m.gauge("forward_tunnels_open", "Tunnels through the forward proxy.")
	m.tunnelSum = prometheus.NewCounter(prometheus.CounterOpts{Name: "oxbow_forward_tunnel_bytes_total", Help: "Bytes that tunnels carried, both ways."})
	m.registry.MustRegister(m.tunnelSum)
}

func (m *Metrics) makeSyncs() {
	m.syncs = m.counters("syncs_total", "Syncs that ended: done, partial (something selected was left out) or failed (nothing was published).", "stream", "outcome")
	m.syncDuration = m.histograms("sync_duration_seconds", "Time that syncs took, from the first request to upstream on.",
		[]float64{1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600})
	m.fetchedBytes = m.counters("sync_fetched_bytes_total", "Bytes of files fetched from upstream by syncs that ended.", "stream")
	m.fetchedFiles = m.counters("sync_fetched_files_total", "Files fetched from upstream by syncs that ended.", "stream")
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "oxbow_" + name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histograms(name, help string, buckets []float64) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "oxbow_" + name, Help: help, Buckets: buckets}, []string{"stream"})
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "oxbow_" + name, Help: help})
	m.registry.MustRegister(g)
	return g
}

// watch has the metrics show how things stand with s.
func (m *Metrics) watch(s *Server) {
	if m != nil {
		m.registry.MustRegister(gauges{s})
	}
}

// Synced counts a sync that ended.
func (m *Metrics) Synced(e mirror.Event) {
	if m == nil {
		return
	}
	stream := m.stream(e.Stream)
	m.syncs.WithLabelValues(stream, string(e.Outcome)).Inc()
	m.syncDuration.WithLabelValues(stream).Observe(e.Duration.Seconds())
	m.fetchedBytes.WithLabelValues(stream).Add(float64(e.Fetched.Bytes))
	m.fetchedFiles.WithLabelValues(stream).Add(float64(e.Fetched.Files))
}

// Command counts a command that came over the control socket. The name is one of those
// that there are, not what someone sent.
func (m *Metrics) Command(name string, status int) {
	if m != nil {
		m.commands.WithLabelValues(name, strconv.Itoa(status)).Inc()
	}
}

// Reloaded says whether the configuration was taken when it was read last, and when that
// was.
func (m *Metrics) Reloaded(ok bool, at time.Time) {
	if m != nil {
		m.reloads.note(ok, at)
	}
}

func (m *Metrics) begin() {
	if m != nil {
		m.inFlight.Inc()
	}
}

func (m *Metrics) connected(n float64) {
	if m != nil {
		m.connections.Add(n)
	}
}

// Damaged counts a fault of what is published, or of what upstream delivers of it.
func (m *Metrics) Damaged(stream string) {
	if m != nil {
		m.integrity.WithLabelValues(m.stream(stream)).Inc()
	}
}

func (m *Metrics) fillBegins() {
	if m != nil {
		m.filling.Inc()
	}
}

func (m *Metrics) fillEnds(stream string, err error, bytes int64) {
	if m == nil {
		return
	}
	outcome := "done"
	if err != nil {
		outcome = "failed"
	}
	m.filling.Dec()
	m.filled.WithLabelValues(m.stream(stream), outcome).Inc()
	m.pulled.WithLabelValues(m.stream(stream)).Add(float64(bytes))
}

// Swept counts what a sweep removed.
func (m *Metrics) Swept(items int, bytes int64) {
	if m != nil {
		m.swept.Add(float64(items))
		m.sweptBytes.Add(float64(bytes))
	}
}

// Scrubbed counts what a scrub read.
func (m *Metrics) Scrubbed(bytes int64) {
	if m != nil {
		m.scrubbed.Add(float64(bytes))
	}
}

// Faults says how many faults the store has, as far as is known.
func (m *Metrics) Faults(n int) {
	if m != nil {
		m.faults.Set(float64(n))
	}
}

// tunnels counts n more tunnels.
func (m *Metrics) tunnels(n float64) {
	if m != nil {
		m.tunnelled.Add(n)
	}
}

// carried counts n bytes through a tunnel.
func (m *Metrics) carried(n int) {
	if m != nil {
		m.tunnelSum.Add(float64(n))
	}
}

// served counts a request whose answer has ended.
func (m *Metrics) served(w *reply, r *http.Request, took time.Duration) {
	if m == nil {
		return
	}
	stream := m.stream(w.stream)
	m.inFlight.Dec()
	if w.outcome != "" {
		m.forwarded.WithLabelValues(w.outcome).Inc()
	}
	m.requests.WithLabelValues(stream, methodLabel(r.Method), codeLabel(w.status), cacheLabel(w.Header().Get("Cache-Status"))).Inc()
	m.sent.WithLabelValues(stream).Add(float64(w.bytes))
	m.duration.WithLabelValues(stream).Observe(took.Seconds())
}

func methodLabel(method string) string {
	if method == http.MethodGet || method == http.MethodHead {
		return method
	}
	return "other"
}

func codeLabel(status int) string {
	if status == 0 {
		return "cut"
	}
	return strconv.Itoa(status)
}

func cacheLabel(status string) string {
	status, _, _ = strings.Cut(status, "; ttl=")
	switch status {
	case hitCurrent:
		return "hit"
	case hitOlder:
		return "older"
	case "oxbow; detail=" + notStored, missed, repaired:
		return "miss"
	case collapsed:
		return "collapsed"
	}
	return "none"
}

// stream returns the label of a stream, and remembers that there are series with it.
func (m *Metrics) stream(name string) string {
	if name == "" {
		return noStream
	}
	m.named.LoadOrStore(name, nil)
	return name
}

// forget drops the series of streams that are not served any more.
func (m *Metrics) forget(served []string) {
	m.named.Range(func(key, _ any) bool {
		name := key.(string)
		if slices.Contains(served, name) {
			return true
		}
		m.named.Delete(name)
		gone := prometheus.Labels{"stream": name}
		for _, c := range []*prometheus.CounterVec{m.requests, m.sent, m.integrity, m.syncs, m.fetchedBytes, m.fetchedFiles} {
			c.DeletePartialMatch(gone)
		}
		m.duration.DeletePartialMatch(gone)
		m.syncDuration.DeletePartialMatch(gone)
		return true
	})
}

// foresee makes the series of events that have not happened yet: increase() of
// Prometheus does not see the first one of a series that begins with it.
func (m *Metrics) foresee(served []string) {
	for _, name := range served {
		m.integrity.WithLabelValues(m.stream(name))
	}
}

// serveMetrics answers a scrape.
func (s *Server) serveMetrics(w *reply, r *http.Request) {
	served := distinct(s.streams())
	s.metrics.forget(served)
	s.metrics.foresee(served)
	w.Header().Set("Cache-Control", "no-store")
	s.metrics.handler.ServeHTTP(w, r)
}
