package streamstest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Shape says what a tree in the shape of images.maas.io holds. The zero value
// is a small whole one: jammy and noble for amd64 with two kernels each, CentOS
// 8, five boot loaders, two versions of everything; about 0.5 MB in 40 files.
type Shape struct {
	// Label is "stable" or "candidate"; if empty, stable.
	Label string
	// Releases are names of Ubuntu releases among focal, jammy, noble and questing;
	// if nil, jammy and noble.
	Releases []string
	// Arches of every release; if nil, amd64.
	Arches []string
	// Kernels of every release: "ga", "hwe", "hwe-edge"; if nil, ga and hwe. All
	// kernels of a release, architecture and serial share a squashfs and its manifest.
	Kernels []string
	// CentOS are versions: "7.0", "8"; if nil, 8.
	CentOS []string
	// Versions of every product; if 0, two.
	Versions int
	// NoBootloaders leaves out the list of boot loaders. Otherwise there are the
	// four that MAAS always asks for, and pxe/amd64.
	NoBootloaders bool
	// Notifications adds a list of datatype release-notifications, as the
	// candidate stream has.
	Notifications bool
	// Size returns the bytes of a file of the ftype; if nil, [SmallSize].
	Size func(ftype, path string) int64
}

// SmallSize makes files of a few kilobytes whose sizes differ from path to path.
func SmallSize(ftype, path string) int64 {
	base := map[string]int64{
		"squashfs": 40_000, "boot-initrd": 16_000, "boot-kernel": 8_000, "root-tgz": 50_000,
		"manifest": 500, "archive.tar.xz": 2_000,
	}[ftype]
	return base + int64(newNoise(path, 8).word(0)%256)
}

// DemoSize makes files of some hundred kilobytes: [SmallSize] times twelve.
func DemoSize(ftype, path string) int64 { return 12 * SmallSize(ftype, path) }

// firstDay is the oldest serial of MAAS trees; later ones follow day by day.
var firstDay = time.Date(2025, 7, 17, 0, 0, 0, 0, time.UTC)

var releases = map[string]struct{ version, codename, eol, esm string }{
	"focal":    {"20.04", "Focal Fossa", "2025-05-29", "2030-04-23"},
	"jammy":    {"22.04", "Jammy Jellyfish", "2027-06-01", "2032-04-21"},
	"noble":    {"24.04", "Noble Numbat", "2029-05-31", "2034-04-25"},
	"questing": {"25.10", "Questing Quokka", "2026-07-15", "2026-07-15"},
}

var bootloaders = []struct {
	os, firmware, arch, arches string
	packages                   []string
}{
	{"grub-efi-signed", "uefi", "amd64", "amd64", []string{"grub2-signed", "shim-signed"}},
	{"grub-efi", "uefi", "arm64", "arm64", []string{"grub2-signed", "shim-signed"}},
	{"grub-ieee1275", "open-firmware", "ppc64el", "ppc64el,ppc64", []string{"grub2"}},
	{"pxelinux", "pxe", "amd64", "amd64, i386", []string{"syslinux"}},
	{"pxelinux", "pxe", "i386", "i386,amd64", []string{"syslinux"}},
}

// MAAS returns a signed tree of that shape.
func MAAS(s Shape) *Tree {
	s = s.withDefaults()
	t := NewTree()
	t.Lists = append(t.Lists, s.ubuntu())
	if len(s.CentOS) > 0 {
		t.Lists = append(t.Lists, s.centOS())
	}
	if !s.NoBootloaders {
		t.Lists = append(t.Lists, s.bootloaders())
	}
	if s.Notifications {
		t.Lists = append(t.Lists, s.notifications())
	}
	for _, l := range t.Lists {
		l.Updated, l.Ahead = t.Updated, time.Hour
	}
	return t
}

func (s Shape) withDefaults() Shape {
	if s.Label == "" {
		s.Label = "stable"
	}
	if s.Releases == nil {
		s.Releases = []string{"jammy", "noble"}
	}
	if s.Arches == nil {
		s.Arches = []string{"amd64"}
	}
	if s.Kernels == nil {
		s.Kernels = []string{"ga", "hwe"}
	}
	if s.CentOS == nil {
		s.CentOS = []string{"8"}
	}
	if s.Versions == 0 {
		s.Versions = 2
	}
	if s.Size == nil {
		s.Size = SmallSize
	}
	return s
}

// serials returns the names of the versions, oldest first.
func (s Shape) serials(suffix string) []string {
	var names []string
	for i := range s.Versions {
		names = append(names, firstDay.AddDate(0, 0, i).Format("20060102")+suffix)
	}
	return names
}

func (s Shape) list(name string) *List {
	return &List{ContentID: fmt.Sprintf("com.ubuntu.maas:%s:%s", s.Label, name), DataType: "image-ids"}
}

func (s Shape) item(name, ftype, path string) *Item {
	return &Item{Name: name, Tags: Tags{"ftype": ftype}, File: NewFile(path, s.Size(ftype, path))}
}

func (s Shape) ubuntu() *List {
	l := s.list("v3:download")
	for _, release := range s.Releases {
		for _, arch := range s.Arches {
			roots := make(map[string][]*Item) // by serial
			for _, serial := range s.serials("") {
				base := fmt.Sprintf("%s/%s/%s/", release, arch, serial)
				roots[serial] = []*Item{
					s.item("manifest", "manifest", base+"squashfs.manifest"),
					s.item("squashfs", "squashfs", base+"squashfs"),
				}
			}
			for _, kernel := range s.Kernels {
				l.Products = append(l.Products, s.kernel(release, arch, kernel, roots))
			}
		}
	}
	return l
}

// kernel returns the product of one kernel, with the given root images by serial.
func (s Shape) kernel(release, arch, kernel string, roots map[string][]*Item) *Product {
	r, known := releases[release]
	if !known {
		panic(fmt.Sprintf("streamstest: no release %q", release))
	}
	kernel, edge, _ := strings.Cut(kernel, "-")
	subarch := kernel + "-" + r.version
	if edge != "" {
		subarch += "-" + edge
	}
	p := &Product{
		Name: fmt.Sprintf("com.ubuntu.maas.%s:v3:boot:%s:%s:%s", s.Label, r.version, arch, subarch),
		Tags: Tags{
			"arch": arch, "kflavor": "generic", "krel": release, "label": s.Label, "os": "ubuntu",
			"release": release, "release_codename": r.codename, "release_title": r.version + " LTS",
			"subarch": subarch, "subarches": "generic,ga-16.04,ga-18.04,ga-20.04,ga-22.04," + subarch,
			"support_eol": r.eol, "support_esm_eol": r.esm, "version": r.version,
		},
	}
	for _, serial := range s.serials("") {
		base := fmt.Sprintf("%s/%s/%s/%s/generic/", release, arch, serial, subarch)
		v := &Version{Name: serial}
		for _, name := range []string{"boot-initrd", "boot-kernel"} {
			item := s.item(name, name, base+name)
			item.Tags["kpackage"] = "linux-generic"
			v.Items = append(v.Items, item)
		}
		for _, root := range roots[serial] {
			v.Items = append(v.Items, &Item{Name: root.Name, Tags: maps.Clone(root.Tags), File: root.File})
		}
		p.Versions = append(p.Versions, v)
	}
	return p
}

func (s Shape) centOS() *List {
	l := s.list("centos-bases-download")
	for _, version := range s.CentOS {
		release := "centos" + strings.ReplaceAll(version, ".", "")
		p := &Product{
			Name: fmt.Sprintf("com.ubuntu.maas.%s:centos-bases:%s:amd64", s.Label, version),
			Tags: Tags{
				"arch": "amd64", "label": s.Label, "os": "centos", "release": release,
				"release_title": "CentOS " + strings.TrimSuffix(version, ".0"), "subarch": "generic",
				"subarches": "generic", "support_eol": "2029-05-31", "version": version,
			},
		}
		for _, serial := range s.serials("_01") {
			base := fmt.Sprintf("centos/%s/amd64/%s/", release, serial)
			p.Versions = append(p.Versions, &Version{Name: serial, Items: []*Item{
				s.item("manifest", "manifest", base+"root-tgz.manifest"),
				s.item("root-tgz", "root-tgz", base+"root-tgz"),
			}})
		}
		l.Products = append(l.Products, p)
	}
	return l
}

func (s Shape) bootloaders() *List {
	l := s.list("1:bootloader-download")
	for _, b := range bootloaders {
		p := &Product{
			Name: fmt.Sprintf("com.ubuntu.maas.%s:1:%s:%s:%s", s.Label, b.os, b.firmware, b.arch),
			Tags: Tags{"arch": b.arch, "arches": b.arches, "bootloader-type": b.firmware, "label": s.Label, "os": b.os},
		}
		for _, serial := range s.serials(".0") {
			v := &Version{Name: serial}
			for _, pkg := range b.packages {
				item := s.item(pkg, "archive.tar.xz", fmt.Sprintf("bootloaders/%s/%s/%s/%s.tar.xz", b.firmware, b.arch, serial, pkg))
				item.Tags["src_package"], item.Tags["src_release"] = pkg, "noble"
				item.Tags["src_version"] = "1.2~ubuntu+" + serial
				v.Items = append(v.Items, item)
			}
			p.Versions = append(p.Versions, v)
		}
		l.Products = append(l.Products, p)
	}
	return l
}

func (s Shape) notifications() *List {
	l := s.list("1:maas-notification")
	l.DataType = "release-notifications"
	serial := slices.Max(s.serials(""))
	l.Products = []*Product{{
		Name: l.ContentID,
		Tags: Tags{"arch": "all", "label": s.Label, "name": "release-notification", "release": "notifications"},
		Versions: []*Version{{Name: serial, Items: []*Item{{
			Name: "release_notification",
			Tags: Tags{
				"ftype":   "release_notification",
				"message": Tags{"maas_version": "3.6", "message": "A new MAAS is there.", "version": 1},
			},
			File: NewText(fmt.Sprintf("release-notifications/%s/release-notification.yaml", serial), "This file is unused.\n"),
		}}}},
	}}
	return l
}
