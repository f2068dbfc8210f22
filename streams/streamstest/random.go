package streamstest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Random returns a tree that follows from the seed: one of [RandomMAAS] or one
// of [RandomPlain].
func Random(seed uint64) *Tree {
	if seed%3 == 0 {
		return RandomPlain(seed)
	}
	return RandomMAAS(seed)
}

// RandomMAAS returns a signed tree of the shape of images.maas.io in which
// everything that a mirror has to put up with happens now and then: tags on
// other levels than usual, unknown tags, sizes as strings, items without
// SHA-256, items that lack, versions, products and lists that are empty,
// products that no MAAS knows, and files that are broken.
func RandomMAAS(seed uint64) *Tree {
	r := dice{rand.New(rand.NewPCG(seed, 'm'))}
	t := MAAS(Shape{
		Label:         r.pick("stable", "candidate"),
		Releases:      r.some("focal", "jammy", "noble", "questing"),
		Arches:        r.some("amd64", "arm64", "ppc64el"),
		Kernels:       r.some("ga", "hwe", "hwe-edge"),
		CentOS:        r.some("7.0", "8"),
		Versions:      1 + r.IntN(3),
		NoBootloaders: r.chance(10),
		Notifications: r.chance(20),
		Size:          func(ftype, path string) int64 { return SmallSize(ftype, path) / 50 },
	})
	for _, l := range t.Lists {
		for _, p := range l.Products {
			r.disturbProduct(p)
		}
		l.Products = slices.DeleteFunc(l.Products, func(*Product) bool { return r.chance(5) })
		if r.chance(10) {
			l.Products = append(l.Products, r.stranger(l))
		}
		if r.chance(20) {
			r.raise(l)
		}
		if r.chance(5) {
			l.Products = nil
		}
		l.Tags = with(r.unknown(), l.Tags)
	}
	r.breakSome(t)
	return t
}

// RandomPlain returns a signed tree without MAAS' rules: names of any kind, tags
// on any level, any digest, several lists, files that items share.
func RandomPlain(seed uint64) *Tree {
	r := dice{rand.New(rand.NewPCG(seed, 'p'))}
	t := NewTree()
	for n := range 1 + r.IntN(3) {
		id := fmt.Sprintf("com.example.%d:%s", n, r.pick("released:download", "daily", "größe"))
		l := &List{ContentID: id, DataType: r.pick("image-downloads", "image-ids", ""), Updated: t.Updated, Tags: r.tags()}
		if r.chance(50) {
			l.Path = fmt.Sprintf("streams/v1/list-%d.json", n)
		}
		for i := range r.IntN(5) {
			name := fmt.Sprintf("com.example.%d:%s:%d", n, r.pick("server", "Desktop+GUI", "a b", "è"), i)
			l.Products = append(l.Products, r.product(name, fmt.Sprintf("p%d/%d", n, i)))
		}
		t.Lists = append(t.Lists, l)
	}
	r.breakSome(t)
	return t
}

// dice makes the decisions of a random tree.
type dice struct{ *rand.Rand }

func (r dice) chance(percent int) bool { return r.IntN(100) < percent }

func (r dice) pick(from ...string) string { return from[r.IntN(len(from))] }

// some returns at least one of the values, in their order.
func (r dice) some(from ...string) []string {
	sure := r.IntN(len(from))
	var chosen []string
	for i, s := range from {
		if i == sure || r.chance(30) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// sums returns kinds of digests, most often SHA-256 among them.
func (r dice) sums() []string {
	switch {
	case r.chance(80):
		return []string{"sha256"}
	case r.chance(50):
		return []string{"md5", "sha256", "sha512"}
	}
	return []string{r.pick("md5", "sha512")}
}

// tags returns a few known tags.
func (r dice) tags() Tags {
	t := r.unknown()
	for _, key := range []string{"arch", "os", "release", "label", "version"} {
		if r.chance(30) {
			t[key] = key + r.pick("1", "2")
		}
	}
	return t
}

// unknown returns tags that no client has heard of, most often none.
func (r dice) unknown() Tags {
	t := make(Tags)
	if r.chance(10) {
		t["x-note"] = r.pick("ü <&> \u2028 🐂", "", "a\tb\\\"c\"")
	}
	if r.chance(5) {
		t["zz"] = json.RawMessage(r.pick(`{"b": [1, 2.50, null], "a": {}}`, `[]`, `1e400`, `12345678901234567890`, `null`))
	}
	return t
}

func (r dice) disturbProduct(p *Product) {
	p.Tags = with(r.unknown(), p.Tags)
	if r.chance(5) {
		delete(p.Tags, r.pick("label", "arch", "release_title", "subarches"))
	}
	down := ""
	if r.chance(15) {
		down = r.pick("label", "arch", "os")
	}
	for _, v := range p.Versions {
		v.Tags = r.unknown()
		if down != "" && p.Tags[down] != nil {
			v.Tags[down] = p.Tags[down]
		}
		for _, i := range v.Items {
			i.Sums, i.SizeAsString = r.sums(), r.chance(10)
			i.Tags = with(r.unknown(), i.Tags)
		}
		v.Items = slices.DeleteFunc(v.Items, func(*Item) bool { return r.chance(3) })
		if r.chance(3) {
			v.Items = nil
		}
		if r.chance(5) {
			v.Items = append(v.Items, &Item{Name: "note", Tags: Tags{"ftype": "note", "text": "no file"}})
		}
	}
	if down != "" {
		delete(p.Tags, down)
	}
	p.Versions = slices.DeleteFunc(p.Versions, func(*Version) bool { return r.chance(5) })
}

// raise moves a tag that all products of l agree on up to l.
func (r dice) raise(l *List) {
	key := r.pick("os", "label", "arch")
	for _, p := range l.Products {
		if p.Tags[key] == nil || p.Tags[key] != l.Products[0].Tags[key] {
			return
		}
	}
	if len(l.Products) == 0 {
		return
	}
	l.Tags = with(Tags{key: l.Products[0].Tags[key]}, l.Tags)
	for _, p := range l.Products {
		delete(p.Tags, key)
	}
}

// stranger returns a product that MAAS does not take.
func (r dice) stranger(l *List) *Product {
	name := r.pick("com.ubuntu.maas.daily:v1:boot:12.04:amd64:hwe-p", "com.example:other", "com.ubuntu.maas.stable:2:grub:uefi:riscv64")
	return r.product(name, fmt.Sprintf("other/%s/%d", l.ContentID, len(l.Products)))
}

// product returns a product of random versions whose files are under dir.
func (r dice) product(name, dir string) *Product {
	p := &Product{Name: name, Tags: r.tags()}
	for n := range r.IntN(4) {
		serial := r.pick(firstDay.AddDate(0, 0, n).Format("20060102"), fmt.Sprintf("1.%d", n), fmt.Sprintf("v%d:beta", n))
		v := &Version{Name: serial, Tags: r.tags()}
		for i := range r.IntN(4) {
			item := &Item{
				Name: fmt.Sprintf("item%d.%s", i, r.pick("img", "tar.gz", "manifest")),
				Tags: with(Tags{"ftype": r.pick("disk", "root", "manifest")}, r.unknown()),
				Sums: r.sums(), SizeAsString: r.chance(20),
			}
			if !r.chance(5) {
				item.File = NewFile(fmt.Sprintf("%s/%d/%s", dir, n, item.Name), int64(r.IntN(500)))
			}
			v.Items = append(v.Items, item)
		}
		if len(v.Items) > 0 && r.chance(20) {
			v.Items = append(v.Items, &Item{Name: "again", Tags: maps.Clone(v.Items[0].Tags), File: v.Items[0].File})
		}
		p.Versions = append(p.Versions, v)
	}
	return p
}

// breakSome breaks every twentieth file of every other tree.
func (r dice) breakSome(t *Tree) {
	if r.chance(50) {
		return
	}
	files := t.Files()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if f := files[path]; f.Length() > 0 && r.chance(5) {
			f.Broken = Absent + Breakage(r.IntN(int(Long)))
		}
	}
}
