package mirror

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"oxbow/cache"
)

// What a server says of an index is found wherever it is among other links, and leads to the custody of the snapshot.
func TestCustodyLink(t *testing.T) {
	id := cache.Sum([]byte("a snapshot"))
	const ours = `rel="http://www.w3.org/ns/prov#has_provenance"; type="application/x-tar"`
	for path, prefix := range map[string]string{
		"/index.sjson": "",
		"/ephemeral-v3/stable/streams/v1/a.sjson":  "",
		"/p/q/ephemeral/streams/v1/index.json":     "/p/q",
		"/-/snapshots/stable/0123/streams/v1/i.js": "",
	} {
		inner := strings.TrimPrefix(path, prefix) // as the server knows it
		o := offered(&url.URL{Scheme: "http", User: url.UserPassword("u", "p"), Host: "b", Path: path, RawQuery: "q"}, http.Header{"Link": {CustodyLink(inner, "stable", id)}})
		if want := "http://u:p@b" + prefix + "/-/custody/stable/" + id.String(); o == nil || o.url != want || o.problem != nil {
			t.Errorf("%s: %+v, want %s", path, o, want)
		}
	}
	for _, test := range []struct{ link, want string }{
		{`<x>; ` + ours, "http://b/s/x"},
		{`</x>;` + ours, "http://b/x"},
		{`<x#y> ; ` + ours, "http://b/s/x"},
		{`<?a>; rel=next, , <x>; title="a, \"b\"; <c>"; ` + ours, "http://b/s/x"},
		{`<x>; REL="next HTTP://www.w3.org/ns/prov#has_provenance"; type=application/x-tar; rel=other`, "http://b/s/x"},
		{`<http://B/x>; ` + ours, "http://B/x"},
		{`<https://b/x>; ` + ours, "elsewhere"},
		{`<//c/x>; ` + ours, "elsewhere"},
		{`<http://b:81/x>; ` + ours, "elsewhere"},
		{`<x>; rel="http://www.w3.org/ns/prov#has_provenance"`, ""},
		{`<x>; rel="http://www.w3.org/ns/prov#has_provenance"; type="text/turtle"`, ""},
		{`<x>; anchor="#a"; ` + ours, ""},
		{`<x>; rel=next`, ""},
		{`<x`, ""},
		{`x; ` + ours, ""},
		{`<file:///etc/passwd>; ` + ours, ""},
		{"<http://[>; " + ours, ""},
		{``, ""},
	} {
		o := offered(&url.URL{Scheme: "http", Host: "b", Path: "/s/i"}, http.Header{"Link": {`<a>; rel="b"`, test.link}})
		got := ""
		if o != nil {
			if got = o.url; o.problem != nil {
				got = "elsewhere"
			}
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.link, got, test.want)
		}
	}
}

// Whatever comes, links are read to an end, and what is found leads to the server that was asked, or nowhere.
func FuzzLinks(f *testing.F) {
	f.Add(`<x>; rel="a b"; title="\"" , <y>`)
	f.Add(`<x>; rel="http://www.w3.org/ns/prov#has_provenance"; type="application/x-tar"`)
	f.Add(`<>;;=,"`)
	f.Fuzz(func(t *testing.T, value string) {
		links := parseLinks(value)
		if n := strings.Count(value, "<"); len(links) > n {
			t.Errorf("%d links of %d", len(links), n)
		}
		o := offered(&url.URL{Scheme: "http", Host: "b", Path: "/i"}, http.Header{"Link": {value}})
		if o == nil || o.problem != nil {
			return
		}
		if u, err := url.Parse(o.url); err != nil || u.Scheme != "http" || !strings.EqualFold(u.Host, "b") {
			t.Errorf("%q leads to %q: %v", value, o.url, err)
		}
	})
}
