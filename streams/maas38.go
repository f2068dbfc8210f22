package streams

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MAAS 3.8 reads metadata into strict models (maasservicelayer: simplestreams/
// models.py): no tag is inherited, and one product or version that does not
// fit makes it refuse the list, and with it the whole source. What the models
// do not name is ignored.

// A shape is one of the three kinds of lists that MAAS 3.8 knows.
//
// MAAS 3.8: models.py SimpleStreamsProductListFactory.produce.
type shape int

const (
	multiFile  shape = iota // Ubuntu: kernel, initrd and a root file system
	singleFile              // CentOS: one root tarball
	bootloader
	shapes // how many there are
)

func (s shape) String() string {
	return [...]string{"images of several files", "images of one file", "boot loaders"}[s]
}

// files are the items that a version of this shape may have; others are
// ignored.
//
// MAAS 3.8: models.py BootloaderVersion, MultiFileImageVersion,
// SingleFileImageVersion.
func (s shape) files() []string {
	return [...][]string{
		{"boot-initrd", "boot-kernel", "manifest", "root-image.gz", "squashfs"},
		{"manifest", "root-tgz"},
		{"grub2", "grub2-signed", "shim-signed", "syslinux"},
	}[s]
}

// groups are sets of files of which a version needs at least one each.
func (s shape) groups() [][]string {
	return [...][][]string{
		{{"boot-initrd"}, {"boot-kernel"}, {"manifest"}, {"squashfs", "root-image.gz"}},
		{{"manifest"}, {"root-tgz"}},
		{{"grub2-signed", "shim-signed", "grub2", "syslinux"}},
	}[s]
}

// tags are what a product needs as strings of its own.
//
// MAAS 3.8: models.py Product, ImageProduct, BootloaderProduct.
func (s shape) tags() []string {
	if s == bootloader {
		return []string{"arch", "arches", "bootloader-type", "label", "os"}
	}
	return []string{"arch", "label", "os", "release", "release_title", "subarch", "subarches", "version"}
}

// shape returns what most versions of the list can pass for. In a draw the
// tags and item names decide.
func (l *Products) shape() shape {
	var valid, likely [shapes]int
	for _, p := range l.Products {
		likely[l.likelyShape(p)]++
		for s := range shapes {
			valid[s] += l.validVersions(p, s)
		}
	}
	best := multiFile
	for s := range shapes {
		if valid[s] > valid[best] || valid[s] == valid[best] && likely[s] > likely[best] {
			best = s
		}
	}
	return best
}

// productShape returns of, the shape of the list, if the product fits or
// should fit there.
func (l *Products) productShape(p *Product, of shape) shape {
	if len(p.Versions) == 0 || l.validVersions(p, of) > 0 {
		return of
	}
	return l.likelyShape(p)
}

func (l *Products) likelyShape(p *Product) shape {
	if _, ok := l.Tag("bootloader-type", p, nil, nil); ok {
		return bootloader
	}
	for _, v := range p.Versions {
		if v.item("boot-kernel") != nil || v.item("boot-initrd") != nil {
			return multiFile
		}
	}
	return singleFile
}

// validVersions counts the versions that fit the models of shape s.
func (l *Products) validVersions(p *Product, s shape) (n int) {
	c := checker{list: l, profile: V38, shape: s}
	at := place{list: l, product: p, shape: s}
	if productTags(at) != "" {
		return 0
	}
	for _, v := range p.Versions {
		if !slices.ContainsFunc(c.versionFindings(at, v), func(f Finding) bool { return f.Profile == V38 }) {
			n++
		}
	}
	return n
}

// misplaced is the finding for a product that has another shape than its list.
func (c *checker) misplaced(at place) Finding {
	problem := fmt.Sprintf("it is one of %v in a list of %v, MAAS 3.8 wants one kind in a list", at.shape, c.shape)
	return Finding{V38, c.list.ContentID, at.pedigree(), problem, true}
}

func (v *Version) item(name string) *Item {
	for _, it := range v.Items {
		if it.Name == name {
			return it
		}
	}
	return nil
}

// listDate: MAAS 3.8: models.py updated_validator.
func listDate(at place) string { return modelDate(at.list.Updated) }

func modelDate(s string) string {
	_, iso := parseISO(s)
	switch {
	case s == "":
		return "updated is missing, MAAS 3.8 needs it"
	case !iso && !isRFC2822(s):
		return fmt.Sprintf("updated is %q, MAAS 3.8 wants it like %q", s, FormatTime(time.Unix(0, 0)))
	}
	return ""
}

// listDataType: MAAS 3.8: models.py Datatype; a list must have one.
func listDataType(at place) string {
	if at.list.DataType == "" {
		return "datatype is missing, MAAS 3.8 needs it"
	}
	return modelDataType(at.list.DataType)
}

func modelDataType(s string) string {
	if s != "image-ids" && s != "image-downloads" {
		return fmt.Sprintf("datatype is %q, MAAS 3.8 knows image-ids and image-downloads only", s)
	}
	return ""
}

// listHasProducts: MAAS 3.8: models.py preprocess_products leaves an empty
// object as it is, which then is no list.
func listHasProducts(at place) string {
	if len(at.list.Products) == 0 {
		return "it has no products, MAAS 3.8 wants at least one"
	}
	return ""
}

// productHasVersions: MAAS 3.8: models.py preprocess_versions, likewise.
func productHasVersions(at place) string {
	if len(at.product.Versions) == 0 {
		return "it has no versions, MAAS 3.8 wants at least one"
	}
	return ""
}

// productTags: MAAS 3.8: models.py Product and below; product_name is given
// to the model beside the members, which must not have it, too.
func productTags(at place) string {
	f := at.product.Fields
	if f.has("product_name") {
		return "it has the tag product_name, which MAAS 3.8 sets itself"
	}
	var missing []string
	for _, key := range at.shape.tags() {
		if raw := f.Raw(key); len(raw) == 0 || raw[0] != '"' {
			missing = append(missing, key)
		}
	}
	switch {
	case missing != nil:
		return fmt.Sprintf("no string %s at the product, MAAS 3.8 needs that", strings.Join(missing, ", "))
	case at.shape == multiFile:
		for _, key := range []string{"kflavor", "krel", "release_codename"} {
			if !isStringOrNull(f, key) {
				return fmt.Sprintf("%s is no string, MAAS 3.8 wants one", key)
			}
		}
	}
	return modelDay(f, "support_eol", at.shape != bootloader)
}

// isStringOrNull accepts what an optional string of the models does.
func isStringOrNull(f Fields, key string) bool {
	raw := f.Raw(key)
	return !f.has(key) || len(raw) > 0 && (raw[0] == '"' || raw[0] == 'n')
}

// modelDay: MAAS 3.8: models.py support_eol_validator. Every list is tried as
// each of the shapes, and the validator fails outright on what is no string: so
// that is refused even where a day would not be read.
func modelDay(f Fields, key string, read bool) string {
	raw := f.Raw(key)
	if len(raw) == 0 || raw[0] == 'n' {
		return ""
	}
	if _, err := time.Parse("2006-1-2", f.Text(key)); raw[0] == '"' && (err == nil || !read) {
		return ""
	}
	return fmt.Sprintf("%s is %s, MAAS 3.8 wants a day like \"2006-01-02\"", key, raw)
}

// versionNames: MAAS 3.8: models.py preprocess_versions and preprocess_items:
// version_name, tags and items end up in one namespace.
func versionNames(at place) string {
	if at.version.Fields.has("version_name") {
		return "it has the tag version_name, which MAAS 3.8 sets itself"
	}
	for _, name := range []string{"version_name", "support_eol", "support_esm_eol"} {
		if at.version.item(name) != nil {
			return fmt.Sprintf("it has an item named %s, which MAAS 3.8 takes for a tag", name)
		}
	}
	for _, name := range at.shape.files() {
		if at.version.Fields.has(name) && at.version.item(name) == nil {
			return fmt.Sprintf("it has a tag named %s, which MAAS 3.8 takes for an item", name)
		}
	}
	return ""
}

// versionFiles: MAAS 3.8: models.py, the required members of the versions.
func versionFiles(at place) string {
	for _, group := range at.shape.groups() {
		if !slices.ContainsFunc(group, func(name string) bool { return at.version.item(name) != nil }) {
			return fmt.Sprintf("it has no %s, MAAS 3.8 needs that of %v", strings.Join(group, " or "), at.shape)
		}
	}
	return ""
}

// versionDates: MAAS 3.8: models.py MultiFileImageVersion.validate_support_eol.
func versionDates(at place) string {
	for _, key := range []string{"support_eol", "support_esm_eol"} {
		if problem := modelDay(at.version.Fields, key, at.shape == multiFile); problem != "" {
			return problem
		}
	}
	return ""
}

// modelFile: MAAS 3.8: models.py DownloadableFile, ImageFile, BootloaderFile.
func modelFile(at place) string {
	if !slices.Contains(at.shape.files(), at.item.Name) {
		return ""
	}
	want := []string{"ftype", "path", "sha256", "src_package", "src_release", "src_version"}
	if at.shape != bootloader {
		want = want[:3]
	}
	f := at.item.Fields
	for _, key := range want {
		if raw := f.Raw(key); len(raw) == 0 || raw[0] != '"' {
			return fmt.Sprintf("no string %s at the item, MAAS 3.8 needs that", key)
		}
	}
	if !f.has("size") {
		return "no size at the item, MAAS 3.8 needs that"
	}
	if at.shape != bootloader && !isStringOrNull(f, "kpackage") {
		return "kpackage is no string, MAAS 3.8 wants one"
	}
	return ""
}
