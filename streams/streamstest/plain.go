package streamstest

import (
	"cmp"
	"fmt"
)

// PlainShape says what a tree without MAAS' rules holds. The zero value is one
// product with one version of three items.
type PlainShape struct {
	Products int // if 0, one
	Versions int // of each product; if 0, one
	Items    int // of each version; if 0, three
	// Size returns the bytes of a file; if nil, about 200.
	Size func(path string) int64
}

// Plain returns a signed tree of that shape: one list, com.example:download, of
// datatype image-downloads, at streams/v1/download.json. Its items carry one
// digest each, of every kind in turn, and tags are inherited from product and
// version. For an unsigned tree set its Key to nil.
func Plain(s PlainShape) *Tree {
	if s.Size == nil {
		s.Size = func(path string) int64 { return 100 + int64(newNoise(path, 8).word(0)%200) }
	}
	t := NewTree()
	l := &List{
		ContentID: "com.example:download",
		Path:      "streams/v1/download.json",
		DataType:  "image-downloads",
		Updated:   t.Updated,
	}
	for p := range cmp.Or(s.Products, 1) {
		product := &Product{
			Name: fmt.Sprintf("com.example:product%d", p+1),
			Tags: Tags{"arch": []string{"amd64", "arm64"}[p%2], "os": "example", "release": fmt.Sprintf("r%d", p/2+1)},
		}
		for v := range cmp.Or(s.Versions, 1) {
			serial := firstDay.AddDate(0, 0, v).Format("20060102")
			version := &Version{Name: serial, Tags: Tags{"label": "release"}}
			for i := range cmp.Or(s.Items, 3) {
				path := fmt.Sprintf("product%d/%s/item%d.img", p+1, serial, i+1)
				version.Items = append(version.Items, &Item{
					Name: fmt.Sprintf("item%d", i+1),
					Tags: Tags{"ftype": fmt.Sprintf("image%d", i+1)},
					File: NewFile(path, s.Size(path)),
					Sums: []string{[]string{"sha256", "md5", "sha512"}[i%3]},
				})
			}
			product.Versions = append(product.Versions, version)
		}
		l.Products = append(l.Products, product)
	}
	t.Lists = []*List{l}
	return t
}
