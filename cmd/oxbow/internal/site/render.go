package site

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

// Effective is what a [Site] comes to, defaults filled in, with the keys of the
// file. Passwords of URLs are left out.
type Effective struct {
	File    string            `json:"file"` // "": there is none
	Store   EffectiveStore    `json:"store"`
	Serve   EffectiveServe    `json:"serve"`
	Streams []EffectiveStream `json:"streams"`
}

// EffectiveStore is the part `store` of the file.
type EffectiveStore struct {
	Path       string `json:"path"`
	CacheLimit int64  `json:"cache_limit"` // bytes; 0 is none
	Reserve    int64  `json:"reserve"`     // bytes; 0 is none
	Scrub      string `json:"scrub"`       // 0s: never
}

// EffectiveServe is the part `serve` of the file.
type EffectiveServe struct {
	Listen string `json:"listen"`
	TLS    struct {
		Cert string `json:"cert"`
		Key  string `json:"key"`
	} `json:"tls"`
	TokenFile    string `json:"token_file"`
	OnFailure    string `json:"on_failure"`
	ForwardProxy struct {
		Listen string   `json:"listen"` // "": there is none
		Allow  []string `json:"allow"`
	} `json:"forward_proxy"`
}

// EffectiveStream is a stream of the file.
type EffectiveStream struct {
	Name          string           `json:"name"`
	Upstream      []string         `json:"upstream"`
	Keyring       string           `json:"keyring"` // "": the distribution's
	AllowUnsigned bool             `json:"allow_unsigned"`
	Path          string           `json:"path"`
	Also          []string         `json:"also"`
	Kind          mirror.Kind      `json:"kind"` // "": as upstream's metadata says
	MAAS          streams.Profile  `json:"maas"`
	Select        []string         `json:"select"` // none: everything; nothing beforehand, where all is advertised
	Bootloaders   bool             `json:"bootloaders"`
	Hold          []string         `json:"hold"`
	MaxVersions   int              `json:"max_versions"` // 0: all
	Advertise     mirror.Advertise `json:"advertise"`
	Offline       bool             `json:"offline"`
	Keep          EffectiveKeep    `json:"keep"`
	Sync          *EffectiveSync   `json:"sync"` // null: only by command
	Limit         int64            `json:"limit"`
}

// EffectiveKeep says which superseded snapshots of a stream stay.
type EffectiveKeep struct {
	Last   int    `json:"last"`
	Daily  int    `json:"daily"`
	Weekly int    `json:"weekly"`
	Grace  string `json:"grace"`
}

// EffectiveSync is when a stream is synced by itself.
type EffectiveSync struct {
	Every  string `json:"every,omitempty"`
	At     string `json:"at,omitempty"`
	Jitter string `json:"jitter"`
}

// Effective returns what s comes to.
func (s *Site) Effective() Effective {
	e := Effective{File: s.File, Streams: []EffectiveStream{}}
	e.Store.Path = cmp.Or(s.Store.Path, DefaultStore)
	e.Store.CacheLimit = max(cmp.Or(s.Store.CacheLimit, cache.DefaultCacheLimit), 0)
	e.Store.Reserve = max(cmp.Or(s.Store.Reserve, cache.DefaultReserve), 0)
	e.Store.Scrub = mirror.DurationText(max(cmp.Or(s.Store.Scrub, DefaultScrub), 0))
	e.Serve.Listen = cmp.Or(s.Serve.Listen, DefaultListen)
	e.Serve.TLS.Cert, e.Serve.TLS.Key = s.Serve.TLS.Cert, s.Serve.TLS.Key
	e.Serve.TokenFile, e.Serve.OnFailure = s.Serve.TokenFile, s.Serve.OnFailure
	e.Serve.ForwardProxy.Listen, e.Serve.ForwardProxy.Allow = s.Serve.Forward.Listen, []string{}
	for _, a := range s.Serve.Forward.Allow {
		e.Serve.ForwardProxy.Allow = append(e.Serve.ForwardProxy.Allow, a.String())
	}
	for _, st := range s.Streams {
		e.Streams = append(e.Streams, st.effective())
	}
	return e
}

func (s Stream) effective() EffectiveStream {
	e := EffectiveStream{
		Name: s.Name, Upstream: []string{}, Keyring: s.KeyringFile, AllowUnsigned: s.AllowUnsigned, Path: s.Path, Also: append([]string{}, s.Also...),
		Kind: s.Kind, MAAS: cmp.Or(s.Profile, streams.All), Select: append([]string{}, s.Select...), Bootloaders: !s.NoBootloaders, Hold: append([]string{}, s.Hold...),
		MaxVersions: s.MaxVersions, Advertise: cmp.Or(s.Advertise, mirror.AdvertiseSelected), Offline: s.Offline, Limit: s.Limit, Keep: ViewKeep(s.Keep),
	}
	for _, u := range s.Upstream {
		e.Upstream = append(e.Upstream, shownURL(u, s.Index))
	}
	if !s.Schedule.IsZero() {
		e.Sync = &EffectiveSync{At: s.Schedule.At, Jitter: mirror.DurationText(s.Schedule.Jitter)}
		if s.Schedule.Every > 0 {
			e.Sync.Every = mirror.DurationText(s.Schedule.Every)
		}
	}
	return e
}

// ViewKeep returns what k comes to.
func ViewKeep(k mirror.Keep) EffectiveKeep {
	k = k.OrDefault()
	return EffectiveKeep{k.Last, k.Daily, k.Weekly, mirror.DurationText(k.Grace)}
}

// shownURL returns a URL of a stream as the file may have it, with "…" for its
// password.
func shownURL(base string, index streams.Path) string {
	if index != "" {
		base += "/" + index.Escaped()
	}
	u, err := url.Parse(base)
	if err != nil {
		return withoutSecrets(base)
	}
	if _, secret := u.User.Password(); !secret {
		return base
	}
	user := url.User(u.User.Username()).String()
	u.User = nil
	return strings.Replace(u.String(), "://", "://"+user+":…@", 1)
}

// Render returns the effective configuration as a file that says the same.
func (s *Site) Render() []byte {
	e := s.Effective()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("store:")
	line("  path: %s", yamlText(e.Store.Path))
	line("  cache_limit: %s", sizeText(e.Store.CacheLimit))
	line("  reserve: %s", sizeText(e.Store.Reserve))
	line("  scrub: %s", e.Store.Scrub)
	line("serve:")
	line("  listen: %s", yamlText(e.Serve.Listen))
	line("  tls: {cert: %s, key: %s}", yamlText(e.Serve.TLS.Cert), yamlText(e.Serve.TLS.Key))
	line("  token_file: %s", yamlText(e.Serve.TokenFile))
	line("  on_failure: %s", yamlText(e.Serve.OnFailure))
	line("  forward_proxy: {listen: %s, allow: %s}", yamlText(e.Serve.ForwardProxy.Listen), yamlList(e.Serve.ForwardProxy.Allow))
	if len(e.Streams) == 0 {
		line("streams: []")
		return []byte(b.String())
	}
	line("streams:")
	for _, st := range e.Streams {
		st.render(line)
	}
	return []byte(b.String())
}

func (s EffectiveStream) render(line func(format string, args ...any)) {
	line("  - name: %s", yamlText(s.Name))
	line("    upstream: %s", yamlList(s.Upstream))
	if s.Keyring == "" {
		line("    # keyring: the distribution's Ubuntu cloud image keyring")
	} else {
		line("    keyring: %s", yamlText(s.Keyring))
	}
	line("    allow_unsigned: %t", s.AllowUnsigned)
	line("    path: %s", yamlText(s.Path))
	line("    also: %s", yamlList(s.Also))
	if s.Kind == "" {
		line("    # kind: as upstream's metadata says")
	} else {
		line("    kind: %s", s.Kind)
	}
	line("    maas: %s", yamlText(string(s.MAAS)))
	line("    select: %s", yamlList(s.Select))
	line("    bootloaders: %t", s.Bootloaders)
	line("    hold: %s", yamlList(s.Hold))
	line("    max_versions: %d", s.MaxVersions)
	line("    advertise: %s", s.Advertise)
	line("    offline: %t", s.Offline)
	switch {
	case s.Sync == nil:
		line("    # sync: only by command")
	case s.Sync.At != "":
		line("    sync: {at: %s, jitter: %s}", yamlText(s.Sync.At), s.Sync.Jitter)
	default:
		line("    sync: {every: %s, jitter: %s}", s.Sync.Every, s.Sync.Jitter)
	}
	line("    keep: {last: %d, daily: %d, weekly: %d, grace: %s}", s.Keep.Last, s.Keep.Daily, s.Keep.Weekly, s.Keep.Grace)
	line("    limit: %s", sizeText(s.Limit))
}

// bareText are texts that no reader of YAML takes for anything else.
var bareText = regexp.MustCompile(`^(?:/[A-Za-z0-9_./-]+|https?://[A-Za-z0-9_./:-]*[A-Za-z0-9_/-])$`)

// yamlText returns a text as YAML: quoted as JSON, unless there is no doubt.
func yamlText(s string) string {
	if bareText.MatchString(s) || mirror.ValidName(s) && plainWord.MatchString(s) {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// plainWord are words that begin as no number does. YAML's words for true,
// false and null are shorter, and quoted.
var plainWord = regexp.MustCompile(`^[a-z][a-z0-9_.-]{5,}$`)

func yamlList(all []string) string {
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = yamlText(s)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}
