package site

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/goccy/go-yaml/ast"

	"oxbow/mirror"
	"oxbow/streams"
)

const (
	maxKeyring = 4 << 20  // bytes of a keyring's file
	minLimit   = 16 << 10 // bytes a second; with less, upstream ends the connection before a file is there
	minEvery   = time.Minute
)

const exampleURL = "https://images.maas.io/ephemeral-v3/stable"

// A definition is a stream as it is read, with the places that are compared
// with those of other streams.
type definition struct {
	Stream
	name   value
	claims []claim
}

// streams reads the list of streams and compares them with each other.
func (r *reader) streams(v value) []Stream {
	var all []Stream
	var claims []claim
	names := map[string]value{}
	if _, ok := v.node.(*ast.SequenceNode); !ok {
		r.wrong(v, "a list, each stream of it with a dash", "[{name: stable, upstream: ...}]")
		return nil
	}
	for _, e := range r.list(v) {
		d := r.stream(e)
		all, claims = append(all, d.Stream), append(claims, d.claims...)
		if d.name.absent() {
			continue
		}
		if before, twice := names[d.Name]; twice {
			r.refuse(d.name, fmt.Sprintf("two streams are named `%s`", d.Name), fmt.Sprintf("the other is in line %d", before.at.line))
			continue
		}
		names[d.Name] = d.name
	}
	r.checkClaims(claims)
	return all
}

func (r *reader) stream(v value) definition {
	v.key = v.path // an element has no key of its own
	before := len(r.problems)
	m := r.mapping(v, "name", "upstream", "keyring", "allow_unsigned", "path", "also", "kind", "maas", "select", "bootloaders",
		"hold", "max_versions", "advertise", "offline", "keep", "sync", "limit")
	if m == nil {
		return definition{}
	}
	if len(r.problems) == before { // else a key that is amiss may be the one that is mistyped
		r.required(v, m)
	}
	var d definition
	r.identity(&d, m)
	r.trust(&d, m)
	r.wanted(&d, m)
	r.bounds(&d, m)
	d.Schedule = r.schedule(m["sync"])
	if d.Offline && !m["sync"].absent() {
		r.warn(m["sync"], "no effect: the stream is offline")
	}
	return d
}

// required refuses a stream without the keys that no stream can do without.
func (r *reader) required(v value, m fields) {
	for _, need := range [][2]string{{"name", "stable"}, {"upstream", exampleURL}} {
		if m[need[0]].absent() {
			r.problem(v.at, v.path, fmt.Sprintf("a stream has no `%s`", need[0]), fmt.Sprintf("give it one, as in `%s: %s`", need[0], need[1]))
		}
	}
}

// identity reads what a stream is called, where it comes from and under which
// paths it is served.
func (r *reader) identity(d *definition, m fields) {
	if s, ok := r.text(m["name"], "a name", "stable"); ok {
		if d.Name = s; mirror.ValidName(s) {
			d.name = m["name"]
		} else {
			r.refuse(m["name"], fmt.Sprintf("`name` is %q", shortened(s)), mirror.NameRule)
		}
	}
	usual := r.upstream(d, m["upstream"])
	r.paths(d, m, usual)
}

// upstream reads the URLs of a stream and returns the path that it is served
// under where nothing else is said.
func (r *reader) upstream(d *definition, v value) (usual string) {
	const want = "a URL or a list of them"
	urls, at := r.texts(v, want, exampleURL)
	if len(r.list(v)) == 0 && !v.absent() {
		r.wrong(v, want, exampleURL)
	}
	for i, u := range urls {
		s, err := mirror.NewStream(u)
		switch {
		case err != nil:
			r.refuse(at[i], err.Error(), fmt.Sprintf("want one as in `upstream: %s`", exampleURL))
			continue
		case len(d.Upstream) == 0:
			d.Index, usual = s.Index, s.Path
		case s.Index != d.Index:
			r.refuse(at[i], "the upstreams of a stream name different indexes", "give all of them the same one, or none")
		}
		d.Upstream = append(d.Upstream, s.Upstream...)
	}
	return usual
}

func (r *reader) trust(d *definition, m fields) {
	d.AllowUnsigned, _ = r.boolean(m["allow_unsigned"])
	v := m["keyring"]
	if d.KeyringFile = r.fileName(v, "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg"); d.KeyringFile == "" {
		return
	}
	// Where unsigned metadata is accepted, an empty keyring stands for none at
	// all: one that is named has to be read, or no signature would be checked.
	if mirror.IsDistKeyring(d.KeyringFile) && !d.AllowUnsigned {
		return
	}
	const remedy = "write a keyring with `gpg --export > FILE`, or remove the key to use the distribution's"
	data, ok := r.content(v, d.KeyringFile, maxKeyring)
	switch {
	case !ok:
		return
	case len(data) == 0: // which would stand for Ubuntu's keys
		r.refuse(v, fmt.Sprintf("`keyring`: %s is empty", d.KeyringFile), remedy)
		return
	}
	if _, err := streams.ReadKeyring(data); err != nil {
		r.refuse(v, fmt.Sprintf("`keyring`: cannot use %s: %v", d.KeyringFile, err), remedy)
		return
	}
	d.Keyring = data
}

// content returns what is in a file that a value names: a regular one of at most
// limit bytes.
func (r *reader) content(v value, name string, limit int64) ([]byte, bool) {
	data, err := readRegular(name, limit)
	if err != nil {
		r.refuse(v, fmt.Sprintf("`%s`: cannot read %s: %s", v.key, name, reason(err)), "")
		return nil, false
	}
	return data, true
}

func readRegular(name string, limit int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // opening a FIFO would wait for its writer
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it is longer than %s", sizeText(limit))
	}
	return data, err
}

// wanted reads what of upstream is published, and for whom.
func (r *reader) wanted(d *definition, m fields) {
	d.Kind = mirror.Kind(r.oneOf(m["kind"], string(mirror.KindMAAS), string(mirror.KindPlain)))
	d.Profile = streams.Profile(r.oneOf(m["maas"], string(streams.All), string(streams.Legacy), string(streams.V38)))
	if d.Profile == streams.All {
		d.Profile = "" // one definition, one form: a stream without the key is the same
	}
	if on, ok := r.boolean(m["bootloaders"]); ok {
		d.NoBootloaders = !on
	}
	d.Select = r.filters(m["select"])
	d.Advertise = r.advertise(m["advertise"], len(r.list(m["select"])) == 0)
	d.Offline, _ = r.boolean(m["offline"])
	if hold := r.filters(m["hold"]); len(hold) > 0 {
		if d.Hold = hold; d.Advertise == mirror.AdvertiseAll {
			r.refuse(m["hold"], "no version can be held back where all of upstream's is advertised", "say `advertise: selected`, or remove the key")
		}
	}
}

// advertise reads what clients are told of a stream: of one without a selection, which
// would be mirrored whole otherwise, all of upstream's.
func (r *reader) advertise(v value, everything bool) mirror.Advertise {
	said := mirror.Advertise(r.oneOf(v, string(mirror.AdvertiseSelected), string(mirror.AdvertiseAll)))
	if said == mirror.AdvertiseAll || v.absent() && everything {
		return mirror.AdvertiseAll
	}
	return "" // one definition, one form
}

// filters returns selections, all of which can be read.
func (r *reader) filters(v value) []string {
	texts, at := r.texts(v, "filters or a list of them", `"release~(jammy|noble) arch=amd64"`)
	for i, text := range texts {
		if _, err := streams.ParseSelection(text); err != nil {
			r.refuse(at[i], err.Error(), "")
		}
	}
	return texts
}

func (r *reader) bounds(d *definition, m fields) {
	d.Keep = r.keep(m["keep"])
	d.MaxVersions = r.number(m["max_versions"], "2")
	if n, ok := r.size(m["limit"], "10MiB"); ok {
		if d.Limit = n; n > 0 && n < minLimit {
			r.refuse(m["limit"], fmt.Sprintf("`limit` is %d bytes a second", n), fmt.Sprintf("want %s or more, as in `limit: 10MiB`; 0 is no limit", sizeText(minLimit)))
		}
	}
}

// keep reads which superseded snapshots stay; what it does not name is the default.
func (r *reader) keep(v value) mirror.Keep {
	if v.absent() {
		return mirror.Keep{}
	}
	k := mirror.DefaultKeep
	m := r.mapping(v, "last", "daily", "weekly", "grace")
	for key, n := range map[string]*int{"last": &k.Last, "daily": &k.Daily, "weekly": &k.Weekly} {
		if !m[key].absent() {
			*n = r.number(m[key], "7")
		}
	}
	if !m["last"].absent() && k.Last == 0 {
		r.refuse(m["last"], "`last` is 0", "want 1 or more: the current snapshot always stays")
	}
	if d, ok := r.duration(m["grace"], 0, "24h"); ok {
		k.Grace = d
	}
	if k == mirror.DefaultKeep {
		return mirror.Keep{} // the same as if nothing were said
	}
	return k
}

// schedule reads when a stream is synced by itself.
func (r *reader) schedule(v value) mirror.Schedule {
	before := len(r.problems)
	m := r.mapping(v, "every", "jitter", "at")
	if m == nil || len(r.problems) > before {
		return mirror.Schedule{}
	}
	var s mirror.Schedule
	s.Every, _ = r.duration(m["every"], minEvery, "1h")
	s.Jitter, _ = r.duration(m["jitter"], 0, "5m")
	s.At = r.clock(m["at"])
	period, of := s.Every, "`every`"
	if !m["at"].absent() {
		period, of = 24*time.Hour, "a day"
	}
	switch {
	case m["every"].absent() && m["at"].absent():
		r.problem(v.at, v.path, "`sync` has neither `every` nor `at`", "say one, as in `sync: {every: 1h}`; without `sync` a stream is synced only when a command says so")
	case !m["every"].absent() && !m["at"].absent():
		r.problem(m["at"].at, m["at"].path, "`at` and `every` exclude each other", "remove one")
	case period > 0 && s.Jitter >= period:
		r.refuse(m["jitter"], "`jitter` is not shorter than "+of, "want a shorter one, as in `jitter: 5m`")
	}
	return s
}
