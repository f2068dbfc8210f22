package streams

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func mustParse(t testing.TB, doc string) *Products {
	t.Helper()
	l, err := ParseProducts([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// withItem is a list with the given members of one item p/v/i.
func withItem(members string) string {
	return `{"format": "products:1.0", "content_id": "c", "products": {"p": {"versions": {"v": {"items": {"i": {` + members + `}}}}}}}`
}

const (
	anMD5    = `"md5": "00112233445566778899aabbccddeeff"`
	anSHA256 = `"sha256": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"`
)

func TestParseProducts(t *testing.T) {
	l := mustParse(t, `{"content_id": "c", "format": "products:1.0", "datatype": "d", "updated": "u", "ftype": "inherited", "products": {
  "b": {"size": 5, "versions": {"2": {"sha512": "`+strings.Repeat("ab", 64)+`", "items": {
    "one": {"path": "x/y", `+anMD5+`, "size": "12"},
    "two": {"path": "x/z", `+anSHA256+`, "ftype": "own"},
    "ami": {"id": "ami-1", "md5": 5, "size": "many"}}}, "1": {}}},
  "a": {}}}`)
	if l.ContentID != "c" || l.Format != "products:1.0" || l.DataType != "d" || l.Updated != "u" {
		t.Errorf("head is %q %q %q %q", l.ContentID, l.Format, l.DataType, l.Updated)
	}
	var got []string
	for at, it := range l.Items() {
		got = append(got, fmt.Sprintf("%v %s %s %d md5:%x sha256:%.4x sha512:%.4x", at, it.Path, it.FType, it.Size, it.MD5, it.SHA256, it.SHA512))
	}
	want := []string{
		"b/2/one x/y inherited 12 md5:00112233445566778899aabbccddeeff sha256: sha512:abababab",
		"b/2/two x/z own 5 md5: sha256:00112233 sha512:abababab",
		"b/2/ami  inherited 0 md5: sha256: sha512:",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("items:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if l.Products[0].Name != "b" || l.Product("a") != l.Products[1] || l.Product("c") != nil {
		t.Error("products are not in file order, or not found by name")
	}
	if v := l.Version("b", "1"); v == nil || v.Name != "1" || l.Version("b", "3") != nil || l.Version("c", "1") != nil {
		t.Error("versions are not found by name")
	}
}

// The error names the place and the reason.
func TestParseProductsErrors(t *testing.T) {
	for doc, want := range map[string]string{
		"":     "cannot parse products: it is not JSON: unexpected end",
		"{} x": "invalid character 'x' after top-level value at byte",
		"[]":   "want an object, found a list",
		"{}":   `format is missing, want "products:1.0"`,
		`{"format": "index:1.0", "content_id": "c", "products": {}}`:                                          `format is "index:1.0", want "products:1.0"`,
		`{"format": 1, "content_id": "c", "products": {}}`:                                                    "format is a number, want a string",
		`{"format": "products:1.0", "products": {}}`:                                                          "content_id is missing",
		`{"format": "products:1.0", "content_id": "c"}`:                                                       "products is missing",
		`{"format": "products:1.0", "content_id": "c", "products": []}`:                                       "products: want an object, found a list",
		`{"format": "products:1.0", "content_id": "c", "products": {"p": 1}}`:                                 "p: want an object, found a number",
		`{"format": "products:1.0", "content_id": "c", "products": {"": {}}}`:                                 "products: a name is empty",
		`{"format": "products:1.0", "content_id": "c", "products": {"p": {"versions": null}}}`:                "p: versions: want an object, found null",
		`{"format": "products:1.0", "content_id": "c", "products": {"p": {"versions": {"v": "x"}}}}`:          "p/v: want an object, found a string",
		`{"format": "products:1.0", "content_id": "c", "products": {"p": {}, "p": {}}}`:                       `products: it has "p" twice`,
		`{"format": "products:1.0", "content_id": "c", "a": 1, "\u0061": 1, "products": {}}`:                  `it has "a" twice`,
		`{"format": "products:1.0", "content_id": "c", "products": {"p": {"x": 1, "x": 1}}}`:                  `p: it has "x" twice`,
		`{"format": "products:1.0", "content_id": "c", "updated": {}, "products": {}}`:                        "updated is an object, want a string",
		`{"format": "products:1.0", "content_id": "c", "_aliases": {"a": {"x": 1}}, "products": {}}`:          "_aliases: want an object, found a number",
		`{"format": "products:1.0", "_aliases": {"a":{"x":{}}}, "content_id":"c","products":{"p":{"a":"y"}}}`: `p: a is "y", which _aliases does not list`,
		"{\"format\": \"\xff\"}":                                       "not UTF-8",
		withItem(`"path": "/etc/passwd", "size": 1, ` + anMD5):         `p/v/i: unsafe path "/etc/passwd": it is absolute`,
		withItem(`"path": "a/../../b", "size": 1, ` + anMD5):           `p/v/i: unsafe path "a/../../b"`,
		withItem(`"path": "", "size": 1, ` + anMD5):                    `p/v/i: unsafe path "": it is empty`,
		withItem(`"path": "a\u0000", "size": 1, ` + anMD5):             "p/v/i: unsafe path \"a\\x00\": it has a control character",
		withItem(`"path": "a\\b", "size": 1, ` + anMD5):                "it has a backslash",
		withItem(`"path": 5, "size": 1, ` + anMD5):                     "p/v/i: path is a number, want a string",
		withItem(`"path": "a", ` + anMD5):                              "p/v/i: it has a path but no size",
		withItem(`"path": "a", "size": 1`):                             "p/v/i: it has a path but none of md5, sha256, sha512",
		withItem(`"path": "a", "size": -1, ` + anMD5):                  `size "-1" is not a whole number`,
		withItem(`"path": "a", "size": 1.0, ` + anMD5):                 `size "1.0" is not a whole number`,
		withItem(`"path": "a", "size": 9223372036854775808, ` + anMD5): "is not a whole number",
		withItem(`"path": "a", "size": "1k", ` + anMD5):                `size "1k" is not a whole number`,
		withItem(`"path": "a", "size": 1, "md5": "00"`):                `md5 "00" is not 32 lower-case hex digits`,
		withItem(`"path": "a", "size": 1, ` + strings.ToUpper(anSHA256[10:]) + `: 1, "sha256": ` + strings.ToUpper(anSHA256[10:])): "is not 64 lower-case hex digits",
		withItem(`"path": "a", "size": 1, "sha512": 5`): `sha512 "5" is not 128`,
	} {
		if _, err := ParseProducts([]byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\tgives %v, want %q", doc, err, want)
		}
	}
}

// Duplicates are found in objects of any size.
func TestDuplicates(t *testing.T) {
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf(`"p%d": {}`, i))
	}
	doc := `{"format": "products:1.0", "content_id": "c", "products": {` + strings.Join(names, ",") + `, "p%d": {}}}`
	for i := range 41 {
		if _, err := ParseProducts([]byte(fmt.Sprintf(doc, i))); (err != nil) != (i < 40) {
			t.Errorf("p%d again gives %v", i, err)
		}
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	doc := append([]byte(withItem("")), strings.Repeat(" ", MaxDocument)...)
	if _, err := ParseProducts(doc); err == nil || !strings.Contains(err.Error(), "the limit is 67108864") {
		t.Errorf("got %v", err)
	}
}

func TestTag(t *testing.T) {
	l := mustParse(t, `{"format": "products:1.0", "content_id": "c", "a": "list", "b": "list", "c": "list", "d": "list",
  "_aliases": {"region": {"eu": {"endpoint": "E", "b": "alias", "more": "us"}}, "more": {"us": {"deep": 1}}},
  "products": {"p": {"b": "product", "product_name": "hidden", "versions": {"v": {"c": "version", "a": null, "item_name": "over", "items": {
    "i": {"d": 4, "b": [], "region": "eu"}, "j": {"product_name": "own"}}}}}}}`)
	p := l.Products[0]
	v := p.Versions[0]
	for _, tt := range []struct {
		item      int
		key, want string
	}{
		{0, "a", "list"}, {0, "b", "alias"}, {0, "c", "version"}, {0, "d", "4"}, {0, "endpoint", "E"}, {0, "deep", "1"},
		{1, "b", "product"}, {1, "endpoint", ""}, {0, "product_name", "p"}, {1, "product_name", "own"}, {0, "version_name", "v"},
		{0, "item_name", "i"}, {0, "content_id", "c"}, {0, "absent", ""},
	} {
		if got, ok := l.Tag(tt.key, p, v, v.Items[tt.item]); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s of %s is %q, %v, want %q", tt.key, v.Items[tt.item].Name, got, ok, tt.want)
		}
	}
	if got, _ := l.Tag("b", p, nil, nil); got != "product" {
		t.Errorf("b of the product is %q", got)
	}
	if got, _ := l.Tag("item_name", p, v, nil); got != "over" {
		t.Errorf("item_name of the version is %q", got)
	}
}

func TestWithSHA256(t *testing.T) {
	l := mustParse(t, withItem(`"path": "a", "size": 1, `+anMD5))
	before := string(l.Render())
	sum := make([]byte, 32)
	known := l.WithSHA256(func(it *Item) []byte { return sum })
	it := known.Products[0].Versions[0].Items[0]
	if hex.EncodeToString(it.SHA256) != it.Fields.Text("sha256") || len(it.SHA256) != 32 {
		t.Errorf("sha256 is %x, and %s", it.SHA256, it.Fields.Raw("sha256"))
	}
	if string(l.Render()) != before {
		t.Error("the list itself changed")
	}
	if l.WithSHA256(func(*Item) []byte { return nil }).Products[0] != l.Products[0] || known.WithSHA256(func(*Item) []byte { return sum[1:] }).Products[0] != known.Products[0] {
		t.Error("products with nothing to add were copied")
	}
}

func FuzzParseProducts(f *testing.F) {
	f.Add([]byte(tagged))
	f.Add([]byte(withItem(`"path": "a", "size": "1", "x": [1, {"y": "\u00e9\ud83d\ude00"}], ` + anMD5)))
	f.Add([]byte(`{"format": "products:1.0", "content_id": "c", "_aliases": {"a": {"x": {"b": 1}}}, "products": {"\ud800": {"a": "x"}}}` + "\n"))
	f.Add(newChaos(1).list("c"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		l, err := ParseProducts(doc)
		if err != nil {
			return
		}
		text := l.Render()
		again, err := ParseProducts(text)
		if err != nil {
			t.Fatalf("what was rendered cannot be parsed: %v\n%s", err, text)
		}
		if string(again.Render()) != string(text) {
			t.Errorf("got\n%s\nthen\n%s", text, again.Render())
		}
		if diff := firstDifference(l, again); diff != "" {
			t.Error(diff)
		}
	})
}

// firstDifference compares the facts of two lists.
func firstDifference(a, b *Products) string {
	flat := func(l *Products) (s []string) {
		for at, it := range l.Items() {
			s = append(s, fmt.Sprintf("%q %q %q %d %x %x %x", at, it.FType, it.Path, it.Size, it.MD5, it.SHA256, it.SHA512))
		}
		return append(s, l.ContentID, l.DataType, l.Updated)
	}
	x, y := flat(a), flat(b)
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i] + " became " + y[i]
		}
	}
	if len(x) != len(y) {
		return fmt.Sprintf("%d items became %d", len(x), len(y))
	}
	return ""
}
