package streams

import (
	"encoding/json"
	"strconv"
	"time"
)

// Conform returns the list as profile p accepts it. What can be said in a way
// that the profile's clients understand is: inherited and aliased tags are
// written out, sizes become integers, dates get a numeric zone. Versions and
// products that break a rule nevertheless are left out, each with a finding, as
// are, silently, products and versions with nothing in them. If the list
// itself is refused, or nothing of it is left, the result is nil.
//
// Legacy and 3.8 need the SHA-256 of every file: see [Products.WithSHA256].
// What Conform returns is clean under [Lint] of the same profile. The list
// itself is not changed.
func (l *Products) Conform(p Profile) (*Products, []Finding) {
	l = l.writtenOut(p)
	c := newChecker(l, p)
	found := c.findings(listRules, place{list: l})
	if len(found) > 0 {
		return nil, found
	}
	l = l.edit(func(p *Product) *Product {
		at := c.place(p)
		if broken := c.productFindings(at); broken != nil {
			found = append(found, broken...)
			return nil
		}
		p = p.edit(func(v *Version) *Version {
			broken := c.versionFindings(at, v)
			found = append(found, broken...)
			if len(v.Items) == 0 || broken != nil {
				return nil
			}
			return v
		})
		if len(p.Versions) == 0 {
			return nil
		}
		return c.list.writtenProduct(p, c.profile)
	})
	if len(l.Products) == 0 {
		return nil, found
	}
	return l, found
}

// Tags that MAAS reads. The needed ones of a product are also taken from its
// versions, if these agree.
// MAAS 3.8: models.py; MAAS 2.9 to 3.7 read the same from flattened items.
var (
	neededProductTags = []string{
		"arch", "arches", "bootloader-type", "label", "os", "release", "release_title", "subarch", "subarches", "version",
	}
	otherProductTags = []string{"kflavor", "krel", "release_codename", "support_eol", "support_esm_eol"}
	itemTagsWritten  = []string{
		"ftype", "kpackage", "md5", "path", "sha256", "sha512", "src_package", "src_release", "src_version",
	}
)

// writtenOut returns the list with nothing left to inherit or to convert.
func (l *Products) writtenOut(profile Profile) *Products {
	maas := profile != Plain
	out := l.edit(func(p *Product) *Product {
		written := p.edit(func(v *Version) *Version {
			v = v.edit(func(it *Item) *Item { return l.writtenItem(p, v, it, maas) })
			if fields := v.Fields.without("version_name"); maas && len(fields) != len(v.Fields) {
				v = &Version{v.Name, v.Items, fields}
			}
			return v
		})
		return l.writtenProduct(written, profile)
	})
	if maas {
		out = out.writtenHead(profile)
	}
	return out
}

func (l *Products) writtenItem(p *Product, v *Version, it *Item, maas bool) *Item {
	if it.Path == "" {
		return it
	}
	var fields []Field
	size := strconv.FormatInt(it.Size, 10)
	if raw := it.Fields.Raw("size"); len(raw) > 0 && raw[0] == '"' || maas && string(raw) != size {
		fields = append(fields, Field{"size", json.RawMessage(size)})
	}
	if maas {
		fields = appendWritten(fields, itemTagsWritten, it.Fields, func(key string) (string, bool) { return l.Tag(key, p, v, it) })
	}
	return it.with(fields...)
}

func (l *Products) writtenProduct(p *Product, profile Profile) *Product {
	if profile == Plain {
		return p
	}
	fields := appendWritten(nil, neededProductTags, p.Fields, func(key string) (string, bool) { return l.commonTag(key, p) })
	fields = appendWritten(fields, otherProductTags, p.Fields, func(key string) (string, bool) { return l.Tag(key, p, nil, nil) })
	if fields == nil && !p.Fields.has("product_name") {
		return p
	}
	written := &Product{p.Name, p.Versions, p.Fields.without("product_name")}
	for _, f := range fields {
		written.Fields.Set(f.Key, f.Value)
	}
	return written
}

// commonTag returns a tag of a product, or else of all its versions alike.
func (l *Products) commonTag(key string, p *Product) (string, bool) {
	if text, ok := l.Tag(key, p, nil, nil); ok || len(p.Versions) == 0 {
		return text, ok
	}
	text, ok := l.Tag(key, p, p.Versions[0], nil)
	for _, v := range p.Versions[1:] {
		if other, same := l.Tag(key, p, v, nil); !same || other != text {
			return "", false
		}
	}
	return text, ok
}

// appendWritten adds those of the tags that own does not have as a string of
// the value that they resolve to.
func appendWritten(fields []Field, tags []string, own Fields, resolve func(key string) (string, bool)) []Field {
	for _, key := range tags {
		text, ok := resolve(key)
		if raw := own.Raw(key); !ok || len(raw) > 0 && raw[0] == '"' && unquote(raw) == text {
			continue
		}
		fields = append(fields, Field{key, appendQuoted(nil, text)})
	}
	return fields
}

// writtenHead returns the list with the date and datatype that MAAS 3.8 wants.
// A date that cannot be read becomes the oldest.
func (l *Products) writtenHead(profile Profile) *Products {
	out := *l
	if !isRFC2822(l.Updated) {
		updated, err := ParseTime(l.Updated)
		if err != nil {
			updated = time.Unix(0, 0)
		}
		out.setUpdated(FormatTime(updated))
	}
	if l.DataType == "" && profile.includes(V38) {
		out.DataType = "image-ids"
		out.Fields.SetText("datatype", out.DataType)
	}
	return &out
}

func (l *Products) setUpdated(s string) {
	l.Updated = s
	l.Fields.SetText("updated", s)
}
