package streamstest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Touch moves the date of the index on by an hour and changes nothing else.
func (t *Tree) Touch() { t.Updated = t.Updated.Add(time.Hour) }

// touched moves the dates of index and lists on.
func (t *Tree) touched(lists ...*List) {
	t.Touch()
	for _, l := range lists {
		l.Updated = t.Updated
	}
}

// AddDay publishes a new version of every product but boot loaders and
// notifications: the day after the newest version, the same items with new
// content. Files that were shared are shared in the new version too. It returns
// the new paths, sorted.
func (t *Tree) AddDay() []string {
	var lists []*List
	files := make(map[string]*File)
	for _, l := range t.Lists {
		if strings.Contains(l.ContentID, "bootloader") || l.DataType == "release-notifications" {
			continue
		}
		lists = append(lists, l)
		for _, p := range l.Products {
			if len(p.Versions) > 0 {
				p.Versions = append(p.Versions, nextDay(p.newest(), files))
			}
		}
	}
	t.touched(lists...)
	return slices.Sorted(maps.Keys(files))
}

// newest returns the version with the greatest name.
func (p *Product) newest() *Version {
	return slices.MaxFunc(p.Versions, func(a, b *Version) int { return strings.Compare(a.Name, b.Name) })
}

// nextDay copies v under the name of the day after. A path that does not carry
// the version's name gets the new one put before it.
func nextDay(v *Version, files map[string]*File) *Version {
	next := &Version{Name: nextSerial(v.Name), Tags: maps.Clone(v.Tags)}
	for _, i := range v.Items {
		item := *i
		item.Tags = maps.Clone(i.Tags)
		if i.File != nil {
			path := strings.ReplaceAll(i.File.Path, v.Name, next.Name)
			if path == i.File.Path {
				path = next.Name + "/" + path
			}
			if files[path] == nil {
				files[path] = &File{Path: path, Size: i.File.Size}
				if i.File.Text != nil {
					files[path].Text = append(slices.Clone(i.File.Text), (next.Name + "\n")...)
				}
			}
			item.File = files[path]
		}
		next.Items = append(next.Items, &item)
	}
	return next
}

// nextSerial counts the date that a serial begins with up by a day; what
// follows the date stays. A name without a date gets ".1" appended.
func nextSerial(name string) string {
	if len(name) >= 8 {
		if day, err := time.Parse("20060102", name[:8]); err == nil {
			return day.AddDate(0, 0, 1).Format("20060102") + name[8:]
		}
	}
	return name + ".1"
}

// Trim drops all but the n newest versions of each product, and with them their
// files, as upstream does sooner or later after publishing new ones.
func (t *Tree) Trim(n int) {
	var lists []*List
	for _, l := range t.Lists {
		var cut bool
		for _, p := range l.Products {
			slices.SortFunc(p.Versions, func(a, b *Version) int { return strings.Compare(a.Name, b.Name) })
			if drop := len(p.Versions) - n; drop > 0 {
				p.Versions, cut = slices.Delete(p.Versions, 0, drop), true
			}
		}
		if cut {
			lists = append(lists, l)
		}
	}
	t.touched(lists...)
}

// Drop removes a product. It panics if there is none of the name.
func (t *Tree) Drop(product string) {
	for _, l := range t.Lists {
		for i, p := range l.Products {
			if p.Name == product {
				l.Products = slices.Delete(l.Products, i, i+1)
				t.touched(l)
				return
			}
		}
	}
	panic(fmt.Sprintf("streamstest: no product %q", product))
}

// DropList removes a list. It panics if there is none of the content id.
func (t *Tree) DropList(contentID string) {
	before := len(t.Lists)
	t.Lists = slices.DeleteFunc(t.Lists, func(l *List) bool { return l.ContentID == contentID })
	if len(t.Lists) == before {
		panic(fmt.Sprintf("streamstest: no list %q", contentID))
	}
	t.Touch()
}

// Break breaks the file at path and returns it; Break(path, Whole) mends it. It
// panics if there is none. What items declare stays as it is, and so do all dates.
func (t *Tree) Break(path string, how Breakage) *File {
	f := t.File(path)
	f.Broken = how
	return f
}

// Resize gives the file at path a new size and content: what no honest upstream
// does under an old path.
func (t *Tree) Resize(path string, size int64) {
	f := t.File(path)
	f.Text, f.Size = nil, size
	t.touched(t.listing(path)...)
}

// listing returns the lists that name path.
func (t *Tree) listing(path string) []*List {
	var lists []*List
	for e := range t.Entries() {
		if f := e.Item.File; f != nil && f.Path == path && !slices.Contains(lists, e.List) {
			lists = append(lists, e.List)
		}
	}
	return lists
}
