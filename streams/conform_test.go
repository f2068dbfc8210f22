package streams

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What Canonical publishes breaks no rule, and is published as it is.
func TestUpstreamConforms(t *testing.T) {
	docs := shared(t, "maas-fixture")
	var x *Index
	var lists []*Products
	for name, doc := range docs {
		if filepath.Base(name) == "index.json" {
			var err error
			if x, err = ParseIndex(doc); err != nil {
				t.Fatal(err)
			}
			continue
		}
		l := mustParse(t, string(doc))
		lists = append(lists, l)
		got, found := l.Conform(All)
		if len(found) > 0 || string(got.Render()) != string(doc) {
			t.Errorf("%s is changed: %v", name, found)
		}
	}
	for _, f := range Lint(x, lists, All) {
		t.Error(f)
	}
}

// A good list of each shape, with one product p and one version v.
const (
	goodFile  = `"ftype": "f", "path": "x/y", "size": 1, ` + anSHA256
	goodImage = `"arch": "amd64", "label": "l", "os": "o", "release": "r", "release_title": "R", "subarch": "s", "subarches": "s", "version": "1"`
	goodMulti = `{` + goodImage + `, "kflavor": "generic", "versions": {"v": {"items": {
	  "boot-initrd": {` + goodFile + `}, "boot-kernel": {` + goodFile + `}, "manifest": {` + goodFile + `}, "squashfs": {` + goodFile + `}}}}}`
	goodSingle = `{` + goodImage + `, "versions": {"v": {"items": {"manifest": {` + goodFile + `}, "root-tgz": {` + goodFile + `}}}}}`
	goodLoader = `{"arch": "amd64", "arches": "amd64", "bootloader-type": "uefi", "label": "l", "os": "o", "versions": {"v": {"items": {
	  "syslinux": {` + goodFile + `, "src_package": "p", "src_release": "r", "src_version": "v"}}}}}`
)

func listOf(products ...string) object {
	var ps []string
	for i, p := range products {
		ps = append(ps, fmt.Sprintf("%q: %s", "p"+strings.Repeat("+", i), p))
	}
	var l object
	doc := `{"content_id": "c", "datatype": "image-ids", "format": "products:1.0", "updated": "Thu, 24 Jul 2025 09:01:42 +0000", "products": {` + strings.Join(ps, ",") + `}}`
	if err := json.Unmarshal([]byte(doc), &l); err != nil {
		panic(err)
	}
	return l
}

// at returns the object at a place, as "products/p/versions/v".
func at(l object, place string) object {
	for _, key := range strings.FieldsFunc(place, func(r rune) bool { return r == '/' }) {
		l = l[key].(object)
	}
	return l
}

const (
	atP = "products/p"
	atV = "products/p/versions/v"
	atI = "products/p/versions/v/items/"
)

// Every rule, broken: what lint says, and what is left after Conform for both
// generations of MAAS.
func TestRules(t *testing.T) {
	type change struct {
		place, key string
		value      any // nil takes the member away
	}
	for _, tt := range []struct {
		name    string
		list    []string
		changes []change
		lint    string // "profile: place: problem", several separated by " | "
		left    string // words after Conform(All), "-" for no list
	}{
		{"good images of several files", []string{goodMulti}, nil, "", "p/v"},
		{"good images of one file", []string{goodSingle}, nil, "", "p/v"},
		{"good boot loaders", []string{goodLoader}, nil, "", "p/v"},
		{"unknown things", []string{goodMulti}, []change{{"", "x", 1}, {atP, "x", object{}}, {atV, "x", true}, {atI, "x", at(listOf(goodMulti), atI+"manifest")}}, "", "p/v"},

		{"size is a string", []string{goodMulti}, []change{{atI + "squashfs", "size", "1"}}, "plain: p/v/squashfs: size is the string", "p/v"},
		{"path among documents", []string{goodMulti}, []change{{atI + "squashfs", "path", "streams/v1/x"}}, "plain: p/v/squashfs: path", "-"},
		{"content id with a slash", []string{goodMulti}, []change{{"", "content_id", "../c"}}, "plain: : the content id", "-"},

		{"no date", []string{goodMulti}, []change{{"", "updated", nil}}, "3.8: : updated is missing", "p/v"},
		{"date in GMT", []string{goodMulti}, []change{{"", "updated", "Thu, 24 Jul 2025 09:01:42 GMT"}}, "3.8: : updated is", "p/v"},
		{"date without weekday", []string{goodMulti}, []change{{"", "updated", "4 May 2013 01:58:57 -0000"}}, "3.8: : updated is", "p/v"},
		{"ISO date", []string{goodMulti}, []change{{"", "updated", "2025-07-24T09:01:42+00:00"}}, "", "p/v"},
		{"no datatype", []string{goodMulti}, []change{{"", "datatype", nil}}, "3.8: : datatype is missing", "p/v"},
		{"notifications", []string{goodMulti}, []change{{"", "datatype", "release-notifications"}}, "3.8: : datatype is", "-"},
		{"no products", nil, nil, "3.8: : it has no products", "-"},
		{"no versions", []string{goodMulti, goodMulti}, []change{{atP, "versions", object{}}}, "3.8: p: it has no versions", "p+/v"},

		{"tag missing", []string{goodMulti}, []change{{atP, "release_title", nil}, {atP, "version", nil}}, "3.8: p: no string release_title, version", "-"},
		{"tag of the list", []string{goodMulti}, []change{{atP, "label", nil}, {"", "label", "l"}}, "3.8: p: no string label", "p/v"},
		{"tag of all versions", []string{goodLoader}, []change{{atP, "os", nil}, {atV, "os", "o"}}, "3.8: p: no string os", "p/v"},
		{"tag is a number", []string{goodSingle}, []change{{atP, "version", 7}}, "3.8: p: no string version", "p/v"},
		{"tag is an object", []string{goodSingle}, []change{{atP, "version", object{}}}, "3.8: p: no string version", "-"},
		{"kflavor is an object", []string{goodMulti}, []change{{atP, "kflavor", object{}}}, "3.8: p: kflavor", "-"},
		{"support_eol is no day", []string{goodMulti}, []change{{atP, "support_eol", "never"}}, "3.8: p: support_eol", "-"},
		{"support_eol of a boot loader", []string{goodLoader}, []change{{atP, "support_eol", "never"}}, "", "p/v"},
		{"support_eol of a version", []string{goodMulti}, []change{{atV, "support_esm_eol", 5}}, "3.8: p/v: support_esm_eol", "-"},
		{"product_name", []string{goodMulti}, []change{{atP, "product_name", "x"}}, "3.8: p: it has the tag product_name", "p/v"},
		{"version_name", []string{goodMulti}, []change{{atV, "version_name", "x"}}, "3.8: p/v: it has the tag version_name", "p/v"},
		{"item named like a tag", []string{goodMulti}, []change{{atI, "support_eol", at(listOf(goodMulti), atI+"manifest")}}, "3.8: p/v: it has an item named", "-"},
		{"tag named like an item", []string{goodMulti}, []change{{atV, "root-image.gz", "x"}}, "3.8: p/v: it has a tag named", "-"},

		{"no manifest", []string{goodMulti, goodMulti}, []change{{atI, "manifest", nil}}, "3.8: p/v: it has no manifest", "p+/v"},
		{"no root image", []string{goodMulti, goodMulti}, []change{{atI, "squashfs", nil}}, "3.8: p/v: it has no squashfs or root-image.gz", "p+/v"},
		{"no known boot loader", []string{goodLoader, goodLoader}, []change{{atI, "syslinux", nil}}, "3.8: p/v: it has no grub2-signed or", "p+/v"},
		{"root-dd.gz", []string{goodSingle, goodSingle}, []change{{atI, "root-tgz", nil}, {atI, "root-dd.gz", at(listOf(goodSingle), atI+"manifest")}}, "3.8: p/v: it has no root-tgz", "p+/v"},
		{"mixed shapes", []string{goodMulti, goodMulti, goodLoader}, nil, "3.8: p++: it is one of boot loaders in a list of images of several files", "p/v p+/v"},

		{"no ftype", []string{goodMulti}, []change{{atI + "manifest", "ftype", nil}}, "legacy: p/v/manifest: ftype | 3.8: p/v/manifest: no string ftype", "-"},
		{"ftype of the version", []string{goodMulti}, []change{{atI + "manifest", "ftype", nil}, {atV, "ftype", "f"}}, "3.8: p/v/manifest: no string ftype", "p/v"},
		{"no path", []string{goodMulti}, []change{{atI + "manifest", "path", nil}}, "legacy: p/v/manifest: path | 3.8: p/v/manifest: no string path", "-"},
		{"no path of an unknown item", []string{goodMulti}, []change{{atI, "ami", object{"id": "a"}}}, "legacy: p/v/ami: path", "-"},
		{"no sha256", []string{goodMulti}, []change{{atI + "manifest", "sha256", nil}, {atI + "manifest", "md5", strings.Repeat("0", 32)}}, "legacy: p/v/manifest: sha256 | 3.8: p/v/manifest: no string sha256", "-"},
		{"no source package", []string{goodLoader}, []change{{atI + "syslinux", "src_package", nil}}, "3.8: p/v/syslinux: no string src_package", "-"},
		{"kpackage is a list", []string{goodMulti}, []change{{atI + "squashfs", "kpackage", []any{}}}, "3.8: p/v/squashfs: kpackage", "-"},
		{"no size", []string{goodMulti}, []change{{atI + "squashfs", "size", nil}, {atV, "size", 1}}, "3.8: p/v/squashfs: no size", "p/v"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			doc := listOf(tt.list...)
			for _, c := range tt.changes {
				if c.value == nil {
					delete(at(doc, c.place), c.key)
				} else {
					at(doc, c.place)[c.key] = c.value
				}
			}
			l := mustParse(t, string(marshal(doc)))
			checkFindings(t, Lint(nil, []*Products{l}, All), tt.lint)
			left, _ := l.Conform(All)
			if got := versionsOf(left); got != tt.left {
				t.Errorf("%q is left, want %q", got, tt.left)
			}
		})
	}
}

// checkFindings compares findings with "profile: place: beginning of the
// problem" of each, separated by " | ".
func checkFindings(t *testing.T, found []Finding, want string) {
	t.Helper()
	var wants []string
	if want != "" {
		wants = strings.Split(want, " | ")
	}
	for i, f := range found {
		got := fmt.Sprintf("%s: %v: %s", f.Profile, f.Pedigree, f.Problem)
		if i >= len(wants) || !strings.HasPrefix(got, wants[i]) {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	if len(found) < len(wants) {
		t.Errorf("found %v, want %q", found, want)
	}
}

// versionsOf lists the versions of a list, "-" for none.
func versionsOf(l *Products) string {
	if l == nil {
		return "-"
	}
	var vs []string
	for _, p := range l.Products {
		for _, v := range p.Versions {
			vs = append(vs, p.Name+"/"+v.Name)
		}
	}
	return strings.Join(vs, " ")
}

func TestConformWritesOut(t *testing.T) {
	l := mustParse(t, `{"content_id": "c", "format": "products:1.0", "label": "stable", "ftype": "tgz", "updated": "2025-07-24T09:01:42Z", "products": {"p": {
	  "arch": "amd64", "os": "centos", "release": "8", "release_title": "CentOS 8", "subarch": "generic", "subarches": "generic", "kept": {"a": 1},
	  "versions": {"v": {"version": 8, "items": {
	    "manifest": {"path": "m", "size": "5", `+anSHA256+`},
	    "root-tgz": {"path": "r", "size": 6, `+anSHA256+`, "ftype": "own"}}}}}}}`)
	got, found := l.Conform(All)
	if len(found) > 0 {
		t.Fatal(found)
	}
	want := `{
 "content_id": "c",
 "datatype": "image-ids",
 "format": "products:1.0",
 "label": "stable",
 "ftype": "tgz",
 "updated": "Thu, 24 Jul 2025 09:01:42 +0000",
 "products": {
  "p": {
   "arch": "amd64",
   "label": "stable",
   "os": "centos",
   "release": "8",
   "release_title": "CentOS 8",
   "subarch": "generic",
   "subarches": "generic",
   "kept": {
    "a": 1
   },
   "version": "8",
   "versions": {
    "v": {
     "version": 8,
     "items": {
      "manifest": {
       "ftype": "tgz",
       "path": "m",
       "size": 5,
       ` + anSHA256 + `
      },
      "root-tgz": {
       "path": "r",
       "size": 6,
       ` + anSHA256 + `,
       "ftype": "own"
      }
     }
    }
   }
  }
 }
}`
	if string(got.Render()) != want {
		t.Errorf("got\n%s\nwant\n%s", got.Render(), want)
	}
}

// Plain metadata keeps its tags where they are; only what no client could read
// goes.
func TestConformPlain(t *testing.T) {
	l := mustParse(t, `{"content_id": "c", "format": "products:1.0", "a": "b", "products": {
	  "empty": {"versions": {}}, "p": {"versions": {"0": {"items": {}}, "1": {"items": {"i": {"path": "x", "size": "5", `+anMD5+`}, "ami": {"id": "a"}}}}}}}`)
	got, found := l.Conform(Plain)
	want := `{"content_id": "c", "format": "products:1.0", "a": "b", "products": {
	  "p": {"versions": {"1": {"items": {"i": {"path": "x", "size": 5, ` + anMD5 + `}, "ami": {"id": "a"}}}}}}}`
	if len(found) > 0 || string(got.Render()) != string(mustParse(t, want).Render()) {
		t.Errorf("found %v in\n%s", found, got.Render())
	}
}

// Whatever a list is like: what Conform returns is clean, stays the same when
// conformed again, says why each version is missing, and leaves the list alone.
func TestRandomListsConform(t *testing.T) {
	parsed := 0
	for seed := range uint64(400) {
		l := parseRandom(t, newChaos(seed), "com.ubuntu.maas:x")
		if l == nil {
			continue
		}
		parsed++
		before := string(l.Render())
		for _, p := range []Profile{Legacy, V38, All, Plain} {
			checkConform(t, fmt.Sprintf("seed %d, profile %s", seed, p), l, p)
		}
		if string(l.Render()) != before {
			t.Errorf("seed %d: Conform changed its input", seed)
		}
	}
	if parsed < 200 {
		t.Errorf("only %d of 400 lists could be parsed", parsed)
	}
}

func checkConform(t *testing.T, name string, l *Products, p Profile) {
	got, found := l.Conform(p)
	for _, product := range l.Products {
		for _, v := range product.Versions {
			if (got == nil || got.Version(product.Name, v.Name) == nil) && len(v.Items) > 0 && !explains(found, product.Name, v.Name) {
				t.Errorf("%s: nothing says why %s/%s is missing", name, product.Name, v.Name)
			}
		}
	}
	if got == nil {
		return
	}
	text := string(got.Render())
	again := mustParse(t, text)
	if findings := Lint(nil, []*Products{again}, p); len(findings) > 0 {
		t.Errorf("%s: %v", name, findings[0])
	}
	if second, findings := again.Conform(p); len(findings) > 0 || string(second.Render()) != text {
		t.Errorf("%s: conforming again finds %v", name, findings)
	}
	if words(again) != words(got) || strings.Contains(words(got), "//") {
		t.Errorf("%s: %s is rendered as %s", name, words(got), words(again))
	}
}

func explains(found []Finding, product, version string) bool {
	return slices.ContainsFunc(found, func(f Finding) bool {
		return (f.Pedigree.Product == "" || f.Pedigree.Product == product) && (f.Pedigree.Version == "" || f.Pedigree.Version == version)
	})
}

// A list in which nothing is wrong loses nothing.
func TestCalmListsConform(t *testing.T) {
	for seed := range uint64(100) {
		c := newChaos(seed)
		c.calm = true
		l := parseRandom(t, c, "com.ubuntu.maas:x")
		if _, found := l.Conform(All); len(found) > 0 {
			t.Errorf("seed %d: %v", seed, found)
		}
	}
}

func TestLintIndex(t *testing.T) {
	list := mustParse(t, string(marshal(listOf(goodMulti))))
	const good = `"path": "streams/v1/c.json", "format": "products:1.0", "datatype": "image-ids", "updated": "Thu, 24 Jul 2025 08:01:48 +0000", "products": ["p"]`
	for _, tt := range []struct{ entries, want string }{
		{`"c": {` + good + `}`, ""},
		{``, "3.8: : it names no lists"},
		{`"c": {` + good + `, "name": "x"}`, "3.8: : it has the member name"},
		{`"c": {` + strings.Replace(good, "products:1.0", "other", 1) + `}`, "3.8: : format is | plain: : format is"},
		{`"c": {` + strings.Replace(good, "image-ids", "release-notifications", 1) + `}`, "3.8: : datatype is"},
		{`"c": {` + strings.Replace(good, "+0000", "GMT", 1) + `}`, "3.8: : updated is"},
		{`"c": {` + strings.Replace(good, `["p"]`, `["p", "q"]`, 1) + `}`, "plain: : the index names the product q"},
		{`"c": {` + strings.Replace(good, `["p"]`, `[]`, 1) + `}`, "plain: : the list has the product p"},
		{`"c": {` + good + `}, "d": {` + good + `}`, "plain: : the index names the list streams/v1/c.json, which is not there"},
		{`"c": {` + good + `}, "e": {"format": "index:1.0"}`, "3.8: : path is missing"},
	} {
		x, err := ParseIndex([]byte(`{"format": "index:1.0", "updated": "Thu, 24 Jul 2025 08:01:48 +0000", "index": {` + tt.entries + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		checkFindings(t, Lint(x, []*Products{list}, All), tt.want)
	}
}

func TestFindingString(t *testing.T) {
	for want, f := range map[string]Finding{
		"index: bad":  {Problem: "bad"},
		"c: bad":      {ContentID: "c", Problem: "bad"},
		"c: p/v: bad": {ContentID: "c", Pedigree: Pedigree{Product: "p", Version: "v"}, Problem: "bad"},
	} {
		if got := f.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestParseProfile(t *testing.T) {
	for _, p := range []Profile{Legacy, V38, All, Plain} {
		if got, err := ParseProfile(string(p)); got != p || err != nil {
			t.Errorf("ParseProfile(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := ParseProfile("3.7"); err == nil {
		t.Error("3.7 is a profile")
	}
}
