package streams

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var siteKey = sync.OnceValue(func() *SigningKey { return newSiteKey() })

func newSiteKey() *SigningKey {
	key, err := GenerateSigningKey(Ed25519, "site", day(0))
	if err != nil {
		panic(err)
	}
	return key
}

// day is noon of the n-th day of the tests.
func day(n int) time.Time { return time.Date(2025, 8, 1+n, 12, 0, 0, 0, time.UTC) }

// A published site is what Render returned, by path.
type published map[Path][]byte

func (p published) get(path Path) []byte { return p[path] }

func publish(t *testing.T, s Site, x *Index, lists ...*Products) (published, []Finding) {
	t.Helper()
	if s.Key == nil {
		s.Key = siteKey()
	}
	docs, found, err := s.Render(x, lists)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(docs, func(a, b Document) int { return strings.Compare(string(a.Path), string(b.Path)) }) {
		t.Error("documents are not sorted by path")
	}
	p := published{}
	for _, d := range docs {
		if _, err := ParsePath(string(d.Path)); err != nil || p[d.Path] != nil {
			t.Errorf("path %s: %v, or twice", d.Path, err)
		}
		p[d.Path] = d.Bytes
	}
	p.check(t, s)
	return p, found
}

// check reads the site as clients do: both families, whole, signed, and clean.
func (p published) check(t *testing.T, s Site) {
	t.Helper()
	k, err := ReadKeyring(s.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for path, doc := range p {
		if name, signed := strings.CutSuffix(string(path), ".sjson"); signed {
			text, err := k.Verify(doc, s.Updated)
			if err != nil {
				t.Errorf("%s: %v", path, err)
			} else if name != "streams/v1/index" && !sameText(text.Text, p[Path(name+".json")]) {
				t.Errorf("%s does not say what %s.json says", path, name)
			}
		}
		if name, apart := strings.CutSuffix(string(path), ".gpg"); apart {
			if _, err := k.VerifyDetached(p[Path(name)], doc, s.Updated); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	for _, ending := range []string{".json", ".sjson"} {
		x, lists := p.read(t, ending)
		for _, f := range Lint(x, lists, s.Profile) {
			t.Errorf("published: %v", f)
		}
	}
}

// read parses the index with that ending, and the lists that it names.
func (p published) read(t *testing.T, ending string) (*Index, []*Products) {
	t.Helper()
	text := func(path Path) []byte {
		doc := p[path]
		if !strings.HasSuffix(string(path), ending) || doc == nil {
			t.Fatalf("no %s document at %s", ending, path)
		}
		if ending == ".sjson" {
			var err error
			if doc, err = ClearText(doc); err != nil {
				t.Fatal(err)
			}
		}
		return doc
	}
	x, err := ParseIndex(text(Path("streams/v1/index" + ending)))
	if err != nil {
		t.Fatal(err)
	}
	var lists []*Products
	for _, e := range x.Entries {
		lists = append(lists, mustParse(t, string(text(e.Path))))
	}
	return x, lists
}

// upstreamIndex names lists of the given content ids as upstream does.
func upstreamIndex(t *testing.T, ids ...string) *Index {
	t.Helper()
	var entries []string
	for _, id := range ids {
		entries = append(entries, fmt.Sprintf(`%q: {"datatype": "image-ids", "extra": {"kept": 1}, "format": "products:1.0", "path": "streams/v1/%s.sjson", "products": ["gone"], "updated": "old"}`, id, id))
	}
	x, err := ParseIndex([]byte(`{"format": "index:1.0", "index": {` + strings.Join(entries, ",") + `}, "unknown": true, "updated": "old"}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func goodList(t *testing.T, id string, products ...string) *Products {
	t.Helper()
	l := listOf(products...)
	l["content_id"] = id
	return mustParse(t, string(marshal(l)))
}

func TestSite(t *testing.T) {
	a, b := goodList(t, "a", goodMulti, goodMulti), goodList(t, "b", goodLoader)
	x := upstreamIndex(t, "b", "a")
	before := string(x.Render())
	p, found := publish(t, Site{Updated: day(1), Profile: All}, x, a, b)
	if len(found) > 0 {
		t.Error(found)
	}
	if string(x.Render()) != before {
		t.Error("Render changed the index that it was given")
	}
	got, lists := p.read(t, ".json")
	edition := func(i int) string { return strings.Split(string(got.Entries[i].Path), "/")[2] }
	want := fmt.Sprintf(`{
 "format": "index:1.0",
 "index": {
  "b": {
   "datatype": "image-ids",
   "extra": {
    "kept": 1
   },
   "format": "products:1.0",
   "path": "streams/v1/%s/b.json",
   "products": [
    "p"
   ],
   "updated": "Sat, 02 Aug 2025 12:00:00 +0000"
  },
  "a": {
   "datatype": "image-ids",
   "extra": {
    "kept": 1
   },
   "format": "products:1.0",
   "path": "streams/v1/%s/a.json",
   "products": [
    "p",
    "p+"
   ],
   "updated": "Sat, 02 Aug 2025 12:00:00 +0000"
  }
 },
 "unknown": true,
 "updated": "Sat, 02 Aug 2025 12:00:00 +0000"
}
`, edition(0), edition(1))
	if text := string(p["streams/v1/index.json"]); text != want {
		t.Errorf("index is\n%s\nwant\n%s", text, want)
	}
	if edition(0) == edition(1) || len(edition(0)) != 12 {
		t.Errorf("editions are %s and %s", edition(0), edition(1))
	}
	if words(lists[1]) != words(a) || lists[1].Updated != FormatTime(day(1)) {
		t.Errorf("list a has %s, of %s", words(lists[1]), lists[1].Updated)
	}
	var paths []string
	for _, dir := range []string{"streams/v1/", "streams/v1/" + edition(0) + "/", "streams/v1/" + edition(1) + "/"} {
		for _, id := range []string{"a", "b", "index"} {
			if dir == "streams/v1/" || id == map[string]string{edition(0): "b", edition(1): "a"}[strings.Split(dir, "/")[2]] {
				paths = append(paths, dir+id+".json", dir+id+".json.gpg", dir+id+".sjson")
			}
		}
	}
	slices.Sort(paths)
	if names := p.paths(); !slices.Equal(names, paths) {
		t.Errorf("documents are %q, want %q", names, paths)
	}
	for _, ending := range []string{".json", ".sjson", ".json.gpg"} {
		if !bytes.Equal(p[Path("streams/v1/a"+ending)], p[Path("streams/v1/"+edition(1)+"/a"+ending)]) {
			t.Errorf("the plain a%s differs from that of the edition", ending)
		}
	}
}

func (p published) paths() (names []string) {
	for path := range p {
		names = append(names, string(path))
	}
	slices.Sort(names)
	return names
}

// A list that did not change keeps its date, its paths and its very bytes; the
// others are new, and so is the index then.
func TestSiteKeepsUnchangedLists(t *testing.T) {
	x := upstreamIndex(t, "a", "b")
	first, _ := publish(t, Site{Updated: day(1), Profile: All}, x, goodList(t, "a", goodMulti), goodList(t, "b", goodLoader))
	a := goodList(t, "a", goodMulti)
	a.setUpdated("Fri, 25 Jul 2025 00:00:00 +0000")
	second, _ := publish(t, Site{Updated: day(2), Profile: All, Previous: first.get}, x, a, goodList(t, "b", goodLoader, goodLoader))
	for path, doc := range first {
		kept := bytes.Equal(second[path], doc)
		if want := strings.Contains(string(path), "/a."); kept != want {
			t.Errorf("%s is kept: %v, want %v", path, kept, want)
		}
	}
	got, lists := second.read(t, ".sjson")
	if got.Entries[0].Updated != FormatTime(day(1)) || lists[0].Updated != FormatTime(day(1)) || lists[1].Updated != FormatTime(day(2)) {
		t.Errorf("dates are %s, %s and %s", got.Entries[0].Updated, lists[0].Updated, lists[1].Updated)
	}

	if first, _ := first.read(t, ".json"); first.Updated != FormatTime(day(1)) || got.Updated != FormatTime(day(2)) {
		t.Errorf("indexes are of %s and %s", first.Updated, got.Updated)
	}

	// With nothing new, nothing is.
	same, _ := publish(t, Site{Updated: day(3), Profile: All, Previous: second.get}, x, a, goodList(t, "b", goodLoader, goodLoader))
	for path, doc := range second {
		if !bytes.Equal(same[path], doc) {
			t.Errorf("%s is new, want the previous one", path)
		}
	}

	// A new key signs everything anew, and leaves the texts.
	third, _ := publish(t, Site{Updated: day(3), Profile: All, Previous: second.get, Key: newSiteKey()}, x, a, goodList(t, "b", goodLoader, goodLoader))
	for path, doc := range second {
		kept := bytes.Equal(third[path], doc)
		if want := strings.HasSuffix(string(path), ".json"); kept != want {
			t.Errorf("with a new key, %s is kept: %v, want %v", path, kept, want)
		}
	}

	// What was damaged is not kept.
	damaged := published{}
	for path, doc := range second {
		damaged[path] = append(slices.Clone(doc), "x"...)
	}
	publish(t, Site{Updated: day(3), Profile: All, Previous: damaged.get}, x, a)
}

func TestSiteIsDeterministic(t *testing.T) {
	x, a := upstreamIndex(t, "a"), goodList(t, "a", goodSingle)
	one, _ := publish(t, Site{Updated: day(1), Profile: All}, x, a)
	two, _ := publish(t, Site{Updated: day(1), Profile: All}, x, a)
	for path, doc := range one {
		if strings.HasSuffix(string(path), ".json") && !bytes.Equal(two[path], doc) {
			t.Errorf("%s differs", path)
		}
	}
	if !slices.Equal(one.paths(), two.paths()) {
		t.Error("paths differ")
	}
}

// Lists that upstream's index does not name (any more) are published, too.
func TestSiteWithoutUpstreamEntry(t *testing.T) {
	x := upstreamIndex(t, "a", "d")
	p, _ := publish(t, Site{Updated: day(1), Profile: All}, x, goodList(t, "b", goodSingle), goodList(t, "d", goodSingle), goodList(t, "a", goodSingle))
	got, _ := p.read(t, ".sjson")
	var ids []string
	for _, e := range got.Entries {
		ids = append(ids, e.ContentID)
	}
	if strings.Join(ids, " ") != "a b d" || p["streams/v1/b.sjson"] == nil {
		t.Errorf("entries are %q", ids)
	}
}

func TestSiteLeavesOut(t *testing.T) {
	notes := goodList(t, "notes", goodMulti)
	notes.DataType = "release-notifications"
	notes.Fields.SetText("datatype", notes.DataType)
	bad := goodList(t, "b", strings.ReplaceAll(goodMulti, "manifest", "other"))
	x := upstreamIndex(t, "a", "b", "notes")
	p, found := publish(t, Site{Updated: day(1), Profile: All}, x, goodList(t, "a", goodMulti), bad, notes)
	if got, _ := p.read(t, ".sjson"); len(got.Entries) != 1 || got.Entries[0].ContentID != "a" {
		t.Errorf("published %v", p.paths())
	}
	if len(found) != 2 || found[0].ContentID != "b" || found[1].ContentID != "notes" {
		t.Errorf("found %v", found)
	}
	p, found = publish(t, Site{Updated: day(1), Profile: Legacy}, x, bad, notes)
	if got, _ := p.read(t, ".sjson"); len(got.Entries) != 2 || len(found) > 0 {
		t.Errorf("legacy: published %v, found %v", p.paths(), found)
	}
	if _, found, err := (Site{Updated: day(1), Profile: V38, Key: siteKey()}).Render(x, []*Products{notes}); !errors.Is(err, ErrNothing) || len(found) != 1 {
		t.Errorf("nothing to publish gives %v, %v", found, err)
	}
}

func TestSiteErrors(t *testing.T) {
	item := strings.ReplaceAll(goodMulti, "x/y", "elsewhere/a.json")
	elsewhere, err := ParseIndex([]byte(`{"format": "index:1.0", "index": {"a": {"path": "elsewhere/a.json"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		x     *Index
		lists []*Products
		key   *SigningKey
		want  string
	}{
		{upstreamIndex(t, "a"), []*Products{goodList(t, "a", goodMulti)}, nil, "there is no signing key"},
		{upstreamIndex(t, "a"), []*Products{goodList(t, "a", goodMulti), goodList(t, "a", goodMulti)}, siteKey(), "there are two lists of that content id"},
		{elsewhere, []*Products{goodList(t, "a", item)}, siteKey(), "a: p/v/boot-initrd has the path of a document, elsewhere/a.json"},
	} {
		_, _, err := Site{Updated: day(1), Profile: All, Key: tt.key}.Render(tt.x, tt.lists)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

// A site that mirrors a site gives its lists plain names of its own.
func TestSiteOfASite(t *testing.T) {
	up, _ := publish(t, Site{Updated: day(1), Profile: All}, upstreamIndex(t, "a"), goodList(t, "a", goodMulti, goodMulti))
	x, lists := up.read(t, ".sjson")
	lists[0] = lists[0].Choose(Choice{Selections: mustSelect(t, "product_name=p")})
	down, _ := publish(t, Site{Updated: day(2), Profile: All}, x, lists...)
	if down["streams/v1/a.sjson"] == nil || len(down.paths()) != 9 || down[x.Entries[0].Path] != nil {
		t.Errorf("documents are %q", down.paths())
	}
}

func TestRandomSites(t *testing.T) {
	for seed := range uint64(60) {
		c := newChaos(seed)
		var lists []*Products
		for _, id := range []string{"com.ubuntu.maas:a", "com.ubuntu.maas:b", "com.ubuntu.maas:c"} {
			if l := parseRandom(t, c, id); l != nil {
				lists = append(lists, l)
			}
		}
		s := Site{Updated: day(1), Profile: pick(c, Legacy, V38, All, Plain), Key: siteKey()}
		x := upstreamIndex(t, "com.ubuntu.maas:c", "com.ubuntu.maas:a")
		if _, _, err := s.Render(x, lists); errors.Is(err, ErrNothing) {
			continue
		}
		t.Run(fmt.Sprint("seed", seed, s.Profile), func(t *testing.T) { publish(t, s, x, lists...) })
	}
}

// Lists whose plain names clash do not keep each other, or the index, from being
// published.
func TestSiteWithClashingNames(t *testing.T) {
	x, err := ParseIndex([]byte(`{"format": "index:1.0", "index": {
		"a": {"path": "streams/v1/x.json"}, "b": {"path": "streams/v1/x.sjson"}, "c": {"path": "streams/v1/index.json"},
		"x": {"path": "streams/v1/y.json"}, "index": {"path": "streams/v1/index.sjson"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, found := publish(t, Site{Updated: day(1), Profile: All}, x,
		goodList(t, "a", goodMulti), goodList(t, "b", goodMulti, goodMulti), goodList(t, "c", goodLoader), goodList(t, "x", goodSingle), goodList(t, "index", goodMulti))
	_, lists := p.read(t, ".sjson")
	for i, plain := range []Path{"streams/v1/x.json", "streams/v1/b.json", "streams/v1/c.json", "streams/v1/y.json"} {
		if l := mustParse(t, string(p[plain])); l.ContentID != lists[i].ContentID {
			t.Errorf("%s is the list %s, want %s", plain, l.ContentID, lists[i].ContentID)
		}
	}
	if len(lists) != 4 || len(found) != 1 || found[0].ContentID != "index" || !strings.Contains(found[0].Problem, "another document has the path streams/v1/index") {
		t.Errorf("%d lists, found %v", len(lists), found)
	}
}

// What makes a line that gpgv refuses is left out, and the rest is published,
// whatever the profile.
func TestSiteWithLongLines(t *testing.T) {
	long := strings.Repeat("x", 19_000)
	for _, profile := range []Profile{Plain, Legacy, V38, All} {
		for name, fields := range map[string]func(bad *Products) *Fields{
			"list":    func(l *Products) *Fields { return &l.Fields },
			"product": func(l *Products) *Fields { return &l.Products[0].Fields },
			"version": func(l *Products) *Fields { return &l.Products[0].Versions[0].Fields },
			"item":    func(l *Products) *Fields { return &l.Products[0].Versions[0].Items[0].Fields },
		} {
			for what, value := range map[string]string{
				"text": `"` + long + `"`, "nested": `{"a": ["b", "` + long + `"]}`, "number": "1" + strings.Repeat("0", 19_000),
				"escaped later": `"` + strings.Repeat("é", 4_000) + `"`,
			} {
				bad := goodList(t, "b", goodMulti)
				fields(bad).Set("long", []byte(value))
				p, found := publish(t, Site{Updated: day(1), Profile: profile}, upstreamIndex(t, "a", "b"), goodList(t, "a", goodMulti), bad)
				if x, _ := p.read(t, ".sjson"); len(x.Entries) != 1 || len(found) != 1 || found[0].ContentID != "b" || len(found[0].Problem) > 200 {
					t.Errorf("%s, %s at %s: %d lists, found %v", profile, what, name, len(x.Entries), found)
				}
			}
		}
	}

	// Many short lines are fine.
	good := goodList(t, "a", goodMulti)
	good.Products[0].Fields.Set("many", []byte("["+strings.Repeat(`"0123456789", `, 4000)+"1]"))
	if _, found := publish(t, Site{Updated: day(1), Profile: Plain}, upstreamIndex(t, "a"), good); len(found) > 0 {
		t.Errorf("found %v", found)
	}

	// Of the index the members go.
	x := upstreamIndex(t, "a")
	x.Fields.SetText("long", long)
	x.Entries[0].Fields.SetText("long", long)
	p, found := publish(t, Site{Updated: day(1), Profile: Plain}, x, goodList(t, "a", goodMulti))
	if got, _ := p.read(t, ".sjson"); got.Fields.has("long") || got.Entries[0].Fields.has("long") || len(found) != 2 {
		t.Errorf("index %s, found %v", got.Render(), found)
	}
}
