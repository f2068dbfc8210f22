// Package site reads a site's configuration file: the store, how it is served,
// and the streams of the site.
//
// Reading is strict. A key that is not known, a value of another type, a bound
// that makes no sense or a file that is named and not there is an [Error], which
// says where it stands and what would be right; all that can be found in one
// reading is reported together. Nothing is read as something that it may not
// have been meant to be: YAML's anchors, aliases, merge keys and tags are
// refused, and of its many booleans only true and false are taken.
//
// Keys of features that this version does not have are taken as long as what is
// published and served is what was asked for. One that would change it is
// refused, one that only bounds something gives a warning.
package site

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"oxbow/mirror"
	"oxbow/proxy"
)

const (
	// DefaultFile is read where no other is named.
	DefaultFile = "/etc/oxbow/oxbow.yaml"
	// DefaultStore is the store's directory where none is named.
	DefaultStore = "/var/lib/oxbow"
	// DefaultListen is where connections are accepted if nothing else is said.
	DefaultListen = ":8080"
	// DefaultScrub is the time in which a server reads all of the store once, if nothing else is said.
	DefaultScrub = 30 * 24 * time.Hour
)

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// A Site is what a configuration file says. The zero Site is that of no file.
type Site struct {
	File    string // where it came from; "" if there is none
	Store   Store
	Serve   Serve
	Streams []Stream

	// Warnings tell of what is accepted and has no effect, with file, line,
	// column and key.
	Warnings []string
}

// Store says where the store is and what it leaves alone.
type Store struct {
	Path       string // absolute; "" is not said
	Reserve    int64  // bytes, as cache.Options has it: 0 is not said, -1 is none
	CacheLimit int64  // bytes of what is pulled through, as cache.Options has it: 0 is not said, -1 is none

	// Scrub is the time in which a server reads all of the store once: 0 is not said, -1 is never.
	Scrub time.Duration
}

// Serve says how the streams are served.
type Serve struct {
	Listen    string // HOST:PORT; "" is not said
	TLS       TLS
	TokenFile string // absolute; "": no token is asked of clients
	OnFailure string // shell command line run after a scheduled sync that failed; "" is none
	Forward   Forward
}

// Forward says where clients that have an http_proxy are served, and what they may reach
// beside the streams.
type Forward struct {
	Listen string // HOST:PORT; "": nowhere
	Allow  []proxy.Allowed
}

// TLS names the files of a certificate and its key: both, or none for plain
// HTTP.
type TLS struct{ Cert, Key string }

// A Stream is the definition of a stream, and when it is synced.
type Stream struct {
	mirror.Stream

	// KeyringFile is where Keyring was read from, absolute. If it is one of the
	// distribution's, Keyring is empty and the file is read at each sync. If
	// "", none was named.
	KeyringFile string

	Schedule mirror.Schedule
}

// Stream returns the stream of that name.
func (s *Site) Stream(name string) (Stream, bool) {
	for _, st := range s.Streams {
		if st.Name == name {
			return st, true
		}
	}
	return Stream{}, false
}

// Read reads a configuration file. What is wrong with it, or with reading it, is
// an [*Error] or several ([Errors]).
func Read(file string) (*Site, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, &Error{File: file, Problem: "cannot read the configuration: " + reason(err), cause: err}
	}
	return Parse(file, text)
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1)) // Parse refuses what is longer
}

// Parse reads the text of a configuration file. The file is not opened: it names
// the text in messages, and relative paths in the text start from its folder.
func Parse(file string, text []byte) (*Site, error) {
	if len(text) > maxFile {
		return nil, &Error{File: file, Problem: fmt.Sprintf("the configuration is longer than %s", sizeText(maxFile))}
	}
	folder, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, &Error{File: file, Problem: "cannot tell the folder of the configuration: " + err.Error(), cause: err}
	}
	r := &reader{file: file, folder: folder}
	s := &Site{File: file}
	if root := r.document(text); root != nil {
		r.site(s, value{node: root})
	}
	if len(r.problems) > 0 {
		return nil, r.errors()
	}
	s.Warnings = r.warnings
	return s, nil
}

// site reads the keys of the top level.
func (r *reader) site(s *Site, v value) {
	m := r.mapping(v, "store", "serve", "streams")
	if v, ok := m.section("store"); ok {
		s.Store = r.store(v)
	}
	if v, ok := m.section("serve"); ok {
		s.Serve = r.serve(v)
	}
	if v, ok := m.section("streams"); ok {
		s.Streams = r.streams(v)
	}
}

func (r *reader) store(v value) Store {
	m := r.mapping(v, "path", "cache_limit", "reserve", "scrub")
	var s Store
	s.Path = r.fileName(m["path"], DefaultStore)
	if n, ok := r.size(m["reserve"], "2GiB"); ok {
		if s.Reserve = n; n == 0 {
			s.Reserve = -1
		}
	}
	if n, ok := r.size(m["cache_limit"], "50GiB"); ok {
		if s.CacheLimit = n; n == 0 {
			s.CacheLimit = -1
		}
	}
	if d, ok := r.duration(m["scrub"], 0, "30d"); ok {
		if s.Scrub = d; d == 0 {
			s.Scrub = -1
		}
	}
	return s
}
