package streams

import (
	"fmt"
	"strings"
)

// The rules, by what they look at. Those of MAAS 3.8 are in maas38.go, those of
// the index in lintindex.go.
var (
	listRules = []rule{
		{Plain, false, contentIDIsFileName},
		{Plain, true, listLines},
		{V38, true, listDate},
		{V38, true, listDataType},
		{V38, true, listHasProducts},
	}
	productRules = []rule{
		{Plain, true, productLines},
		{V38, true, productTags},
		{V38, true, productHasVersions},
	}
	versionRules = []rule{
		{Plain, true, versionLines},
		{V38, true, versionNames},
		{V38, true, versionFiles},
		{V38, true, versionDates},
	}
	itemRules = []rule{
		{Plain, true, sizeIsInteger},
		{Plain, true, pathIsNoDocument},
		{Plain, true, itemLines},
		{Legacy, true, itemFile},
		{Legacy, true, itemTags},
		{V38, true, modelFile},
	}
)

// contentIDIsFileName: a list is published under its content id.
func contentIDIsFileName(at place) string {
	if !isFileName(at.list.ContentID) {
		return "the content id cannot be a file name, under which the list would be published"
	}
	return ""
}

// isFileName leaves room for an ending in the 255 bytes of a name.
func isFileName(s string) bool {
	_, err := ParsePath(s)
	return err == nil && !strings.Contains(s, "/") && len(s) <= 240
}

// sizeIsInteger: python simplestreams: objectstores FileStore counts with the
// item's own size as it is.
func sizeIsInteger(at place) string {
	if raw := at.item.Fields.Raw("size"); at.item.Path != "" && len(raw) > 0 && raw[0] == '"' {
		return fmt.Sprintf("size is the string %s, sstream-mirror needs an integer", raw)
	}
	return ""
}

// pathIsNoDocument: a file there would stand in the way of the metadata.
func pathIsNoDocument(at place) string {
	if strings.HasPrefix(string(at.item.Path), documentDir) {
		return fmt.Sprintf("path %q is among the metadata documents", at.item.Path)
	}
	return ""
}

// itemFile: MAAS 2.9 to 3.7: bootresources.py and download_descriptions.py
// take these from every flattened item, also from those that they do not
// download, and the whole import fails without.
func itemFile(at place) string {
	it := at.item
	switch {
	case it.Path == "":
		return "path is missing, MAAS up to 3.7 needs it on every item"
	case it.SHA256 == nil:
		return "sha256 is missing, MAAS up to 3.7 needs it on every item"
	}
	if _, ok := at.list.Tag("ftype", at.product, at.version, it); !ok {
		return "ftype is missing, MAAS up to 3.7 needs it on every item"
	}
	return ""
}

// itemTags: MAAS 2.9 to 3.7: as itemFile.
func itemTags(at place) string {
	want := []string{"arch", "label", "release"}
	if _, ok := at.list.Tag("bootloader-type", at.product, at.version, at.item); ok {
		want = want[:2]
	}
	var missing []string
	for _, key := range want {
		if _, ok := at.list.Tag(key, at.product, at.version, at.item); !ok {
			missing = append(missing, key)
		}
	}
	if missing == nil {
		return ""
	}
	return fmt.Sprintf("no %s at item, version, product or list, MAAS up to 3.7 needs that", strings.Join(missing, ", "))
}
