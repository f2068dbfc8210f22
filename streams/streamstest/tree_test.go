package streamstest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"oxbow/streams"
)

// document is a rendered index or list, as any reader sees it.
type document struct {
	ContentID string `json:"content_id"`
	Updated   string
	Index     map[string]struct {
		Path, Updated string
		Products      []string
	}
	Products map[string]struct {
		Versions map[string]struct {
			Items map[string]struct {
				Path, SHA256, MD5, SHA512 string
				Size                      any
			}
		}
	}
}

func decode(t *testing.T, p *Publication, path string) (d document) {
	t.Helper()
	text := p.Document(path)
	if text == nil {
		t.Fatalf("no %s in %q", path, p.Paths())
	}
	if strings.HasSuffix(path, ".sjson") {
		var err error
		if text, err = streams.ClearText(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return d
}

// Every list is there in three forms, signed by the tree's key, named by the
// index of its family; every item's path, size and sum are those of the file.
func TestRenderKeepsItsPromises(t *testing.T) {
	trees := map[string]*Tree{
		"MAAS":  MAAS(Shape{Notifications: true}),
		"plain": Plain(PlainShape{Products: 3, Versions: 2}),
	}
	for seed := range uint64(40) {
		trees[fmt.Sprint("random ", seed)] = Random(seed)
	}
	for name, tree := range trees {
		site := tree.Render()
		ring, err := streams.ReadKeyring(tree.Keyring())
		if err != nil {
			t.Fatal(err)
		}
		for path, doc := range site.Documents() {
			switch {
			case strings.HasSuffix(path, ".sjson"):
				_, err = ring.Verify(doc, time.Now())
			case strings.HasSuffix(path, ".json"):
				_, err = ring.VerifyDetached(doc, site.Document(path+".gpg"), time.Now())
			}
			if err != nil {
				t.Errorf("%s: %s: %v", name, path, err)
			}
		}
		for _, suffix := range []string{".json", ".sjson"} {
			for id, entry := range decode(t, site, "streams/v1/index"+suffix).Index {
				if filepath.Ext(entry.Path) != suffix {
					t.Errorf("%s: index%s names %s", name, suffix, entry.Path)
				}
				l := decode(t, site, entry.Path)
				if l.ContentID != id || !slices.Equal(slices.Sorted(maps.Keys(l.Products)), slices.Clone(entry.Products)) {
					t.Errorf("%s: %s is of %s with %q, the index says %s with %q", name, entry.Path, l.ContentID,
						slices.Sorted(maps.Keys(l.Products)), id, entry.Products)
				}
			}
		}
		lists := make(map[*List]document)
		for _, l := range tree.Lists {
			lists[l] = decode(t, site, signedPath(l.path()))
		}
		for e := range tree.Entries() {
			f := e.Item.File
			if f == nil {
				continue
			}
			got := lists[e.List].Products[e.Product.Name].Versions[e.Version.Name].Items[e.Item.Name]
			if got.Path != f.Path || fmt.Sprint(got.Size) != fmt.Sprint(len(f.Bytes())) {
				t.Errorf("%s: %s: got %s of %v bytes, want %s of %d", name, e, got.Path, got.Size, f.Path, len(f.Bytes()))
			}
			for kind, sum := range map[string]string{"md5": got.MD5, "sha256": got.SHA256, "sha512": got.SHA512} {
				if given := slices.Contains(append(e.Item.Sums, "sha256")[:max(1, len(e.Item.Sums))], kind); given != (sum != "") || given && sum != f.Sum(kind) {
					t.Errorf("%s: %s: %s is %q, want %q (given: %v)", name, e, kind, sum, f.Sum(kind), given)
				}
			}
		}
	}
}

// The same arguments make the same upstream, in this run and the next.
func TestTreesAreTheSameInEveryRun(t *testing.T) {
	for seed := range uint64(10) {
		a, b := Random(seed), Random(seed)
		b.Key = a.Key
		if !maps.EqualFunc(a.Render().Documents(), b.Render().Documents(), bytes.Equal) {
			t.Errorf("seed %d: two trees differ", seed)
		}
	}
	if got, want := NewFile("noble/amd64/20250718/squashfs", 1000).Sum("sha256"), "692e1f36"; !strings.HasPrefix(got, want) {
		t.Errorf("content changed: sha256 %s, want %s…", got, want)
	}
}

// Python's layout is taken from upstream's own documents.
func TestLayoutIsUpstreams(t *testing.T) {
	paths, err := filepath.Glob("../../../shared/streams/maas-fixture/streams/v1/*.json")
	if err != nil || len(paths) == 0 {
		t.Skip("no captured documents here")
	}
	for _, path := range paths {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		d := json.NewDecoder(bytes.NewReader(want))
		d.UseNumber()
		if err := d.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		if got := pythonJSON(tagged(doc)); string(got) != strings.TrimRight(string(want), "\n") {
			t.Errorf("%s is laid out differently:\n%s", path, got)
		}
	}
}

// tagged turns decoded JSON into what the encoder takes.
func tagged(v any) any {
	switch v := v.(type) {
	case map[string]any:
		t := make(Tags)
		for key, value := range v {
			t[key] = tagged(value)
		}
		return t
	case []any:
		var all []string
		for _, value := range v {
			all = append(all, value.(string))
		}
		return all
	case json.Number:
		return json.RawMessage(v)
	}
	return v
}

func TestStringsAreEscapedAsPythonDoes(t *testing.T) {
	got := string(pythonJSON(Tags{"a": "ü\u2028🐂\x7f\x01\t\"\\/<&>", "b": []string{}, "c": Tags{}, "d": nil, "e": true, "f": 7}))
	want := "{\n \"a\": \"\\u00fc\\u2028\\ud83d\\udc02\\u007f\\u0001\\t\\\"\\\\/<&>\",\n \"b\": [],\n \"c\": {},\n \"e\": true,\n \"f\": 7\n}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestContentReadsTheSameInAnyWay(t *testing.T) {
	for _, size := range []int64{0, 1, 7, 8, 9, 4096, 100_001} {
		f := NewFile("a/b", size)
		want := f.Bytes()
		if int64(len(want)) != size {
			t.Errorf("%d bytes of content, want %d", len(want), size)
		}
		if err := iotest.TestReader(f.Open(), want); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
		whole := NewFile("a/b", size+100).Bytes()
		if !bytes.Equal(want, whole[:size]) {
			t.Errorf("size %d is not the beginning of a longer one", size)
		}
	}
}

func TestBrokenFilesDiffer(t *testing.T) {
	good := NewFile("a/b", 999).Bytes()
	changed := bytes.Clone(good)
	changed[499] ^= 0xff
	tests := []struct {
		how  Breakage
		want []byte
	}{
		{Whole, good},
		{WrongHash, newBytes("wrong a/b", 999)},
		{Flipped, changed},
		{Short, good[:998]},
		{Long, append(bytes.Clone(good), 0)},
	}
	for _, test := range tests {
		f := NewFile("a/b", 999)
		f.Broken = test.how
		content, size := f.served()
		got, err := io.ReadAll(io.NewSectionReader(content, 0, size))
		if err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%v: %d bytes, error %v, not as wanted (%d bytes)", test.how, len(got), err, len(test.want))
		}
		if f.Sum("sha256") != NewFile("a/b", 999).Sum("sha256") {
			t.Errorf("%v changes what is declared", test.how)
		}
	}
}

func newBytes(seed string, size int64) []byte { return (&File{Seed: seed, Size: size}).Bytes() }

func TestMAASHasTheShapeOfTheRealStream(t *testing.T) {
	tree := MAAS(Shape{})
	var names []string
	for _, l := range tree.Lists {
		for _, p := range l.Products {
			names = append(names, p.Name)
			if len(p.Versions) != 2 {
				t.Errorf("%s has %d versions, want 2", p.Name, len(p.Versions))
			}
		}
	}
	want := []string{
		"com.ubuntu.maas.stable:v3:boot:22.04:amd64:ga-22.04",
		"com.ubuntu.maas.stable:v3:boot:22.04:amd64:hwe-22.04",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:hwe-24.04",
		"com.ubuntu.maas.stable:centos-bases:8:amd64",
		"com.ubuntu.maas.stable:1:grub-efi-signed:uefi:amd64",
		"com.ubuntu.maas.stable:1:grub-efi:uefi:arm64",
		"com.ubuntu.maas.stable:1:grub-ieee1275:open-firmware:ppc64el",
		"com.ubuntu.maas.stable:1:pxelinux:pxe:amd64",
		"com.ubuntu.maas.stable:1:pxelinux:pxe:i386",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got products\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	sharers := 0
	for e := range tree.Entries() {
		if e.Item.File == tree.File("noble/amd64/20250718/squashfs") {
			sharers++
		}
	}
	if sharers != 2 {
		t.Errorf("a squashfs is shared by %d kernels, want 2", sharers)
	}
}

func TestChanges(t *testing.T) {
	tree := MAAS(Shape{})
	old := tree.Clone()
	added := tree.AddDay()
	if !slices.Contains(added, "jammy/amd64/20250719/squashfs") || !slices.Contains(added, "centos/centos8/amd64/20250719_01/root-tgz") {
		t.Errorf("a new day brought %q", added)
	}
	if a, b := tree.File("jammy/amd64/20250719/squashfs").Sum("sha256"), tree.File("jammy/amd64/20250718/squashfs").Sum("sha256"); a == b {
		t.Error("the new version has the old content")
	}
	if got, want := len(tree.Files()), len(old.Files())+len(added); got != want {
		t.Errorf("%d files after a day, want %d", got, want)
	}
	if !tree.Updated.After(old.Updated) || !tree.Lists[0].Updated.After(old.Lists[0].Updated) {
		t.Error("a new day did not move the dates on")
	}
	if loaders := tree.Lists[2]; !loaders.Updated.Equal(old.Lists[2].Updated) {
		t.Errorf("a new day moved the date of %s on", loaders.ContentID)
	}
	tree.Trim(2)
	if got, want := len(tree.Files()), len(old.Files()); got != want {
		t.Errorf("%d files after a day and a trim, want %d as before", got, want)
	}
	if tree.Files()["jammy/amd64/20250717/squashfs"] != nil {
		t.Error("a trim left the oldest version")
	}
	tree.Drop("com.ubuntu.maas.stable:centos-bases:8:amd64")
	if tree.Files()["centos/centos8/amd64/20250719_01/root-tgz"] != nil {
		t.Error("a dropped product left its files")
	}
	if len(old.Files()) != len(MAAS(Shape{}).Files()) {
		t.Error("changes went through to the clone")
	}
}

func TestWriteDir(t *testing.T) {
	tree := MAAS(Shape{})
	tree.Extra = map[string]*File{"README": NewText("README", "hello\n")}
	tree.Break("noble/amd64/20250718/squashfs", Absent)
	site, dir := tree.Render(), t.TempDir()
	if err := site.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, name)
			got = append(got, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, site.Paths()) {
		t.Errorf("wrote\n%q, want\n%q", got, site.Paths())
	}
	f := tree.File("noble/amd64/20250717/squashfs")
	if data, err := os.ReadFile(filepath.Join(dir, f.Path)); err != nil || !bytes.Equal(data, f.Bytes()) {
		t.Errorf("%s: %d bytes, error %v, want %d", f.Path, len(data), err, f.Length())
	}
}
