package proxy

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// publishedBefore returns a site whose stream stable was published three days before the clock of
// a synctest bubble begins.
func publishedBefore(t *testing.T) *site {
	s := newSite(t, false)
	s.now = time.Date(1999, 12, 29, 0, 0, 0, 0, time.UTC)
	s.publish("stable", s.put(cache.KindItem, "a", "0123456789"))
	return s
}

// What is wrong with syncs, certificate and all else is told line by line, to anyone, so
// without what nobody should see, and makes nobody wait for a stream that is served.
func TestReadinessNotes(t *testing.T) {
	s := publishedBefore(t)
	const (
		ready = "ready\n"
		old   = "; what is served was published 3 days ago\n"
		hour  = time.Hour
		day   = 24 * time.Hour
	)
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		expiring := func(in time.Duration) *Certificate {
			return newPairFiles(t, now.Add(in)).load(t, nil)
		}
		for _, test := range []struct {
			name        string
			state       mirror.Standing
			certificate *Certificate
			notes       []string
			want        string
		}{
			{name: "all well", state: mirror.Standing{Attempt: now, Good: now, Next: now, UpstreamIndex: now}, want: ready},
			{name: "failed", state: mirror.Standing{Failures: 1}, want: ready + "note: stream stable: the last sync failed" + old},
			{name: "failing", state: mirror.Standing{Failures: 12, Reason: "cannot reach it"},
				want: ready + "note: stream stable: the last sync failed 12 times in a row: cannot reach it" + old},
			{name: "failed before, not now", state: mirror.Standing{Reason: "cannot reach it"}, want: ready},
			{name: "a password", state: mirror.Standing{Failures: 1, Reason: `cannot fetch "https://me:p@ss@mirror:80/a?b": no route, nor to http://:SECRET@other/`},
				want: ready + `note: stream stable: the last sync failed: cannot fetch "https://mirror:80/a?b": no route, nor to http://other/` + old},
			{name: "control characters", state: mirror.Standing{Failures: 1, Reason: "one\r\nready\x00\x1b[2J\u2028\u202etwo\xff\ttab\u00e9"},
				want: ready + "note: stream stable: the last sync failed: one  ready  [2J  two? tab\u00e9" + old},
			{name: "a password with control characters", state: mirror.Standing{Failures: 1, Reason: "https://me:SEC\x1bRET@mirror/ is \x07gone"},
				want: ready + "note: stream stable: the last sync failed: https://mirror/ is  gone" + old},
			{name: "a long reason", state: mirror.Standing{Failures: 1, Reason: strings.Repeat("é", maxReason+1)},
				want: ready + "note: stream stable: the last sync failed: " + strings.Repeat("é", maxReason-1) + "…" + old},
			{name: "a reason of the most", state: mirror.Standing{Failures: 1, Reason: strings.Repeat("é", maxReason)},
				want: ready + "note: stream stable: the last sync failed: " + strings.Repeat("é", maxReason) + old},
			{name: "an index of a week", state: mirror.Standing{UpstreamIndex: now.Add(-7 * day)},
				want: ready + "note: stream stable: upstream's index is of 1999-12-25, 7 days old\n"},
			{name: "an index of less", state: mirror.Standing{UpstreamIndex: now.Add(-7*day + 1)}, want: ready},
			{name: "an index of tomorrow", state: mirror.Standing{UpstreamIndex: now.Add(day)}, want: ready},
			{name: "a stale index and a failure", state: mirror.Standing{Failures: 1, UpstreamIndex: now.Add(-400 * day)},
				want: ready + "note: stream stable: the last sync failed" + old + "note: stream stable: upstream's index is of 1998-11-27, 400 days old\n"},
			{name: "custody", state: mirror.Standing{NoCustody: "the chain ends"}, want: ready + "note: stream stable: the chain ends\n"},
			{name: "held", state: mirror.Standing{Held: now}, want: ready + "note: stream stable: held by a rollback of 2000-01-01T00:00:00Z, until `oxbow snapshot rollback stable --resume`\n"},
			{name: "a certificate of two weeks", certificate: expiring(14 * day), want: ready},
			{name: "of less", certificate: expiring(14*day - time.Second), want: ready + "note: the TLS certificate expires in 13 days\n"},
			{name: "of hours", certificate: expiring(47*hour + 59*time.Minute), want: ready + "note: the TLS certificate expires in 47 hours\n"},
			{name: "of minutes", certificate: expiring(time.Minute), want: ready + "note: the TLS certificate expires in 1 minutes\n"},
			{name: "expired", certificate: expiring(0), want: ready + "note: the TLS certificate expired 0 minutes ago\n"},
			{name: "long ago", certificate: expiring(-30 * day), want: ready + "note: the TLS certificate expired 30 days ago\n"},
			{name: "notes", notes: []string{"the key is gone", "a\nb \x1b[31m http://u:SECRET@h/", strings.Repeat("x", maxNote+1)},
				want: ready + "note: the key is gone\nnote: a b  [31m http://h/\nnote: " + strings.Repeat("x", maxNote-1) + "…\n"},
		} {
			srv := s.server(Options{
				Certificate: test.certificate,
				Syncs:       func(string) mirror.Standing { return test.state },
				Notes:       func() []string { return test.notes },
			}, stable, Stream{Name: "stable", Path: "/again", View: cache.Upstream})
			if status, body := ask(srv, "/-/readyz"); status != http.StatusOK || body != test.want {
				t.Errorf("%s: %d\n%swant\n%s", test.name, status, body, test.want)
			}
		}
	})
}

// Reasons come before the notes, and only they make the answer 503.
func TestReadinessReasons(t *testing.T) {
	s := publishedBefore(t)
	empty := Stream{Name: "empty", Path: "/empty"}
	const drains = "draining: the server is about to end\n"
	for _, test := range []struct {
		name     string
		streams  []Stream
		draining bool
		status   int
		want     string
	}{
		{"no stream at all", nil, false, 200, "ready\nnote: as it is\n"},
		{"one that is served", []Stream{stable}, false, 200, "ready\nnote: as it is\n"},
		{"nothing published", []Stream{stable, empty}, false, 503,
			"stream empty: no snapshot yet\nnote: stream empty: the last sync failed: no route\nnote: as it is\n"},
		{"draining", []Stream{stable}, true, 503, drains + "note: as it is\n"},
		{"all of it", []Stream{empty, stable}, true, 503,
			drains + "stream empty: no snapshot yet\nnote: stream empty: the last sync failed: no route\nnote: as it is\n"},
	} {
		srv := s.server(Options{
			Syncs: func(stream string) mirror.Standing {
				if stream == "empty" {
					return mirror.Standing{Failures: 1, Reason: "no route"}
				}
				return mirror.Standing{}
			},
			Notes: func() []string { return []string{"as it is"} },
		}, test.streams...)
		srv.draining.Store(test.draining)
		if status, body := ask(srv, "/-/readyz"); status != test.status || body != test.want {
			t.Errorf("%s: %d\n%swant %d\n%s", test.name, status, body, test.status, test.want)
		}
		if status, body := ask(srv, "/-/healthz"); status != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: not healthy: %d %q", test.name, status, body)
		}
	}
}

// A disk that fills up is told of before syncs stop for good, and keeps nobody waiting.
func TestReadinessOfAFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	store, err := cache.Create(dir, &cache.Options{Reserve: 1 << 60, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	srv := New(&Options{Store: store, Streams: func() []Stream { return nil }})
	want := regexp.MustCompile(`^ready\nnote: the disk has \d+ MiB left, and syncs stop below 1099511627776\n$`)
	if status, body := ask(srv, "/-/readyz"); status != http.StatusOK || !want.MatchString(body) {
		t.Errorf("%d %q", status, body)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if status, body := ask(srv, "/-/readyz"); status != http.StatusOK || !strings.HasPrefix(body, "ready\nnote: cannot tell the free space of store ") {
		t.Errorf("of a file system that does not answer: %d %q", status, body)
	}
}
