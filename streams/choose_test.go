package streams

import (
	"fmt"
	"strings"
	"testing"
)

// aList is a list with the products, versions and items that the words name, as
// "product/version/item"; each tag of tags stands at the product of its name.
func aList(t testing.TB, tags map[string]string, words string) *Products {
	t.Helper()
	l := mustParse(t, `{"content_id": "c", "format": "products:1.0", "products": {}, "updated": "Thu, 24 Jul 2025 09:01:42 +0000"}`)
	for _, word := range strings.Fields(words) {
		part := strings.Split(word, "/")
		p := l.Product(part[0])
		if p == nil {
			p = &Product{Name: part[0]}
			for _, tag := range strings.Fields(tags[part[0]]) {
				key, value, _ := strings.Cut(tag, "=")
				p.Fields.SetText(key, value)
			}
			l.Products = append(l.Products, p)
		}
		v := l.Version(part[0], part[1])
		if v == nil {
			v = &Version{Name: part[1]}
			p.Versions = append(p.Versions, v)
		}
		if len(part) > 2 {
			v.Items = append(v.Items, &Item{Name: part[2], Path: Path(word), Size: 1, MD5: make([]byte, 16)})
		}
	}
	return mustParse(t, string(l.grounded().Render()))
}

// grounded writes out what the items say of their files.
func (l *Products) grounded() *Products {
	return l.edit(func(p *Product) *Product {
		return p.edit(func(v *Version) *Version {
			return v.edit(func(it *Item) *Item {
				return it.with(append(it.facts(), Field{"path", appendQuoted(nil, string(it.Path))})...)
			})
		})
	})
}

// words lists what a list has, as aList takes it.
func words(l *Products) string {
	var w []string
	for _, p := range l.Products {
		for _, v := range p.Versions {
			for _, it := range v.Items {
				w = append(w, Pedigree{p.Name, v.Name, it.Name}.String())
			}
			if len(v.Items) == 0 {
				w = append(w, p.Name+"/"+v.Name)
			}
		}
		if len(p.Versions) == 0 {
			w = append(w, p.Name)
		}
	}
	return strings.Join(w, " ")
}

func TestChoose(t *testing.T) {
	tags := map[string]string{
		"u":     "arch=amd64 os=ubuntu",
		"w":     "arch=arm64 os=ubuntu",
		"x:1:a": "arch=i386 os=pxelinux bootloader-type=pxe",
		"x:1:b": "arch=amd64 os=grub-efi-signed bootloader-type=uefi",
		"x:1:c": "arch=arm64 os=grub-efi bootloader-type=uefi",
		"x:1:d": "arch=ppc64el os=grub-ieee1275 bootloader-type=open-firmware",
		"x:1:e": "arch=amd64 os=pxelinux bootloader-type=pxe",
		"x:2:f": "arch=arm64 os=grub-efi bootloader-type=uefi",
	}
	l := aList(t, tags, "u/2/a u/2/b u/10/a u/1/a u/1/b u/0 w/1/a x:1:a/1/z x:1:b/1/z x:1:b/2/z x:1:c/1/z x:1:d/1/z x:1:e/1/z x:2:f/1/z")
	whole := words(l)
	for _, tt := range []struct {
		name   string
		choice Choice
		want   string
	}{
		{"everything that has items", Choice{}, strings.Replace(whole, "u/0 ", "", 1)},
		{"items", Choice{Selections: mustSelect(t, "os=ubuntu item_name=b")}, "u/2/b u/1/b"},
		{"either", Choice{Selections: mustSelect(t, "item_name=b", "arch=arm64 os=ubuntu")}, "u/2/b u/1/b w/1/a"},
		{"nothing", Choice{Selections: mustSelect(t, "arch=riscv64")}, ""},
		{"boot loaders of MAAS", Choice{Selections: mustSelect(t, "arch=riscv64"), Bootloaders: true},
			"x:1:a/1/z x:1:b/1/z x:1:b/2/z x:1:c/1/z x:1:d/1/z"},
		{"newest by string", Choice{Selections: mustSelect(t, "os=ubuntu"), MaxVersions: 1}, "u/2/a u/2/b w/1/a"},
		{"newest two, in file order", Choice{Selections: mustSelect(t, "os=ubuntu"), MaxVersions: 2}, "u/2/a u/2/b u/10/a w/1/a"},
		{"newest that has the item", Choice{Selections: mustSelect(t, "arch=amd64 os=ubuntu version_name!=2 item_name=b"), MaxVersions: 1}, "u/1/b"},
		{"max and boot loaders", Choice{Selections: mustSelect(t, "os=none"), Bootloaders: true, MaxVersions: 1},
			"x:1:a/1/z x:1:b/2/z x:1:c/1/z x:1:d/1/z"},
		{"held versions do not count", Choice{Selections: mustSelect(t, "os=ubuntu"), MaxVersions: 1, Hold: mustSelect(t, "version_name=2 item_name=b")},
			"u/10/a w/1/a"},
		{"hold all of a boot loader", Choice{Selections: mustSelect(t, "os=none"), Bootloaders: true, Hold: mustSelect(t, "os=pxelinux", "os~grub-")},
			""},
		{"broken versions do not count", Choice{Selections: mustSelect(t, "os=ubuntu"), MaxVersions: 1, Skip: func(p Pedigree) bool {
			return p == Pedigree{Product: "u", Version: "2"} || p == Pedigree{Product: "w", Version: "1"}
		}}, "u/10/a"},
	} {
		if got := words(l.Choose(tt.choice)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	if words(l) != whole {
		t.Error("Choose changed its input")
	}
}

func TestChooseSharesItems(t *testing.T) {
	l := aList(t, nil, "p/1/a p/1/b")
	some := l.Choose(Choice{Selections: mustSelect(t, "item_name=a")})
	if some.Products[0].Versions[0].Items[0] != l.Products[0].Versions[0].Items[0] {
		t.Error("the item was copied")
	}
}

func TestAddVersion(t *testing.T) {
	old := aList(t, map[string]string{"b": "os=old"}, "b/1/i b/2/i d/1/i")
	l := aList(t, map[string]string{"b": "os=new"}, "a/1/i b/2/j b/3/i c/1/i")
	chosen := l.Choose(Choice{})
	for _, p := range old.Products {
		for _, v := range p.Versions {
			chosen.AddVersion(p, v)
		}
	}
	if got, want := words(chosen), "a/1/i b/1/i b/2/j b/3/i c/1/i d/1/i"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := chosen.Product("b").Fields.Text("os"); got != "new" {
		t.Errorf("the product's tags are %q, want the list's", got)
	}
	if words(l) != "a/1/i b/2/j b/3/i c/1/i" || words(old) != "b/1/i b/2/i d/1/i" {
		t.Error("AddVersion changed another list")
	}
	conformed, _ := l.Conform(Plain)
	conformed.AddVersion(old.Products[0], old.Products[0].Versions[0])
	if words(l) != "a/1/i b/2/j b/3/i c/1/i" || words(conformed) != "a/1/i b/1/i b/2/j b/3/i c/1/i" {
		t.Errorf("a version added to what Conform returned gives %s, and %s in its input", words(conformed), words(l))
	}
	again := mustParse(t, string(chosen.Render()))
	if words(again) != words(chosen) {
		t.Errorf("rendered as %s", words(again))
	}
}

// A version that is laid into another list keeps the facts of its files.
func TestAddVersionKeepsFacts(t *testing.T) {
	old := mustParse(t, `{"content_id": "c", "format": "products:1.0", "ftype": "old", "products": {"p": {"size": "5", "versions": {"1": {"items": {
	  "i": {"path": "x", `+anMD5+`}}}}}}}`)
	l := mustParse(t, `{"content_id": "c", "format": "products:1.0", "ftype": "new", "products": {"p": {"size": 6}}}`)
	l.AddVersion(old.Products[0], old.Products[0].Versions[0])
	again := mustParse(t, string(l.Render()))
	if diff := firstDifference(&Products{ContentID: "c", Products: old.Products}, again); diff != "" {
		t.Error(diff)
	}
	if it := old.Products[0].Versions[0].Items[0]; it.Fields.has("size") {
		t.Error("the old item was changed")
	}
}

func TestRandomChoiceIsPartOfTheList(t *testing.T) {
	for seed := range uint64(200) {
		l := parseRandom(t, newChaos(seed), "com.ubuntu.maas:x")
		if l == nil {
			continue
		}
		before := string(l.Render())
		all := map[Pedigree]bool{}
		for at := range l.Items() {
			all[at] = true
		}
		chosen := l.Choose(Choice{Selections: mustSelect(t, "item_name~root|boot", "arch=arm64"), MaxVersions: 2, Bootloaders: true})
		for at := range chosen.Items() {
			if !all[at] {
				t.Errorf("seed %d: %v is not in the list", seed, at)
			}
		}
		for _, p := range chosen.Products {
			if len(p.Versions) == 0 || len(p.Versions) > 2 || len(p.Versions[0].Items) == 0 {
				t.Errorf("seed %d: %s", seed, fmt.Sprint(words(chosen)))
			}
		}
		if string(l.Render()) != before {
			t.Errorf("seed %d: Choose changed its input", seed)
		}
	}
}
