package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// A target is what a client asks the forward proxy for.
type target struct {
	scheme string // "": a tunnel
	host   string // as URLs have it, in lower case
	port   string
	path   string // as it was sent, but decoded; "" for a tunnel
	slash  bool   // one of the slashes of path was sent encoded
}

// targetOf returns what a request asks the forward proxy for. It is false for requests
// that are none for a proxy, and for those that may mean another host to someone else: a
// host is a plain name or the usual form of an address, and no user stands before it. The
// Host header is of no account (RFC 9112, 3.2.2).
func targetOf(r *http.Request) (t target, ok bool) {
	if r.Method == http.MethodConnect {
		t.host, t.port = splitAuthority(r.URL.Host, "")
		return t, r.RequestURI == r.URL.Host && t.valid()
	}
	return targetOfURL(r.URL)
}

func targetOfURL(u *url.URL) (t target, ok bool) {
	t = target{scheme: u.Scheme, path: u.Path, slash: strings.Contains(strings.ToLower(u.RawPath), "%2f")}
	t.host, t.port = splitAuthority(u.Host, standardPorts[u.Scheme])
	return t, standardPorts[u.Scheme] != "" && u.User == nil && u.Opaque == "" && t.valid()
}

func (t target) valid() bool { return validHost(t.host) && validPort(t.port) }

// String returns what an entry of serve.forward_proxy.allow has to say for all of the host.
func (t target) String() string { return t.host + ":" + t.port }

// sameHost reports whether a URL of t's host reaches what one of u's does. For the streams
// http and https are the same, each at its own port: what is served is proven whatever
// brought it.
func (t target) sameHost(u target) bool {
	usual := func(t target) bool { return t.port == standardPorts[t.scheme] }
	return t.host == u.host && (t.port == u.port || usual(t) && usual(u))
}

// below returns the rest of t's path below the prefix of an upstream. A path that is not
// plain is below nothing.
func (t target) below(prefix string) (rest string, ok bool) {
	path, rooted := strings.CutPrefix(t.path, "/")
	if !rooted || t.slash || !validPath(strings.TrimSuffix(path, "/")) {
		return "", false
	}
	prefix = strings.Trim(prefix, "/")
	if rest, ok = cutPrefix(path, prefix); ok {
		return rest, true
	}
	// python-simplestreams glues paths to a base without slash, and needs a 404 to find
	// the slash. Nothing has such a name.
	return path, strings.HasPrefix(path, prefix+"streams/v1/")
}
