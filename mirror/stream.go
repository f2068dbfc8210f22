package mirror

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// A Kind says which clients a stream is for.
type Kind string

const (
	KindMAAS  Kind = "maas"  // published metadata keeps MAAS' rules, boot loaders included
	KindPlain Kind = "plain" // simplestreams' own rules only
)

// An Advertise says what clients are told of a stream.
type Advertise string

const (
	// AdvertiseSelected: what is here, in documents of the site's own. The empty
	// Advertise is the same.
	AdvertiseSelected Advertise = "selected"
	// AdvertiseAll: all of upstream's, in its own documents. What is selected is
	// here beforehand; any other file may be pulled through.
	AdvertiseAll Advertise = "all"
)

// A Stream is an upstream tree and what is wanted of it: the definition that
// `oxbow mirror sync URL` makes and STORE/streams/<name>.json keeps.
type Stream struct {
	// Name is the stream's name in commands, logs and the store.
	Name string `json:"name"`

	// Upstream are the base URLs of the tree, best first, without a trailing slash. Only a
	// stream that is Offline may have none.
	Upstream []string `json:"upstream"`

	// Index is the path of upstream's index. If empty, it is the signed
	// streams/v1/index.sjson, or, when AllowUnsigned is set and that is absent,
	// streams/v1/index.json.
	Index streams.Path `json:"index,omitempty"`

	// Keyring holds the public keys that upstream may sign with. If empty, the
	// distribution's Ubuntu cloud image keyring is read at each sync.
	Keyring []byte `json:"keyring,omitempty"`

	// AllowUnsigned accepts metadata that nobody signed. A signature that is
	// there and can be checked must still be good.
	AllowUnsigned bool `json:"allow_unsigned,omitempty"`

	// Path is the URL path the stream is served under; it begins and ends with
	// a slash. Also are further ones that answer the same.
	Path string   `json:"path"`
	Also []string `json:"also,omitempty"`

	// Kind is found out from upstream's content ids when empty.
	Kind Kind `json:"kind,omitempty"`

	// Profile names the MAAS versions whose rules the published metadata must
	// keep. If empty, it is streams.All.
	Profile streams.Profile `json:"maas,omitempty"`

	// Advertise is what clients are told of the stream.
	Advertise Advertise `json:"advertise,omitempty"`

	// Select are selections, one string of filters each. If empty, everything
	// is wanted; nothing beforehand, where all of upstream's is advertised.
	Select []string `json:"select,omitempty"`

	// Hold are selections of versions that are not published, one string of filters
	// each: a product stays at its newest version that none of them matches.
	Hold []string `json:"hold,omitempty"`

	// NoBootloaders leaves out the boot loaders that MAAS asks for whatever
	// was selected.
	NoBootloaders bool `json:"no_bootloaders,omitempty"`

	// MaxVersions bounds the versions kept of a product. If zero, all that
	// upstream lists are kept.
	MaxVersions int `json:"max_versions,omitempty"`

	// Keep says which superseded snapshots stay. If zero, it is [DefaultKeep].
	Keep Keep `json:"keep,omitzero"`

	// Limit bounds what syncs of the stream take from upstream, in bytes a second,
	// and apart from them what is pulled through. If zero, there is no bound.
	Limit int64 `json:"limit,omitempty"`

	// Offline keeps the stream as it is: its upstream is never asked.
	Offline bool `json:"offline,omitempty"`

	// Dropped are products that a sync does without, unless upstream has them. It is no part of a definition.
	Dropped []string `json:"-"`
}

// all reports whether all of upstream's is advertised.
func (s Stream) all() bool { return s.Advertise == AdvertiseAll }

// DefaultStream returns the stream that is served where nobody said what to: all of
// MAAS' own images, nothing of it beforehand.
func DefaultStream() Stream {
	s, err := NewStream("https://images.maas.io/ephemeral-v3/stable")
	if err != nil {
		panic("internal error: " + err.Error())
	}
	s.Advertise = AdvertiseAll
	return s
}

var (
	validName  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	indexInURL = regexp.MustCompile(`^(.*?)/*(streams/v1/[^/]*\.s?json)$`)
)

// NameRule says which names streams may have.
const NameRule = "a name is up to 64 of a-z, 0-9, dot, dash and underscore, and begins with a letter or digit"

// ValidName reports whether a stream may have that name.
func ValidName(name string) bool { return validName.MatchString(name) }

// NewStream returns the stream that `oxbow mirror sync URL` defines: named
// after the URL's last path element (or its host) and served under the URL's
// own path (or /NAME/). A URL may name its index, as in
// https://host/tree/streams/v1/index.json; without, it is the signed one.
func NewStream(rawURL string) (Stream, error) {
	u, err := url.Parse(rawURL)
	if err != nil { // which quotes the URL and so a password that may be in it
		return Stream{}, errors.New("cannot use the URL as an upstream: it is malformed")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return Stream{}, fmt.Errorf("cannot use %q as an upstream: an upstream is an http:// or https:// URL", upstream.Display(u))
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return Stream{}, fmt.Errorf("cannot use %q as an upstream: it has a query or a fragment, which file URLs cannot carry", upstream.Display(u))
	}
	var s Stream
	if m := indexInURL.FindStringSubmatch(u.Path); m != nil {
		s.Index = streams.Path(m[2])
		u.Path = m[1]
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	s.Upstream = []string{u.String()}
	s.Name = strings.ToLower(path.Base(u.Path))
	if u.Path == "" {
		s.Name = strings.ToLower(u.Hostname())
	}
	s.Path = path.Clean("/"+u.Path) + "/"
	if u.Path == "" {
		s.Path = "/" + s.Name + "/"
	}
	s.Also = Aliases(s.Path)
	return s, nil
}

// Aliases returns the further paths that a stream served under path answers
// where its definition does not say. Canonical retired the daily stream and
// redirects it; clients that do not follow redirects, and old configurations,
// still ask for it.
func Aliases(path string) []string {
	if tree, ok := strings.CutSuffix(path, "/ephemeral-v3/stable/"); ok {
		return []string{tree + "/ephemeral-v3/daily/"}
	}
	return nil
}

// Validate reports the first thing wrong with the definition.
func (s Stream) Validate() error {
	if !ValidName(s.Name) {
		return fmt.Errorf("stream name %q is not usable: %s; give one with --name", s.Name, NameRule)
	}
	for _, p := range append([]string{s.Path}, s.Also...) {
		if err := CheckPath(p); err != nil {
			return fmt.Errorf("stream %s: %w; give another with --path", s.Name, err)
		}
	}
	if len(s.Upstream) == 0 && !s.Offline {
		return fmt.Errorf("stream %s has no upstream", s.Name)
	}
	switch s.Advertise {
	case "", AdvertiseSelected, AdvertiseAll:
	default:
		return fmt.Errorf("stream %s advertises %q; it is %s or %s", s.Name, s.Advertise, AdvertiseSelected, AdvertiseAll)
	}
	if s.MaxVersions < 0 {
		return fmt.Errorf("stream %s: the number of versions to keep is %d; it is 0 (all) or more", s.Name, s.MaxVersions)
	}
	if s.Limit < 0 {
		return fmt.Errorf("stream %s: the limit is %d bytes a second; it is 0 (none) or more", s.Name, s.Limit)
	}
	for _, texts := range [][]string{s.Select, s.Hold} {
		if _, err := parseSelections(texts); err != nil {
			return fmt.Errorf("stream %s: %w", s.Name, err)
		}
	}
	if s.all() && len(s.Hold) > 0 {
		return fmt.Errorf("stream %s: %w", s.Name, errHoldAll)
	}
	if len(s.Keyring) > 0 {
		if _, err := streams.ReadKeyring(s.Keyring); err != nil {
			return fmt.Errorf("stream %s: cannot use its keyring: %w", s.Name, err)
		}
	}
	return nil
}

// same reports whether s and t are the same definition.
func (s Stream) same(t Stream) bool {
	a, _ := json.Marshal(s)
	b, _ := json.Marshal(t)
	return bytes.Equal(a, b)
}

// CheckPath says why no stream can be served under a path, if that is so.
func CheckPath(p string) error {
	switch inner := strings.Trim(p, "/"); {
	case !strings.HasPrefix(p, "/") || !strings.HasSuffix(p, "/") || !fs.ValidPath(inner) || inner == "." || strings.ContainsAny(p, "\\%?#") || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return fmt.Errorf("path %q is not usable: a path begins and ends with a slash and has no empty, dot or escaped parts", p)
	case inner == "-" || strings.HasPrefix(inner, "-/"):
		return fmt.Errorf("path %q is not usable: /-/ is oxbow's own", p)
	}
	return nil
}

// errHoldAll: clients read upstream's own documents.
var errHoldAll = errors.New("no version can be held back where all of upstream's is advertised; advertise what is selected")

func parseSelections(texts []string) (streams.Selections, error) {
	var all streams.Selections
	for _, text := range texts {
		sel, err := streams.ParseSelection(text)
		if err != nil {
			return nil, err
		}
		all = append(all, sel)
	}
	return all, nil
}

// wants is the part of the definition that decides what is published, and who is
// trusted with it: a sync of the same upstream documents has nothing to do while it
// stays the same.
func (s Stream) wants() string {
	parts := []any{s.Select, s.NoBootloaders, s.MaxVersions, s.Kind, s.Profile, s.AllowUnsigned, cache.Sum(s.Keyring).String()}
	if s.all() {
		parts = append(parts, s.Advertise)
	}
	if len(s.Hold) > 0 {
		parts = append(parts, s.Hold)
	}
	if len(s.Dropped) > 0 {
		parts = append(parts, "dropped", s.Dropped)
	}
	b, _ := json.Marshal(parts)
	return string(b)
}

// state is the content of STORE/streams/<name>.json.
type state struct {
	Stream   Stream    `json:"stream"`
	Accepted accepted  `json:"accepted,omitzero"`
	Last     *Last     `json:"last,omitempty"`
	Held     *Held     `json:"held,omitempty"`     // by a rollback; nil: syncs go on
	Undo     *undo     `json:"undo,omitempty"`     // of the rollback that began last
	Hold     []string  `json:"hold,omitempty"`     // versions held back on the command line, as in Stream.Hold
	Imported *Imported `json:"imported,omitempty"` // by bundles; nil: the stream is synced here
	Dropped  []string  `json:"dropped,omitempty"`  // products that the next publication does without, unless upstream offers them
}

// wanted is the stream's definition with what the command line adds to it.
func (st *state) wanted() Stream {
	s := st.Stream
	s.Hold = slices.Concat(s.Hold, st.Hold)
	s.Dropped = st.Dropped
	return s
}

// accepted is the upstream state that a sync last took as good. It moves
// forward only, unless the operator allows older (--allow-older): a signed but
// older document is what a rollback attack shows.
type accepted struct {
	Index  time.Time            `json:"index,omitzero"`
	Lists  map[string]time.Time `json:"lists,omitempty"`  // by content id
	Wants  string               `json:"wants,omitempty"`  // Stream.wants of the sync
	Key    string               `json:"key,omitempty"`    // fingerprint of the key that signed
	Whole  bool                 `json:"whole,omitempty"`  // nothing was left out
	Digest string               `json:"digest,omitempty"` // of upstream's index

	// Snapshot is the id of what was published of it. If another one is current, that is lost or damaged, and one from before is
	// served. It is empty in states from before there was such a field.
	Snapshot string `json:"snapshot,omitempty"`

	// Custody says what became of the custody that was offered with the index: custodyHere, or the circumstances in which it was
	// refused. It is empty if none was offered or another try may bring it.
	Custody string `json:"custody,omitempty"`

	// NoCustody says why none is here that was offered; empty: none was, or it is here.
	NoCustody string `json:"no_custody,omitempty"`
}

// Last says how a stream's last sync ended. A sync that finds nothing new after
// a good one leaves it alone.
type Last struct {
	Time    time.Time `json:"time"`
	Outcome Outcome   `json:"outcome"`
	Reason  string    `json:"reason,omitempty"`
}

// An Outcome is how a sync ended.
type Outcome string

const (
	OutcomeDone    Outcome = "done"
	OutcomePartial Outcome = "partial" // something selected was left out
	OutcomeFailed  Outcome = "failed"  // nothing was published
)

// ErrNoStream is returned for a name that no stream has, as a [*NoStreamError].
var ErrNoStream = errors.New("no such stream")

// A NoStreamError says which name no stream has.
type NoStreamError struct{ Name string }

func (e *NoStreamError) Error() string { return fmt.Sprintf("%v: %s", ErrNoStream, e.Name) }

// Is reports whether target is ErrNoStream.
func (e *NoStreamError) Is(target error) bool { return target == ErrNoStream }

// Streams returns the streams defined in a store, by name, and an error about
// those whose definition cannot be read. It needs no lock.
func Streams(f *cache.Files) ([]Stream, error) {
	names, err := f.Streams()
	if err != nil {
		return nil, err
	}
	var all []Stream
	var unreadable []error
	for _, name := range names {
		st, err := readState(f, name)
		switch {
		case err == nil:
			all = append(all, st.Stream)
		case !errors.Is(err, ErrNoStream): // else: snapshots of a stream that was removed
			unreadable = append(unreadable, err)
		}
	}
	return all, errors.Join(unreadable...)
}

// ReadStream returns the definition of a stream, or [ErrNoStream]. It needs no lock.
func ReadStream(f *cache.Files, name string) (Stream, error) {
	st, err := readState(f, name)
	if err != nil {
		return Stream{}, err
	}
	return st.Stream, nil
}

func readState(f *cache.Files, name string) (*state, error) {
	data, err := f.ReadState(name)
	if errors.Is(err, cache.ErrMiss) {
		return nil, &NoStreamError{name}
	}
	if err != nil {
		return nil, err
	}
	var st state
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, fmt.Errorf("cannot read the definition of stream %s: %w; `oxbow mirror sync URL --name %[1]s` makes it anew", name, err)
	}
	return &st, nil
}

func writeState(s *cache.Store, st *state) error {
	data, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	return s.WriteState(st.Stream.Name, append(data, '\n'))
}
