package streams

import (
	"io/fs"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	for _, good := range []string{
		"a", "a/b", "streams/v1/com.ubuntu.maas:stable:v3:download.json", "centos/8/amd64/20211029_01/root-tgz",
		strings.Repeat("a", 4096), "..a/b..", ".hidden/x", "with space", "ü/é", "....", "a/....",
	} {
		if p, err := ParsePath(good); err != nil || string(p) != good {
			t.Errorf("ParsePath(%q) = %q, %v", good, p, err)
		}
	}
	for bad, reason := range map[string]string{
		"":          "empty",
		"/":         "absolute",
		"/etc/x":    "absolute",
		".":         "element",
		"..":        "element",
		"../x":      "element",
		"a/../../x": "element",
		"a//b":      "element",
		"a/":        "element",
		"./a":       "element",
		"a/.":       "element",
		".../a":     `"..."`,
		"a/...":     `"..."`,
		`a\b`:       "backslash",
		`..\x`:      "backslash",
		"a\x00b":    "control",
		"a\nb":      "control",
		"a\u0085b":  "control",
		"a\xffb":    "UTF-8",
		"a\ufffdb":  "U+FFFD",

		strings.Repeat("a", 4097): "4096 bytes",
	} {
		if p, err := ParsePath(bad); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParsePath(%q) = %q, %v, want an error about %s", bad, p, err, reason)
		}
	}
}

func TestPedigreeString(t *testing.T) {
	for want, p := range map[string]Pedigree{"": {}, "p": {Product: "p"}, "p/v": {Product: "p", Version: "v"}, "p/v/i": {"p", "v", "i"}} {
		if got := p.String(); got != want {
			t.Errorf("%#v is %q, want %q", p, got, want)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"a/b", "../a", "/", "a/./b", "a\\b", "..."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			return
		}
		inside := path.Join("/base", string(p))
		if string(p) != s || !fs.ValidPath(s) || !strings.HasPrefix(inside, "/base/") || inside != "/base/"+s {
			t.Errorf("ParsePath(%q) = %q, which leads to %q", s, p, inside)
		}
	})
}

// What a server makes of an escaped path below a base is the path.
func TestEscapedPath(t *testing.T) {
	for path, want := range map[Path]string{
		"streams/v1/com.ubuntu.maas:stable:v3:download.json": "streams/v1/com.ubuntu.maas:stable:v3:download.json",
		"a:b/c":               "a:b/c",
		"with space/100%/ü?#": "with%20space/100%25/%C3%BC%3F%23",
		"a%2Fb":               "a%252Fb",
	} {
		if got := path.Escaped(); got != want {
			t.Errorf("%q is escaped as %q, want %q", path, got, want)
		}
		if u, err := url.Parse("http://host/base/" + path.Escaped()); err != nil || u.Path != "/base/"+string(path) {
			t.Errorf("%q is asked for as %q: %v", path, u.Path, err)
		}
	}
}
