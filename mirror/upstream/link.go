package upstream

import (
	"net/http"
	"net/url"
	"strings"
)

// A Link is one of the Link header of an answer (RFC 8288), about what was asked for.
type Link struct {
	URL       string            // absolute, without a fragment; it may hold the password of the request
	Params    map[string]string // the first of each name, in lower case
	Elsewhere bool              // it leads to another server, or by another scheme
}

// Relates reports whether one of the link's relations is rel.
func (l Link) Relates(rel string) bool {
	for r := range strings.FieldsSeq(l.Params["rel"]) {
		if strings.EqualFold(r, rel) {
			return true
		}
	}
	return false
}

// maxLinkText bounds the Link headers of an answer in bytes; what is more is not read. A server may send megabytes of them.
const maxLinkText = 16 << 10

// linksOf returns the links of an answer from u, but for those that lead to no HTTP or HTTPS server.
func linksOf(u *url.URL, header http.Header) (links []Link) {
	left := maxLinkText
	for _, value := range header.Values("Link") {
		if left -= len(value); left < 0 {
			break
		}
		for _, l := range parseLinks(value) {
			at, err := u.Parse(l.target)
			if _, ofAnother := l.params["anchor"]; ofAnother || err != nil || !isHTTP(at) {
				continue
			}
			at.Fragment, at.RawFragment = "", ""
			links = append(links, Link{at.String(), l.params, at.Scheme != u.Scheme || !strings.EqualFold(at.Host, u.Host)})
		}
	}
	return links
}

// A link is one as it was written.
type link struct {
	target string
	params map[string]string
}

// parseLinks reads the value of a Link header, as far as it is well formed.
func parseLinks(s string) (links []link) {
	for {
		s = strings.TrimLeft(s, " \t,")
		rest, ok := strings.CutPrefix(s, "<")
		if !ok {
			return links
		}
		l := link{params: map[string]string{}}
		if l.target, s, ok = strings.Cut(rest, ">"); !ok {
			return links
		}
		for {
			s = strings.TrimLeft(s, " \t")
			if rest, ok = strings.CutPrefix(s, ";"); !ok {
				break
			}
			var name, value string
			name, value, s = parseParam(rest)
			if _, twice := l.params[name]; name != "" && !twice {
				l.params[name] = value
			}
		}
		links = append(links, l)
		if s != "" && s[0] != ',' {
			return links
		}
	}
}

// parseParam reads a parameter, with or without a value, and returns what follows it.
func parseParam(s string) (name, value, rest string) {
	end := strings.IndexAny(s, "=;,")
	if end < 0 {
		end = len(s)
	}
	name, rest = strings.ToLower(strings.Trim(s[:end], " \t")), s[end:]
	if !strings.HasPrefix(rest, "=") {
		return name, "", rest
	}
	rest = strings.TrimLeft(rest[1:], " \t")
	if !strings.HasPrefix(rest, `"`) {
		if end = strings.IndexAny(rest, ";,"); end < 0 {
			end = len(rest)
		}
		return name, strings.TrimRight(rest[:end], " \t"), rest[end:]
	}
	var text strings.Builder
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return name, text.String(), rest[i+1:]
		case '\\':
			if i++; i == len(rest) {
				return name, text.String(), ""
			}
		}
		text.WriteByte(rest[i])
	}
	return name, text.String(), "" // the quote does not end
}
