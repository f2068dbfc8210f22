package proxy

import (
	"io/fs"
	"net/url"
	"strings"

	"oxbow/cache"
)

// A Stream is one tree to serve.
type Stream struct {
	// Name is the stream's name in the store.
	Name string
	// Path is where the tree is served, such as "/ephemeral-v3/stable/"; slashes
	// at its ends make no difference, and "/" takes every path but those below
	// "/-/", which are the server's own.
	Path string
	// Also lists further paths with the same content.
	Also []string
	// Upstream are the URLs of the tree by which clients of the forward proxy know it.
	Upstream []string
	// View says which documents are served, ours or upstream's. Clients of the forward
	// proxy get upstream's always.
	View cache.View
}

// distinct returns the names of streams, each once: one may be served in several views.
func distinct(streams []Stream) (names []string) {
	seen := make(map[string]bool, len(streams))
	for _, st := range streams {
		if !seen[st.Name] {
			seen[st.Name] = true
			names = append(names, st.Name)
		}
	}
	return names
}

// requestPath returns the path of a request target, decoded, without its leading
// slash. It is false for a target that cannot name anything: proxy-style targets,
// and paths that are not plain once decoded. One slash may end the path, as that of
// a stream does.
func requestPath(u *url.URL) (string, bool) {
	if u.Scheme != "" || u.Host != "" || u.Opaque != "" {
		return "", false
	}
	path, rooted := strings.CutPrefix(u.Path, "/")
	// RawPath is what was sent, where that differs from the usual encoding of Path;
	// EscapedPath would replace it where it is not well encoded.
	if !rooted || strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		return "", false
	}
	return path, validPath(strings.TrimSuffix(path, "/"))
}

// validPath reports whether path is relative, unambiguous and safe to print:
// no empty or dot segments, no backslash, no control characters.
func validPath(path string) bool {
	odd := func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }
	return path != "." && fs.ValidPath(path) && !strings.ContainsFunc(path, odd)
}

// route finds the stream that path belongs to and the path inside it. Of several
// prefixes the longest wins, and of equal ones the first. The inner path is empty
// when path is the prefix itself.
func route(streams []Stream, path string) (found Stream, inner string, ok bool) {
	longest := -1
	for _, s := range streams {
		for i := range 1 + len(s.Also) {
			prefix := s.Path
			if i > 0 {
				prefix = s.Also[i-1]
			}
			prefix = strings.Trim(prefix, "/")
			if len(prefix) <= longest {
				continue
			}
			if rest, below := cutPrefix(path, prefix); below {
				found, inner, ok, longest = s, rest, true, len(prefix)
			}
		}
	}
	return found, inner, ok
}

// cutPrefix removes a prefix of whole segments. The empty prefix is above every path.
func cutPrefix(path, prefix string) (rest string, below bool) {
	if prefix == "" || path == prefix {
		return path[len(prefix):], true
	}
	return strings.CutPrefix(path, prefix+"/")
}
