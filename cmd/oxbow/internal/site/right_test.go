package site

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oxbow/mirror"
	"oxbow/proxy"
	"oxbow/streams"
)

// A stream of the tests that says no more than it must.
const plain = "streams:\n  - name: a\n    upstream: http://h/a\n    advertise: selected\n"

func parse(t *testing.T, text string) *Site {
	t.Helper()
	s, err := Parse("/etc/oxbow/oxbow.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return s
}

// What says nothing is the site of no file.
func TestNothing(t *testing.T) {
	for _, text := range []string{
		"", "\n\n", "# nothing\n", "---\n", "---\n# nothing\n...\n", "\xef\xbb\xbf", "\xef\xbb\xbf# nothing\r\n", "{}\n",
		"store:\n  #path: /x\nserve:\nstreams:\n", "store: {}\nserve: {}\nstreams: []\n",
		"serve: {tls: {cert: '', key: ''}, token_file: '', on_failure: '', forward_proxy: {listen: '', allow: []}}\n",
	} {
		got := parse(t, text)
		if diff := cmp.Diff(&Site{File: "/etc/oxbow/oxbow.yaml"}, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// What a key of the store or the server says is what the site has.
func TestStoreAndServe(t *testing.T) {
	dir := makeFiles(t)
	for _, c := range []struct {
		text string
		want Site
	}{
		{"store: {path: /srv/oxbow/, reserve: 1.5GiB}", Site{Store: Store{Path: "/srv/oxbow", Reserve: 3 << 29}}},
		{"store: {path: ../oxbow}", Site{Store: Store{Path: filepath.Join(filepath.Dir(dir), "oxbow")}}},
		{"store: {reserve: 0}", Site{Store: Store{Reserve: -1}}},
		{"store:\r\n  path: /srv\r\n  reserve: \"2 GB\"\r\n", Site{Store: Store{Path: "/srv", Reserve: 2e9}}},
		{"\xef\xbb\xbf---\nserve: {listen: 127.0.0.1:80}\n...\n", Site{Serve: Serve{Listen: "127.0.0.1:80"}}},
		{"serve: {listen: \"[::1]:0\", token_file: token}", Site{Serve: Serve{Listen: "[::1]:0", TokenFile: dir + "/token"}}},
		{"serve: {tls: {cert: tls.crt, key: tls.key}}", Site{Serve: Serve{TLS: TLS{dir + "/tls.crt", dir + "/tls.key"}}}},
		{"serve: {forward_proxy: {listen: ':3128', allow: archive.ubuntu.com:80}}", Site{Serve: Serve{Forward: Forward{":3128", []proxy.Allowed{allowed(t, "archive.ubuntu.com:80")}}}}},
		{"serve: {forward_proxy: {listen: '[::1]:3128', allow: ['[::1]:80', 'http://10.0.0.7:3142/ubuntu/', 'https://esm.ubuntu.com/']}}", Site{Serve: Serve{Forward: Forward{
			"[::1]:3128", []proxy.Allowed{allowed(t, "[::1]:80"), allowed(t, "http://10.0.0.7:3142/ubuntu/"), allowed(t, "https://esm.ubuntu.com/")},
		}}}},
		{"serve: {listen: '127.0.0.1:0', forward_proxy: {listen: '127.0.0.1:0'}}", Site{Serve: Serve{Listen: "127.0.0.1:0", Forward: Forward{Listen: "127.0.0.1:0"}}}},
		{"serve:\n  on_failure: |\n    logger -p user.err\n", Site{Serve: Serve{OnFailure: "logger -p user.err\n"}}},
	} {
		c.want.File = dir + "/oxbow.yaml"
		got, err := Parse(c.want.File, []byte(c.text))
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if diff := cmp.Diff(&c.want, got, cmp.AllowUnexported(proxy.Allowed{})); diff != "" {
			t.Errorf("%q: %s", c.text, diff)
		}
	}
}

func allowed(t *testing.T, text string) proxy.Allowed {
	t.Helper()
	a, err := proxy.ParseAllowed(text)
	if err != nil || a.String() != text {
		t.Fatalf("%s is read as %v, %v", text, a, err)
	}
	return a
}

// What a key of a stream says is what its definition has.
func TestStream(t *testing.T) {
	dir := makeFiles(t)
	ring, err := os.ReadFile(dir + "/upstream.gpg")
	if err != nil {
		t.Fatal(err)
	}
	const distribution = "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg"
	for text, change := range map[string]func(*Stream){
		"keyring: upstream.gpg":                       func(s *Stream) { s.Keyring, s.KeyringFile = ring, dir+"/upstream.gpg" },
		"keyring: " + distribution:                    func(s *Stream) { s.KeyringFile = distribution },
		"allow_unsigned: true":                        func(s *Stream) { s.AllowUnsigned = true },
		"path: /x/y/":                                 func(s *Stream) { s.Path = "/x/y/" },
		"path: /x/ephemeral-v3/stable/":               func(s *Stream) { s.Path, s.Also = "/x/ephemeral-v3/stable/", []string{"/x/ephemeral-v3/daily/"} },
		"path: /x/ephemeral-v3/stable/\n    also: []": func(s *Stream) { s.Path = "/x/ephemeral-v3/stable/" },
		"also: /b/":                                   func(s *Stream) { s.Also = []string{"/b/"} },
		"also: [/b/, /c/]":                            func(s *Stream) { s.Also = []string{"/b/", "/c/"} },
		"kind: plain":                                 func(s *Stream) { s.Kind = mirror.KindPlain },
		"maas: 3.8":                                   func(s *Stream) { s.Profile = streams.V38 },
		"maas: legacy":                                func(s *Stream) { s.Profile = streams.Legacy },
		"maas: all":                                   func(*Stream) {},
		"select: arch=amd64 release~(a|b)":            func(s *Stream) { s.Select = []string{"arch=amd64 release~(a|b)"} },
		"select:\n    - arch=amd64\n    - arch=arm64": func(s *Stream) { s.Select = []string{"arch=amd64", "arch=arm64"} },
		"bootloaders: false":                          func(s *Stream) { s.NoBootloaders = true },
		"bootloaders: true":                           func(*Stream) {},
		"max_versions: 2":                             func(s *Stream) { s.MaxVersions = 2 },
		"limit: 10MiB":                                func(s *Stream) { s.Limit = 10 << 20 },
		"limit: 20000":                                func(s *Stream) { s.Limit = 20000 },
		"limit: 0":                                    func(*Stream) {},
		"sync: {every: 1h30m, jitter: 5m}":            func(s *Stream) { s.Schedule = mirror.Schedule{Every: 90 * time.Minute, Jitter: 5 * time.Minute} },
		"sync: {every: 2w}":                           func(s *Stream) { s.Schedule.Every = 14 * 24 * time.Hour },
		"sync: {at: 03:15}":                           func(s *Stream) { s.Schedule.At = "03:15" },
		"sync: {at: '23:59', jitter: 23h}":            func(s *Stream) { s.Schedule = mirror.Schedule{At: "23:59", Jitter: 23 * time.Hour} },
		"hold: []\n    offline: false":                func(*Stream) {},
		"hold: version_name~^2025":                    func(s *Stream) { s.Hold = []string{"version_name~^2025"} },
		"offline: true":                               func(s *Stream) { s.Offline = true },
	} {
		want := Stream{Stream: mirror.Stream{Name: "a", Upstream: []string{"http://h/a"}, Path: "/a/"}}
		change(&want)
		s, err := Parse(dir+"/oxbow.yaml", []byte(plain+"    "+text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, ok := s.Stream("a")
		if diff := cmp.Diff(want, got); diff != "" || !ok {
			t.Errorf("%s: %s", text, diff)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, ok := parse(t, plain).Stream("b"); ok {
		t.Error("a stream that is not there is found")
	}
}

// Where unsigned metadata is accepted, a keyring that is named is read, the
// distribution's too: else no signature would be checked.
func TestUnsignedReadsKeyring(t *testing.T) {
	const ring = "/snap/maas/current/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg"
	if _, err := os.Stat(ring); err == nil {
		t.Skip("the keyring is there")
	}
	_, err := Parse("f", []byte(plain+"    allow_unsigned: true\n    keyring: "+ring))
	if err == nil || !strings.Contains(err.Error(), "cannot read "+ring) {
		t.Errorf("error %v", err)
	}
}

// A stream advertises what it selects. One without a selection advertises all of
// upstream's, unless it says that everything is to be mirrored.
func TestAdvertise(t *testing.T) {
	for keys, want := range map[string]mirror.Advertise{
		"":                                     mirror.AdvertiseAll,
		", select: []":                         mirror.AdvertiseAll,
		", select: arch=amd64":                 "",
		", advertise: selected":                "",
		", select: arch=amd64, advertise: all": mirror.AdvertiseAll,
		", advertise: all":                     mirror.AdvertiseAll,
	} {
		s := parse(t, "streams: [{name: a, upstream: http://h/a"+keys+"}]")
		if got := s.Streams[0].Advertise; got != want {
			t.Errorf("%q: advertise %q, want %q", keys, got, want)
		}
		if again := parse(t, string(s.Render())); again.Streams[0].Advertise != want {
			t.Errorf("%q: advertise %q once rendered, want %q", keys, again.Streams[0].Advertise, want)
		}
	}
}

// A schedule of a stream that is offline is warned of.
func TestOfflineSchedule(t *testing.T) {
	s := parse(t, "streams: [{name: a, upstream: http://h/a, offline: true, sync: {every: 1h}}]")
	want := []string{"/etc/oxbow/oxbow.yaml:1:58: streams[0].sync: no effect: the stream is offline"}
	if diff := cmp.Diff(want, s.Warnings); diff != "" {
		t.Error(diff)
	}
}

// URLs may name the index, hold a password and be several.
func TestUpstreams(t *testing.T) {
	s := parse(t, "streams: [{name: a, upstream: ['http://u:p@h/a/streams/v1/x.json', https://i/b/streams/v1/x.json], advertise: selected}]")
	got := s.Streams[0].Stream
	want := mirror.Stream{Name: "a", Upstream: []string{"http://u:p@h/a", "https://i/b"}, Index: "streams/v1/x.json", Path: "/a/"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	text := string(s.Render())
	if want := "upstream: [\"http://u:…@h/a/streams/v1/x.json\", https://i/b/streams/v1/x.json]\n"; !strings.Contains(text, want) {
		t.Errorf("%s\nwant %s", text, want)
	}
}

// The example of the design, with the warnings that it gives in this version.
func TestDesign(t *testing.T) {
	s := parse(t, `
store: {path: /var/lib/oxbow, cache_limit: 50GiB, reserve: 2GiB}
serve:
  listen: ":8080"
  tls: {cert: "", key: ""}
  token_file: ""                                  # bearer token asked of clients, when set
  forward_proxy: {listen: "", allow: []}          # e.g. ":3128"; clients set http_proxy to it
streams:
  - name: stable
    upstream: [https://images.maas.io/ephemeral-v3/stable]     # in order
    keyring: /usr/share/keyrings/ubuntu-cloudimage-keyring.gpg
    allow_unsigned: false
    path: /ephemeral-v3/stable/
    also: [/ephemeral-v3/daily/]                  # the retired daily stream: served the same here (Canonical redirects; some clients do not follow)
    kind: maas                                    # or plain; found out when absent
    maas: all                                     # or legacy, 3.8: whose rules the published metadata must meet
    select:
      - "os=ubuntu release~(jammy|noble) arch=amd64"
      - "os=centos"
    bootloaders: true
    hold: []                                      # filters of versions not to publish
    max_versions: 2
    advertise: selected
    offline: false
    keep: {last: 10, daily: 7, weekly: 4, grace: 24h}
    sync: {every: 1h, jitter: 5m}                 # or {at: "03:15"}; absent: only by command
    limit: 0                                      # bytes per second from upstream, 0 is none
`)
	want := &Site{
		File:  "/etc/oxbow/oxbow.yaml",
		Store: Store{Path: "/var/lib/oxbow", Reserve: 2 << 30, CacheLimit: 50 << 30},
		Serve: Serve{Listen: ":8080"},
		Streams: []Stream{{
			Stream: mirror.Stream{
				Name: "stable", Upstream: []string{"https://images.maas.io/ephemeral-v3/stable"}, Path: "/ephemeral-v3/stable/", Also: []string{"/ephemeral-v3/daily/"},
				Kind: mirror.KindMAAS, Select: []string{"os=ubuntu release~(jammy|noble) arch=amd64", "os=centos"}, MaxVersions: 2,
			},
			KeyringFile: "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",
			Schedule:    mirror.Schedule{Every: time.Hour, Jitter: 5 * time.Minute},
		}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
}

// keyLine is a line of the example that begins with a key, commented out or not.
var keyLine = regexp.MustCompile(`(?m)^[ -]*#?([a-z_]+):`)

// The example is a file that can be used as it is, names every key, and what is
// commented out in it is what holds without it.
func TestExample(t *testing.T) {
	text := string(Example())
	s := parse(t, text)
	if s.Warnings != nil {
		t.Errorf("warnings: %q", s.Warnings)
	}
	all := parse(t, regexp.MustCompile(`(?m)^( *)#(\S)`).ReplaceAllString(text, "$1$2"))
	// What these two are is found out where they are absent.
	all.Streams[0].KeyringFile, all.Streams[0].Kind = "", ""
	if diff := cmp.Diff(s.Effective(), all.Effective()); diff != "" {
		t.Errorf("with what is commented out: %s", diff)
	}
	named := map[string]bool{}
	for _, m := range keyLine.FindAllStringSubmatch(text, -1) {
		named[m[1]] = true
	}
	for _, key := range knownKeys(t) {
		if !named[key] && !strings.Contains(text, key+": ") {
			t.Errorf("the example does not name %s", key)
		}
	}
}

// knownKeys returns the keys of all levels, as the errors about unknown ones
// list them.
func knownKeys(t *testing.T) []string {
	_, err := Parse("f", []byte("unknown: 1\nstore: {unknown: 1}\nserve: {unknown: 1, tls: {unknown: 1}, forward_proxy: {unknown: 1}}\n"+
		"streams: [{unknown: 1, keep: {unknown: 1}, sync: {unknown: 1}}]\n"))
	all, ok := errors.AsType[Errors](err)
	if !ok || len(all) != 8 {
		t.Fatalf("error %v", err)
	}
	var keys []string
	for _, e := range all {
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(e.Remedy, -1) {
			keys = append(keys, m[1])
		}
	}
	return keys
}

// What is rendered says the same when it is read again, and renders the same.
func TestRender(t *testing.T) {
	for _, text := range []string{
		"", string(Example()), plain, "store: {cache_limit: 0}", "store: {cache_limit: 1500000001}", "store: {scrub: 0s}", "store: {scrub: 1w}",
		"serve: {forward_proxy: {listen: ':3128', allow: ['archive.ubuntu.com:80', http://a/b/]}}",
		"store: {path: /a b, reserve: 0}\nserve: {listen: ':1', on_failure: \"a: 'b' \\\"c\\\" # \\\\ \\t\\n é\"}",
		"store: {path: x, reserve: 1500000001}\n" + plain + "    limit: 1500kB\n    sync: {at: 03:15, jitter: 90s}\n    maas: 3.8\n    kind: plain\n    bootloaders: false\n    also: []\n    allow_unsigned: true\n",
		"streams: [{name: '3.8', upstream: [http://h/x%20y/streams/v1/a%25b.json, 'https://u@[::1]:80/streams/v1/a%25b.json'], path: /x/, select: [\"a='b c'\", 'release~^[a-z]+$']}]",
		"streams: [{name: 'null', upstream: http://h, select: ['a!=true']}]",
	} {
		s := parse(t, text)
		checkRender(t, s)
	}
}

// checkRender is what TestRender and FuzzParse want of every site.
func checkRender(t *testing.T, s *Site) {
	t.Helper()
	if bytes.Contains(s.Render(), []byte("…")) { // a password, or what looks like one
		return
	}
	again, err := Parse(s.File, s.Render())
	if err != nil {
		t.Errorf("%s\n%v", s.Render(), err)
		return
	}
	if diff := cmp.Diff(s.Effective(), again.Effective()); diff != "" {
		t.Errorf("%s\n%s", s.Render(), diff)
	}
	if diff := cmp.Diff(s.Streams, again.Streams); diff != "" && len(s.Streams) > 0 {
		t.Errorf("%s\n%s", s.Render(), diff)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "1B": 1, "1 KiB": 1024, "1kB": 1000, "1KB": 1000, "100MB": 1e8, "50GiB": 50 << 30, "1.5GiB": 3 << 29, "0.1KiB": 102,
		"8191PiB": 8191 << 50, "9223372036854775807": 1<<63 - 1,
		"": -1, "-1": -1, "1.5": -1, "1.5B": -1, "1K": -1, "1G": -1, "1gib": -1, "GiB": -1, "1  GiB": -1, " 1GiB": -1, "1GiB ": -1, "1e3": -1, "0x10": -1,
		"9223372036854775808": -1, "8192PiB": -1, "99999999999999999999PiB": -1, "1_000": -1, ".5GiB": -1, "1.GiB": -1, "1,5GiB": -1,
	} {
		n, ok := parseSize(text)
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d, %t, want %d", text, n, ok, want)
		}
		if ok {
			if again, ok := parseSize(sizeText(n)); !ok || again != n {
				t.Errorf("%d is shown as %s", n, sizeText(n))
			}
		}
	}
}

func TestDurations(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0s": 0, "36h": 36 * time.Hour, "1d": day, "2w": 14 * day, "1w2d3h4m5s": 9*day + 3*time.Hour + 4*time.Minute + 5*time.Second, "1.5h": 90 * time.Minute,
		"90m": 90 * time.Minute, "10m0s": 10 * time.Minute, "520w": 520 * 7 * day,
		"": -1, "0": -1, "60": -1, "1d0": -1, "-1h": -1, "+1h": -1, "1.5d": -1, "1h1d": -1, "1y": -1, "1 h": -1, "521w": -1, "9999w9999d": -1, "520w1s": -1, "1M": -1,
		"99999999999999999999h": -1,
	} {
		d, ok := parseDuration(text)
		if ok != (want >= 0) || ok && d != want {
			t.Errorf("%q: %s, %t, want %s", text, d, ok, want)
		}
		if ok {
			if again, ok := parseDuration(mirror.DurationText(d)); !ok || again != d {
				t.Errorf("%s is shown as %s", d, mirror.DurationText(d))
			}
		}
	}
}

// No more errors are reported than an operator reads at once.
func TestManyProblems(t *testing.T) {
	var text strings.Builder
	for i := range 50 {
		fmt.Fprintf(&text, "unknown%d: 1\n", i)
	}
	_, err := Parse("f", []byte(text.String()))
	all, ok := errors.AsType[Errors](err)
	if !ok || len(all) != maxProblems+1 {
		t.Fatalf("%d errors: %v", len(all), err)
	}
	if got, want := all[maxProblems].Error(), "f: more is wrong than these 20 (30 not shown)"; got != want {
		t.Errorf("the last is %q, want %q", got, want)
	}
}

// An error has the place and the key for those who do not read its text.
func TestErrorFields(t *testing.T) {
	_, err := Parse("f", []byte(plain+"    sync: {every: 1s}\n"))
	got, ok := errors.AsType[*Error](err)
	want := Error{File: "f", Line: 5, Column: 19, Key: "streams[0].sync.every", Problem: "`every` is \"1s\"", Remedy: "want a duration from 1m to 520w, as in `every: 1h`"}
	if !ok || got.File != want.File || got.Line != want.Line || got.Column != want.Column || got.Key != want.Key || got.Problem != want.Problem || got.Remedy != want.Remedy {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A file that cannot be read is an error with its name, and one without end is
// read up to a bound.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "oxbow.yaml")
	if _, err := Read(file); !errors.Is(err, fs.ErrNotExist) || err.Error() != file+": cannot read the configuration: no such file or directory" {
		t.Errorf("a file that is absent: %v", err)
	}
	if _, err := Read(dir); err == nil || err.Error() != dir+": cannot read the configuration: is a directory" {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Read("/dev/zero"); err == nil || err.Error() != "/dev/zero: the configuration is longer than 1MiB" {
		t.Errorf("zeros without end: %v", err)
	}
	if err := os.WriteFile(file, []byte("store: {path: x}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := Read(file); err != nil || s.File != file || s.Store.Path != filepath.Join(dir, "x") {
		t.Errorf("%+v, %v", s, err)
	}
}

// What is made to keep the parser busy is refused in time.
func TestBusyParser(t *testing.T) {
	const length = 128 << 10
	for name, text := range map[string]string{
		"lists":       strings.Repeat("[", length),
		"mappings":    strings.Repeat("{a: ", length/4),
		"dashes":      strings.Repeat("- ", length/2),
		"anchors":     strings.Repeat("&a ", length/3),
		"keys":        strings.Repeat("k: v\n", length/5),
		"open quote":  "a: \"" + strings.Repeat("x\n", length/2),
		"indents":     indents(1300),
		"long line":   "{" + strings.Repeat("k: http://u:p@h, ", maxTokens/4-1) + "}",
		"most tokens": strings.Repeat("k: v\n", maxTokens/3-1),
	} {
		began := time.Now()
		_, err := Parse("f", []byte(text))
		if took := time.Since(began); err == nil || took > 20*time.Second {
			t.Errorf("%s: %.100v after %s", name, err, took)
		}
	}
}

// indents returns n mappings in each other.
func indents(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// Any text is a valid site or an error that has a text, and no password that was
// put into a URL of it is shown.
func FuzzParse(f *testing.F) {
	f.Add("")
	f.Add(string(Example()))
	f.Add(plain + "    sync: {at: 03:15}\n    also: [/x/]\n    limit: 1MiB\n    kind: plain\n    keep: {last: 1}\n")
	f.Add("a: &b [*b]\n---\n? x\n: !!t |\n  y\n...\n")
	f.Add("serve: {listen: '[::1]:80', on_failure: \"\\u2028\\x01\\\"\"}\nstore: {reserve: 1.5 GiB}\n")
	f.Add("streams: [{name: a, upstream: 'http://u:s3cret@h/a', x: 1}]")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("/f", []byte(text))
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || err.Error() == "" {
				t.Errorf("error %#v", err)
			}
			return
		}
		for _, st := range s.Streams {
			if err := st.Validate(); err != nil {
				t.Error(err)
			}
		}
		checkRender(t, s)
	})
}
