package upstream

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// A link is found wherever it is among others, and leads to where it says by the URL of the answer.
func TestLinks(t *testing.T) {
	const ours = `rel="next HTTP://example.test/ours"; type="application/x-tar"`
	for _, test := range []struct{ link, want string }{
		{`<x>; ` + ours, "http://u:p@b/s/x"},
		{`</x>;` + ours, "http://u:p@b/x"},
		{`<../x#y> ; ` + ours, "http://u:p@b/x"},
		{`<?a>; rel=next, , <x>; title="a, \"b\"; <c>"; ` + ours, "http://u:p@b/s/x"},
		{`<x>; REL="http://example.test/ours"; type=application/x-tar; rel=other`, "http://u:p@b/s/x"},
		{`<x>; rel="http://example.test/ours"; type="application/x-tar`, "http://u:p@b/s/x"},
		{`<http://B/x>; ` + ours, "http://B/x"},
		{`<https://b/x>; ` + ours, "elsewhere https://b/x"},
		{`<//c/x>; ` + ours, "elsewhere http://c/x"},
		{`<http://b:81/x>; ` + ours, "elsewhere http://b:81/x"},
		{`<x>; anchor="#a"; ` + ours, ""},
		{`<x>; rel=next; type="application/x-tar"`, ""},
		{`<x>; rel; type="application/x-tar"`, ""},
		{`<x`, ""},
		{`x; ` + ours, ""},
		{`<x> y; ` + ours, ""},
		{`<file:///etc/passwd>; ` + ours, ""},
		{"<http://[>; " + ours, ""},
		{``, ""},
	} {
		got := ""
		for _, l := range linksOf(&url.URL{Scheme: "http", User: url.UserPassword("u", "p"), Host: "b", Path: "/s/i", RawQuery: "q"}, http.Header{"Link": {`<a>; rel="b"`, test.link}}) {
			if !l.Relates("http://example.test/ours") || l.Params["type"] != "application/x-tar" {
				continue
			}
			if got = l.URL; l.Elsewhere {
				got = "elsewhere " + l.URL
			}
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.link, got, test.want)
		}
	}
}

// Whatever comes, links are read to an end, and what is not called elsewhere leads to the server that was asked.
func FuzzLinks(f *testing.F) {
	f.Add(`<x>; rel="a b"; title="\"" , <y>`)
	f.Add(`<//x>; rel="a"; type="b"`)
	f.Add(`<>;;=,"`)
	f.Fuzz(func(t *testing.T, value string) {
		links := linksOf(&url.URL{Scheme: "http", Host: "b", Path: "/i"}, http.Header{"Link": {value}})
		if n := strings.Count(value, "<"); len(links) > n {
			t.Errorf("%d links of %d", len(links), n)
		}
		for _, l := range links {
			u, err := url.Parse(l.URL)
			if err != nil || !l.Elsewhere && (u.Scheme != "http" || !strings.EqualFold(u.Host, "b")) {
				t.Errorf("%q leads to %q: %v", value, l.URL, err)
			}
		}
	})
}

// However many links an answer has, no more are read than a page of text has room for: each takes a hundred times the memory of its text.
func TestLinksAreBounded(t *testing.T) {
	u := &url.URL{Scheme: "http", Host: "b", Path: "/s/i"}
	for summary, values := range map[string][]string{
		"in one value":        {strings.Repeat("<>,", 1<<20)},
		"in many values":      slices.Repeat([]string{"<>"}, 1<<20),
		"of many parameters":  {"<x>" + strings.Repeat("; a", 1<<20)},
		"one that has no end": {"<" + strings.Repeat("x", 1<<20) + ">"},
	} {
		var links []Link
		allocs := testing.AllocsPerRun(1, func() { links = linksOf(u, http.Header{"Link": values}) })
		if len(links) > maxLinkText/2 || allocs > 20*maxLinkText {
			t.Errorf("%s: %d links are read, in %v allocations", summary, len(links), allocs)
		}
		for _, l := range links {
			if len(l.URL) > maxLinkText+20 {
				t.Errorf("%s: a URL has %d bytes", summary, len(l.URL))
			}
		}
	}
	many := append(slices.Repeat([]string{"<a>"}, 50), `<x>; rel=ours`)
	if links := linksOf(u, http.Header{"Link": many}); len(links) != 51 || !links[50].Relates("ours") {
		t.Errorf("of 51 links %d are read", len(links))
	}
}
