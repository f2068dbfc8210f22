package streams

import (
	"strings"
	"testing"
)

func TestParseIndex(t *testing.T) {
	x, err := ParseIndex([]byte(`{"format": "index:1.0", "updated": "u", "more": {}, "index": {
  "com.ubuntu.maas:stable:v3:download": {"path": "streams/v1/x.json", "format": "products:1.0", "datatype": "d", "updated": "e", "products": ["b", "a"], "extra": 1},
  "other": {}}}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	e := x.Entries[0]
	if x.Format != "index:1.0" || x.Updated != "u" || len(x.Entries) != 2 || e.ContentID != "com.ubuntu.maas:stable:v3:download" ||
		e.Path != "streams/v1/x.json" || e.Format != "products:1.0" || e.DataType != "d" || e.Updated != "e" || strings.Join(e.Products, " ") != "b a" {
		t.Errorf("got %+v with entry %+v", x, e)
	}
	if !x.MAAS() || (&Index{Entries: x.Entries[1:]}).MAAS() {
		t.Error("MAAS is wrong")
	}
	want := `{
 "format": "index:1.0",
 "updated": "u",
 "more": {},
 "index": {
  "com.ubuntu.maas:stable:v3:download": {
   "path": "streams/v1/x.json",
   "format": "products:1.0",
   "datatype": "d",
   "updated": "e",
   "products": [
    "b",
    "a"
   ],
   "extra": 1
  },
  "other": {}
 }
}
`
	if got := string(x.Render()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseIndexErrors(t *testing.T) {
	entry := func(members string) string {
		return `{"format": "index:1.0", "index": {"c": {` + members + `}}}`
	}
	for doc, want := range map[string]string{
		`{"index": {}}`: "cannot parse index: format is missing",
		`{"format": "products:1.0", "index": {}}`:         `format is "products:1.0", want "index:1.0"`,
		`{"format": "index:1.0"}`:                         "index is missing",
		`{"format": "index:1.0", "index": {"c": []}}`:     `entry "c": want an object, found a list`,
		`{"format": "index:1.0", "index": {}, "index":1}`: `it has "index" twice`,
		entry(`"format": "products:1.0"`):                 `entry "c": unsafe path "": it is empty`,
		entry(`"path": "../x"`):                           `entry "c": unsafe path "../x"`,
		entry(`"path": ""`):                               `entry "c": unsafe path "": it is empty`,
		entry(`"path": []`):                               `entry "c": path is a list, want a string`,
		entry(`"path": "x", "products": "p"`):             `entry "c": products is not a list of strings`,
		entry(`"path": "x", "products": ["p", 1]`):        `entry "c": products is not a list of strings`,
		entry(`"path": "x", "updated": 5`):                `entry "c": updated is a number`,
		entry(`"path": "x", "a": 1, "a": 2`):              `entry "c": it has "a" twice`,
	} {
		if _, err := ParseIndex([]byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\tgives %v, want %q", doc, err, want)
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"format": "index:1.0", "index": {"c": {"path": "streams/v1/c.json", "format": "products:1.0", "products": ["p"], "x": {"y": []}}}, "updated": "u"}`))
	f.Add([]byte(`{"index": {}, "format": "index:1.0", "é": 1e5}` + "\n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		x, err := ParseIndex(doc)
		if err != nil {
			return
		}
		text := x.Render()
		again, err := ParseIndex(text)
		if err != nil {
			t.Fatalf("what was rendered cannot be parsed: %v\n%s", err, text)
		}
		if string(again.Render()) != string(text) || len(again.Entries) != len(x.Entries) {
			t.Errorf("got\n%s\nthen\n%s", text, again.Render())
		}
	})
}
