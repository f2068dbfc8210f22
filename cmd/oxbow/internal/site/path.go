package site

import (
	"fmt"
	"strings"

	"oxbow/mirror"
)

// A claim is a path that a stream is to be served under.
type claim struct {
	path, stream string
	usual        bool // an alias that nobody asked for
	at           value
	where        place
}

// paths reads where a stream is served. The usual path is that of its first
// upstream.
func (r *reader) paths(d *definition, m fields, usual string) {
	v := m["path"]
	if s, ok := r.text(v, "a path", "/ephemeral-v3/stable/"); ok {
		d.Path = s
		r.claim(d, v, s)
	} else if v.absent() && usual != "" {
		d.Path = usual
		if err := mirror.CheckPath(usual); err != nil {
			r.refuse(m["upstream"], fmt.Sprintf("the URL's own %v", err), "give the stream a `path`, as in `path: /images/`")
		} else {
			d.claims = append(d.claims, claim{usual, d.Name, false, m["upstream"], m["upstream"].at})
		}
	}
	if v := m["also"]; !v.absent() {
		texts, at := r.texts(v, "a path or a list of them", "[/ephemeral-v3/daily/]")
		for i, s := range texts {
			r.claim(d, at[i], s)
		}
		d.Also = texts
		return
	}
	d.Also = mirror.Aliases(d.Path)
	for _, p := range d.Also {
		at := m["path"]
		if at.absent() {
			at = m["upstream"]
		}
		d.claims = append(d.claims, claim{p, d.Name, true, at, at.at})
	}
}

// claim records a path that was written down, if it is usable.
func (r *reader) claim(d *definition, v value, p string) {
	if err := mirror.CheckPath(p); err != nil {
		remedy := "want one as in `/ephemeral-v3/stable/`"
		if whole := "/" + strings.Trim(p, "/") + "/"; whole != p && mirror.CheckPath(whole) == nil {
			remedy = fmt.Sprintf("did you mean `%s`?", whole)
		}
		r.refuse(v, err.Error(), remedy)
		return
	}
	d.claims = append(d.claims, claim{p, d.Name, false, v, placeOfNode(v.node)})
}

// checkClaims refuses paths that are the same or below one another: a request
// would have two answers.
func (r *reader) checkClaims(all []claim) {
	for i, c := range all {
		for _, before := range all[:i] {
			if !strings.HasPrefix(c.path, before.path) && !strings.HasPrefix(before.path, c.path) {
				continue
			}
			remedy := "no path can be part of another; give one of them another"
			if c.usual || before.usual {
				remedy = "an alias that nobody asked for is turned off with `also: []`"
			}
			r.problem(c.where, c.at.path, fmt.Sprintf("%s meets %s of line %d", c, before, before.where.line), remedy)
			break
		}
	}
}

func (c claim) String() string {
	if c.usual {
		return fmt.Sprintf("the alias `%s` of stream `%s`", shortened(c.path), shortened(c.stream))
	}
	return fmt.Sprintf("path `%s` of stream `%s`", shortened(c.path), shortened(c.stream))
}
