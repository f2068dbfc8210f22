package streams

import (
	"slices"
	"strings"
	"testing"
)

// tagged has one item for filters to look at.
const tagged = `{"format": "products:1.0", "content_id": "cid", "label": "stable", "n": 1, "f": 1.50, "big": 1e20, "b": true, "none": null, "products": {
  "prod:1": {"arch": "amd64", "release_title": "24.04 LTS", "label": "beta", "versions": {
    "20250101": {"label": null, "arch": {}, "items": {
      "it": {"ftype": "squashfs", "path": "p", "size": "7", "md5": "00112233445566778899aabbccddeeff", "bootloader-type": "uefi"}}}}}}}`

func TestFilters(t *testing.T) {
	l := mustParse(t, tagged)
	p := l.Products[0]
	for filter, want := range map[string]bool{
		"arch=amd64":                        true, // an object below does not count
		"arch=amd":                          false,
		"arch~amd":                          true, // searched, not anchored
		"arch~^md":                          false,
		"arch!=i386":                        true,
		"arch!=amd64":                       false,
		"arch!~(i386|arm)":                  true,
		"arch!~64$":                         false,
		"label=beta":                        true, // null below does not count
		"absent=":                           true,
		"absent!=x":                         true,
		"absent~.":                          false,
		"none=":                             true,
		" arch=amd64 ":                      true,
		"'arch = amd64'":                    true,
		"bootloader-type=uefi":              true,
		"product_name=prod:1":               true,
		"version_name~^2025":                true,
		"item_name=it":                      true,
		"content_id=cid":                    true,
		"ftype=squashfs release_title~LTS":  true,
		"ftype=squashfs arch=i386":          false,
		`release_title="24.04 LTS"`:         true,
		`'release_title=24.04 LTS'`:         true,
		`release_title~'4 L' arch!="i386" `: true,
		"n=1":                               true, // scalars are compared as python prints them
		"f=1.5":                             true,
		"big=1e+20":                         true,
		"b=True":                            true,
		"b=true":                            false,
		"size=7":                            true,
	} {
		if got := mustSelect(t, filter).Matches(l, p, p.Versions[0], p.Versions[0].Items[0]); got != want {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
	item := p.Versions[0].Items[0]
	if !mustSelect(t, "arch=i386", "arch=amd64").Matches(l, p, p.Versions[0], item) {
		t.Error("selections are not ORed")
	}
	if !(Selections)(nil).Matches(l, p, p.Versions[0], item) {
		t.Error("no selections do not match everything")
	}
}

func TestParseSelectionErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "empty",
		"  ":               "empty",
		"amd64":            `"amd64": want a tag`,
		"arch = amd64":     `"arch": want a tag`,
		"=amd64":           "want a tag",
		"arch=amd64 x":     `"x": want a tag`,
		"release==noble":   "did you mean release=noble?",
		"release!==noble":  "did you mean release!=noble?",
		"release=~noble":   "did you mean release~noble?",
		`arch="amd64`:      `a quote (") is not closed`,
		"release~(jammy":   "missing closing )",
		"release~(?=jammy": "invalid or unsupported",
	} {
		if s, err := ParseSelection(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSelection(%q) = %v, %v, want an error with %q", in, s, err, want)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{"arch=amd64", "release~(jammy|noble)", "a!=b", "a!~b", "a =~ b", "a==b", "a= \t"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseFilter(s)
		if err != nil {
			return
		}
		b, err := ParseFilter(a.String())
		if err != nil || a.String() != b.String() {
			t.Errorf("%q is %v, which reads as %v, %v", s, a, b, err)
		}
	})
}

func FuzzParseSelection(f *testing.F) {
	for _, seed := range []string{"arch=amd64 os=ubuntu", `title="24.04 LTS"`, `'a=b "c"' d=e`, `a="'" b='"'`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseSelection(s)
		if err != nil {
			return
		}
		b, err := ParseSelection(a.String())
		if err != nil || !slices.EqualFunc(a, b, func(x, y Filter) bool { return x.String() == y.String() }) {
			t.Errorf("%q is %v, which reads as %v, %v", s, a, b, err)
		}
	})
}
