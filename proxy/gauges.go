package proxy

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"oxbow/mirror"
)

// gauges tells at each scrape how things stand with a server. What is not known is left
// out: a series of zero would be a time in 1970, or an empty disk.
type gauges struct{ *Server }

var (
	lastSync      = ofStream("sync_last_timestamp_seconds", "When the last sync ended, whatever came of it.")
	lastGoodSync  = ofStream("sync_last_success_timestamp_seconds", "When the last sync ended that published all that is selected, or found nothing new.")
	nextSync      = ofStream("sync_next_timestamp_seconds", "When the next sync is due.")
	failedSyncs   = ofStream("sync_consecutive_failures", "Syncs that failed since the last good one; /-/readyz says why the last one did.")
	published     = ofStream("snapshot_published_timestamp_seconds", "When the current snapshot was published. It stays while upstream has nothing new.")
	snapshotFiles = ofStream("snapshot_files", "Files of the current snapshot that are stored here; metadata does not count.")
	snapshotBytes = ofStream("snapshot_bytes", "Size of the current snapshot; what it shares with others counts in each.")
	staleFor      = ofStream("metadata_stale_seconds", "How long upstream's metadata could not be brought up to date; 0 if the last sync was good.")
	upstreamIndex = ofStream("upstream_index_timestamp_seconds", "Date of the newest index of upstream's that was accepted. If it stays while syncs succeed, upstream rests or someone on the way holds updates back.")
	noCustody     = ofStream("stream_custody_missing", "1 if upstream is a mirror like this one whose chain of custody could not be had, or was refused (/-/readyz says why): what is published is vouched for by that mirror alone.")
	heldStreams   = ofStream("stream_held", "1 if a rollback holds the stream: syncs leave it as it is until they are told to go on.")

	missingVolumes = ofStream("bundle_missing_volumes", "Volumes still to be imported of bundles that bring the stream and are not whole; absent if there is none.")
	missingBytes   = ofStream("bundle_missing_bytes", "Size of the files that these volumes bring.")
	bundleEnd      = ofStream("bundle_kept_until_timestamp_seconds", "Until when what came of a bundle that is not whole is kept for the rest: the earliest of the stream.")

	storeFree    = plain("store_free_bytes", "Space on the store's file system that may still be written.")
	storeReserve = plain("store_reserve_bytes", "Free space that syncs leave alone: they stop below it.")
	storeSize    = plain("store_size_bytes", "Size of the store's file system.")

	pulledFiles  = plain("pulled_files", "Files that are here because they were asked for.")
	pulledBytes  = plain("pulled_bytes", "Size of the files that are here because they were asked for.")
	pulledLimit  = plain("pulled_limit_bytes", "What the size of these is bounded by; 0 is no bound.")
	evictedFiles = plain("evicted_files_total", "Files that were removed for others that were asked for.")
	evictedBytes = plain("evicted_bytes_total", "Size of the files that were removed for others.")

	certificateEnd = plain("tls_certificate_expiry_timestamp_seconds", "When the TLS certificate in use expires.")

	reloadGood   = plain("config_last_reload_successful", "1 if the configuration was accepted when it was read last, 0 if the one before it is still in effect.")
	reloadGoodAt = plain("config_last_reload_success_timestamp_seconds", "When a configuration was accepted last.")
)

func ofStream(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("oxbow_"+name, help, []string{"stream"}, nil)
}

func plain(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("oxbow_"+name, help, nil, nil)
}

func (gauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		lastSync, lastGoodSync, nextSync, failedSyncs, published, snapshotFiles, snapshotBytes, staleFor, upstreamIndex, noCustody, heldStreams,
		missingVolumes, missingBytes, bundleEnd, storeFree, storeReserve, storeSize, pulledFiles, pulledBytes, pulledLimit, evictedFiles, evictedBytes, certificateEnd,
	} {
		to <- d
	}
}

func (g gauges) Collect(to chan<- prometheus.Metric) {
	for _, stream := range distinct(g.streams()) {
		g.collectStream(to, stream)
	}
	g.collectUnfinished(to)
	if space, err := g.store.Space(); err == nil {
		send(to, storeFree, float64(space.Free))
		send(to, storeReserve, float64(space.Reserve))
		send(to, storeSize, float64(space.Total))
	}
	g.collectPulled(to)
	if g.certificate != nil {
		sendTime(to, certificateEnd, g.certificate.Expires())
	}
}

// collectUnfinished tells of bundles by their streams: of ids there are ever new ones.
func (g gauges) collectUnfinished(to chan<- prometheus.Metric) {
	all := g.unfinished()
	told := map[string]bool{}
	for _, b := range all {
		for stream := range b.Snapshots {
			if told[stream] {
				continue
			}
			told[stream] = true
			volumes, bytes, end := 0, int64(0), b.KeptUntil
			for _, other := range all {
				if other.Brings(stream) {
					volumes, bytes = volumes+len(other.Missing), bytes+other.MissingBytes()
					end = earlier(end, other.KeptUntil)
				}
			}
			send(to, missingVolumes, float64(volumes), stream)
			send(to, missingBytes, float64(bytes), stream)
			sendTime(to, bundleEnd, end, stream)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (g gauges) collectPulled(to chan<- prometheus.Metric) {
	pulled := g.store.PullStats()
	send(to, pulledFiles, float64(pulled.Blobs))
	send(to, pulledBytes, float64(pulled.Bytes))
	send(to, pulledLimit, float64(pulled.Limit))
	to <- prometheus.MustNewConstMetric(evictedFiles, prometheus.CounterValue, float64(pulled.Evicted))
	to <- prometheus.MustNewConstMetric(evictedBytes, prometheus.CounterValue, float64(pulled.EvictedBytes))
}

func (g gauges) collectStream(to chan<- prometheus.Metric, stream string) {
	if current, err := g.store.Current(stream); err == nil {
		sendTime(to, published, current.Created, stream)
		send(to, snapshotFiles, float64(current.Items), stream)
		send(to, snapshotBytes, float64(current.Bytes), stream)
	}
	state := g.syncs(stream)
	sendTime(to, lastSync, state.Attempt, stream)
	sendTime(to, lastGoodSync, state.Good, stream)
	sendTime(to, nextSync, state.Next, stream)
	sendTime(to, upstreamIndex, state.UpstreamIndex, stream)
	send(to, failedSyncs, float64(state.Failures), stream)
	send(to, noCustody, oneIf(state.NoCustody != ""), stream)
	send(to, heldStreams, oneIf(!state.Held.IsZero()), stream)
	send(to, staleFor, stale(state, time.Now()).Seconds(), stream)
}

// stale returns how long it is that what is served of a stream's metadata was last known
// to be upstream's newest; 0 where the last sync found it so.
func stale(state mirror.Standing, now time.Time) time.Duration {
	if state.Failures == 0 || state.Good.IsZero() {
		return 0
	}
	return max(now.Sub(state.Good), 0)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func send(to chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func sendTime(to chan<- prometheus.Metric, d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		send(to, d, float64(t.UnixMilli())/1000, labels...)
	}
}

// reloads is what became of the configuration.
type reloads struct {
	mu   sync.Mutex // guards the rest
	told bool
	ok   bool
	good time.Time // zero if none was accepted yet
}

func (r *reloads) note(ok bool, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told, r.ok = true, ok
	if ok {
		r.good = at
	}
}

func (r *reloads) Describe(to chan<- *prometheus.Desc) {
	to <- reloadGood
	to <- reloadGoodAt
}

func (r *reloads) Collect(to chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.told {
		return
	}
	value := 0.0
	if r.ok {
		value = 1
	}
	send(to, reloadGood, value)
	sendTime(to, reloadGoodAt, r.good)
}
