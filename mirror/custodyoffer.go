package mirror

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"oxbow/cache"
)

// custodyRelation is the relation (RFC 8288) of an index to the custody of its snapshot: W3C's PROV-AQ has it for what says where
// something comes from, in whatever format. The type tells ours from others.
const (
	custodyRelation = "http://www.w3.org/ns/prov#has_provenance"

	// CustodyType is the media type of a custody volume.
	CustodyType = "application/x-tar"
)

// CustodyDir is the path below which a server has custody volumes, as STREAM/ID.
const CustodyDir = "/-/custody/"

// CustodyLink is the value of the Link header of an index that is served under path: where the custody of its snapshot is. The
// reference is relative, so that it is right behind a reverse proxy that maps a prefix.
func CustodyLink(path, stream string, snapshot cache.Digest) string {
	up := strings.Repeat("../", strings.Count(path, "/")-1)
	if up == "" {
		up = "./"
	}
	return fmt.Sprintf(`<%s%s%s/%v>; rel="%s"; type="%s"`, up, CustodyDir[1:], stream, snapshot, custodyRelation, CustodyType)
}

// An offer is where an answer says that the custody of what it brought is to be had.
type offer struct {
	url     string // may hold a password
	problem error  // why it is not asked for; nil: it may be
}

// offered returns what an answer from u offers; nil: nothing.
func offered(u *url.URL, header http.Header) *offer {
	for _, value := range header.Values("Link") {
		for _, l := range parseLinks(value) {
			if _, ofAnother := l.params["anchor"]; ofAnother || !l.relates(custodyRelation) || l.params["type"] != CustodyType {
				continue
			}
			at, err := u.Parse(l.target)
			if err != nil || !isHTTP(at) {
				return nil
			}
			at.Fragment, at.RawFragment = "", ""
			o := &offer{url: at.String()}
			if at.Scheme != u.Scheme || !strings.EqualFold(at.Host, u.Host) {
				o.problem = errElsewhere
			}
			return o
		}
	}
	return nil
}

const errElsewhere refusal = "it is at another server than the index, which is not asked for it"

// A link is one of a Link header.
type link struct {
	target string
	params map[string]string // the first of each name, in lower case
}

// relates reports whether one of the link's relations is rel.
func (l link) relates(rel string) bool {
	for r := range strings.FieldsSeq(l.params["rel"]) {
		if strings.EqualFold(r, rel) {
			return true
		}
	}
	return false
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
