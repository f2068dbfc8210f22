package streams

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shared returns the documents below a directory of ../../shared/streams, which
// is not part of this repository.
func shared(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	root := filepath.Join("../../shared/streams", dir)
	if _, err := os.Stat(root); err != nil {
		t.Skip("no", root)
	}
	docs := map[string][]byte{}
	for _, pattern := range []string{"streams/v1/*.json", "*/streams/v1/*.json"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if docs[name], err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	return docs
}

// render parses and renders an index or a list.
func render(t *testing.T, name string, doc []byte) []byte {
	t.Helper()
	if filepath.Base(name) == "index.json" {
		x, err := ParseIndex(doc)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return x.Render()
	}
	l, err := ParseProducts(doc)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l.Render()
}

func TestRenderKeepsUpstreamBytes(t *testing.T) {
	docs := shared(t, "maas-fixture")
	if len(docs) != 4 {
		t.Errorf("%d documents, want 4", len(docs))
	}
	for name, doc := range docs {
		if got := render(t, name, doc); string(got) != string(doc) {
			t.Errorf("%s is not the same after parsing and rendering", name)
		}
	}
}

// Documents in other layouts keep everything but white space.
func TestRenderKeepsContent(t *testing.T) {
	docs := shared(t, "simplestreams-examples")
	if len(docs) != 8 {
		t.Errorf("%d documents, want 8", len(docs))
	}
	for name, doc := range docs {
		got := render(t, name, doc)
		if string(compact(t, got)) != string(compact(t, doc)) {
			t.Errorf("%s has another content after parsing and rendering", name)
		}
		if again := render(t, name, got); string(again) != string(got) {
			t.Errorf("%s changes when rendered again", name)
		}
	}
}

func compact(t *testing.T, doc []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatal(err)
	}
	return marshal(v)
}

// The layout is that of python's json.dumps(indent=1, separators=(',', ': ')).
func TestRenderLayout(t *testing.T) {
	in := `{"format":"products:1.0","content_id":"c","e":{},"l":[],"n":[1,[{"a":"\u00e9 é \/","b":-1.50E+2}],null],
	"products":{"p \"é😀\u0001\u007f\n":{"versions":{},"x":true},"q":{"versions":{"v":{"items":{"i":{}}}}}}}` + " \n\t\n"
	want := `{
 "format": "products:1.0",
 "content_id": "c",
 "e": {},
 "l": [],
 "n": [
  1,
  [
   {
    "a": "\u00e9 é \/",
    "b": -1.50E+2
   }
  ],
  null
 ],
 "products": {
  "p \"\u00e9\ud83d\ude00\u0001\u007f\n": {
   "versions": {},
   "x": true
  },
  "q": {
   "versions": {
    "v": {
     "items": {
      "i": {}
     }
    }
   }
  }
 }
}` + " \n\t\n"
	if got := string(mustParse(t, in).Render()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFieldsSet(t *testing.T) {
	f := Fields{{"b", json.RawMessage("1")}, {"d", json.RawMessage("2")}}
	old := f
	f.SetText("c", "x\"y")
	f.Set("b", json.RawMessage("3"))
	f.SetText("a", "")
	f.SetText("e", "é")
	var got strings.Builder
	for _, e := range f {
		got.WriteString(e.Key + string(e.Value) + " ")
	}
	if want := `a"" b3 c"x\"y" d2 e"\u00e9" `; got.String() != want {
		t.Errorf("got %s, want %s", got.String(), want)
	}
	if string(old.Raw("b")) != "1" || len(old) != 2 {
		t.Error("Set changed the members that were shared")
	}
	if f.SetText("q", "\\\t\r\b\f\n\x7f😀"); string(f.Raw("q")) != `"\\\t\r\b\f\n\u007f\ud83d\ude00"` || f.Text("q") != "\\\t\r\b\f\n\x7f😀" {
		t.Errorf("quoted as %s", f.Raw("q"))
	}
	if f.Text("c") != `x"y` || f.Text("e") != "é" || f.Text("b") != "3" || f.Text("z") != "" || f.Raw("z") != nil {
		t.Error("Text or Raw is wrong")
	}
}
