package streams

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
)

// bigList is a list of 50,000 items in the shape of images.maas.io.
func bigList() []byte {
	var b bytes.Buffer
	b.WriteString("{\n \"content_id\": \"com.ubuntu.maas:big\",\n \"datatype\": \"image-ids\",\n \"format\": \"products:1.0\",\n \"products\": {")
	for p := range 1250 {
		if p > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  \"com.ubuntu.maas.stable:v3:boot:%05d\": {\n   \"arch\": \"amd64\",\n   \"label\": \"stable\",\n   \"os\": \"ubuntu\",\n   \"release\": \"r%d\",\n   \"release_title\": \"R\",\n   \"subarch\": \"ga\",\n   \"subarches\": \"generic\",\n   \"version\": \"1\",\n   \"versions\": {", p, p)
		for v := range 10 {
			if v > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "\n    \"202501%02d\": {\n     \"items\": {", v)
			for i, name := range []string{"boot-initrd", "boot-kernel", "manifest", "squashfs"} {
				if i > 0 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, "\n      %q: {\n       \"ftype\": %q,\n       \"kpackage\": \"linux-generic\",\n       \"path\": \"r%d/amd64/202501%02d/ga/generic/%s\",\n       \"sha256\": \"%064x\",\n       \"size\": \"%d\"\n      }", name, name, p, v, name, p*100+v*10+i, i+1)
			}
			b.WriteString("\n     }\n    }")
		}
		b.WriteString("\n   }\n  }")
	}
	b.WriteString("\n },\n \"updated\": \"Thu, 24 Jul 2025 09:01:42 +0000\"\n}")
	return b.Bytes()
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A list of 50,000 items takes the memory of its text, of what is rendered,
// and at most 1280 bytes an item,
// though conforming makes a second value of each.
func TestBigListInBoundedMemory(t *testing.T) {
	doc := bigList()
	before := heap()
	l, err := ParseProducts(doc)
	if err != nil {
		t.Fatal(err)
	}
	parsed := heap()
	chosen := l.Choose(Choice{Selections: mustSelect(t, "os=ubuntu arch=amd64"), MaxVersions: 10})
	conformed, found := chosen.Conform(All)
	if len(found) > 0 {
		t.Fatal(found[0])
	}
	text := conformed.Render()
	after := heap()
	n := int64(0)
	for range conformed.Items() {
		n++
	}
	if n != 50_000 {
		t.Fatalf("%d items, want 50000", n)
	}
	t.Logf("document %d bytes; parsed %d, all %d bytes an item", len(doc), (parsed-before)/n, (after-before-int64(len(text)))/n)
	if grown := after - before - int64(len(text)); grown > n*1280 {
		t.Errorf("%d items took %d bytes of heap, want at most 1280 each", n, grown)
	}
	for _, kept := range []any{doc, l, chosen, conformed, text} {
		runtime.KeepAlive(kept)
	}
}

func mustSelect(t testing.TB, texts ...string) (s Selections) {
	t.Helper()
	for _, text := range texts {
		sel, err := ParseSelection(text)
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, sel)
	}
	return s
}
