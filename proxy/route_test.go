package proxy

import (
	"io/fs"
	"net/url"
	"strings"
	"testing"
)

func TestRoutePrefersTheLongestPrefix(t *testing.T) {
	streams := []Stream{
		{Name: "root", Path: "/"},
		{Name: "stable", Path: "/ephemeral-v3/stable", Also: []string{"/ephemeral-v3/daily/"}},
		{Name: "copy", Path: "/ephemeral-v3/stable/"},
		{Name: "arm", Path: "ephemeral-v3/stable/arm", Also: []string{"/ephemeral-v3/daily/arm"}},
	}
	for _, test := range []struct{ path, name, inner string }{
		{"ephemeral-v3/stable/a", "stable", "a"},
		{"ephemeral-v3/stable/a/b", "stable", "a/b"},
		{"ephemeral-v3/stable", "stable", ""},
		{"ephemeral-v3/stable/arm", "arm", ""},
		{"ephemeral-v3/stable/arm/b", "arm", "b"},
		{"ephemeral-v3/stable/army/b", "stable", "army/b"},
		{"ephemeral-v3/stables/b", "root", "ephemeral-v3/stables/b"},
		{"ephemeral-v3/daily/a", "stable", "a"},
		{"ephemeral-v3/daily/arm/b", "arm", "b"},
		{"ephemeral-v3", "root", "ephemeral-v3"},
	} {
		s, inner, ok := route(streams, test.path)
		if !ok || s.Name != test.name || inner != test.inner {
			t.Errorf("route %q: %s %q %v, want %s %q", test.path, s.Name, inner, ok, test.name, test.inner)
		}
	}
	if s, inner, ok := route(streams[1:], "ephemeral-v3/stables/b"); ok {
		t.Errorf("route without a root stream: %s %q, want none", s.Name, inner)
	}
}

// FuzzRequestPath: a target resolves to nothing, or to a plain relative path that is the
// target decoded once.
func FuzzRequestPath(f *testing.F) {
	for _, target := range []string{"/a/b", "/a%3Ab:c", "/%2e%2e/a", "/a%2fb", "/a^b%2Fc", "//a", "/a\\b", "/%00", "/a/../b", "*", "http://h/a", "/a?b", "a:b", "/%ff"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		path, ok := requestPath(u)
		if !ok {
			return
		}
		if plain := strings.TrimSuffix(path, "/"); !fs.ValidPath(plain) || plain == "." || strings.ContainsAny(path, "\\\x00\n\r\x7f") {
			t.Errorf("%q resolves to the path %q", target, path)
		}
		raw, _, _ := strings.Cut(target, "?")
		if decoded, err := url.PathUnescape(raw); err != nil || decoded != "/"+path {
			t.Errorf("%q resolves to %q, decodes to %q, %v", target, path, decoded, err)
		}
		if strings.Count(raw, "/") != strings.Count(path, "/")+1 {
			t.Errorf("%q resolves to %q: the number of segments has changed", target, path)
		}
	})
}
