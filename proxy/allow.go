package proxy

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An Allowed is a part of the net that clients of the forward proxy may reach beside the
// streams: an entry of serve.forward_proxy.allow. HOST:PORT is all that is there, tunnels
// included, the beginning of URLs only what has them.
type Allowed struct {
	scheme string // "": any, tunnels included
	host   string // as URLs have it, in lower case
	port   string
	path   string // "": all of the host; else plain, rooted, with a slash at its end
}

// AllowRule says what [ParseAllowed] takes.
const AllowRule = "want HOST:PORT, or the beginning of URLs up to a slash, with HOST a name in lower case or an address in its usual form"

var errAllowed = errors.New("neither HOST:PORT nor the beginning of URLs")

// ParseAllowed reads an entry. It takes only what it would print itself, so that an entry
// never means another host than it seems to: no upper case, no dot at a name's end, no
// addresses in other forms, no port that the scheme implies, no user, no patterns.
func ParseAllowed(text string) (Allowed, error) {
	var a Allowed
	if !strings.Contains(text, "/") {
		a.host, a.port = splitAuthority(text, "")
		if !validHost(a.host) || !validPort(a.port) || a.host+":"+a.port != text {
			return Allowed{}, errAllowed
		}
		return a, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return Allowed{}, errAllowed
	}
	t, ok := targetOfURL(u)
	a = Allowed{t.scheme, t.host, t.port, t.path}
	if !ok || !strings.HasSuffix(a.path, "/") || !plainPath(a.path) || a.String() != text {
		return Allowed{}, errAllowed
	}
	return a, nil
}

// String returns the entry.
func (a Allowed) String() string {
	if a.scheme == "" {
		return a.host + ":" + a.port
	}
	u := url.URL{Scheme: a.scheme, Host: a.host, Path: a.path}
	if a.port != standardPorts[a.scheme] {
		u.Host += ":" + a.port
	}
	return u.String()
}

// allows reports whether the entry is for t.
func (a Allowed) allows(t target) bool {
	if a.host != t.host || a.port != t.port {
		return false
	}
	if a.scheme == "" {
		return true
	}
	return a.scheme == t.scheme && strings.HasPrefix(t.path, a.path) && !t.slash && plainPath(t.path)
}

// plainPath reports whether a decoded path leads nowhere but below its own beginning,
// whoever reads it: it is rooted and plain, and stays so for a server that decodes it twice,
// or that cuts parameters from segments.
func plainPath(path string) bool {
	rest, rooted := strings.CutPrefix(path, "/")
	if !rooted || strings.Contains(path, "%") || strings.Contains(path, "/..") {
		return false
	}
	return rest == "" || validPath(strings.TrimSuffix(rest, "/"))
}

var standardPorts = map[string]string{"http": "80", "https": "443"}

// splitAuthority returns the host of an authority in lower case and its port, or the
// standard one.
func splitAuthority(authority, standard string) (host, port string) {
	host = strings.ToLower(authority)
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host[:i], host[i+1:]
	}
	return host, standard
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == port
}

// validHost reports whether host is the usual form of an address, or a name that no
// resolver takes for one: those that begin their last label with a digit may be numbers in
// disguise.
func validHost(host string) bool {
	if addr, ok := literalAddr(host); ok {
		return addr.Zone() == "" && !addr.Is4In6() && literalHost(addr) == host
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, odd) {
			return false
		}
	}
	return len(host) <= 253 && labels[len(labels)-1][0] >= 'a'
}

// literalAddr returns the address that a host of a URL is, if it is no name.
func literalAddr(host string) (netip.Addr, bool) {
	text, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		text = strings.TrimSuffix(text, "]")
	}
	addr, err := netip.ParseAddr(text)
	return addr, err == nil && addr.Is4() != bracketed
}

func literalHost(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	return "[" + addr.String() + "]"
}
