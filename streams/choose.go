package streams

import (
	"cmp"
	"slices"
	"strings"
)

// A Choice says which part of a list is wanted.
type Choice struct {
	// Selections say which items. If empty, all.
	Selections Selections

	// Bootloaders adds the four boot loaders that MAAS asks for, whatever was
	// selected.
	Bootloaders bool

	// MaxVersions is how many versions of a product are kept, the newest
	// first. If zero, all.
	MaxVersions int

	// Hold are versions not wanted: those with an item that one of them
	// matches. They do not count towards MaxVersions. If empty, none.
	Hold Selections

	// Skip reports versions that are known to be broken (Item is empty). They
	// do not count towards MaxVersions. If nil, none are.
	Skip func(Pedigree) bool
}

// Choose returns the part of the list that c says, in the order of the list:
// no version without items, no product without versions, perhaps no product at
// all. Selections look at items, as sstream-mirror's do. Unlike there, versions
// are counted after selecting, so that the newest one that has what is wanted
// counts.
func (l *Products) Choose(c Choice) *Products {
	chosen := *l
	chosen.Products = nil
	for _, p := range l.Products {
		versions := c.versions(l, p)
		if len(versions) > 0 {
			chosen.Products = append(chosen.Products, &Product{p.Name, versions, p.Fields})
		}
	}
	return &chosen
}

func (c *Choice) versions(l *Products, p *Product) []*Version {
	everything := len(c.Selections) == 0 || c.Bootloaders && isMAASBootloader(l, p)
	var chosen []*Version
	for _, v := range p.Versions {
		if c.unwanted(l, p, v) {
			continue
		}
		if !everything {
			v = c.items(l, p, v)
		}
		if len(v.Items) > 0 {
			chosen = append(chosen, v)
		}
	}
	return newest(chosen, c.MaxVersions)
}

// items returns v with the selected items only, v itself if these are all.
func (c *Choice) items(l *Products, p *Product, v *Version) *Version {
	var items []*Item
	for _, it := range v.Items {
		if c.Selections.Matches(l, p, v, it) {
			items = append(items, it)
		}
	}
	if len(items) == len(v.Items) {
		return v
	}
	return &Version{v.Name, items, v.Fields}
}

func (c *Choice) unwanted(l *Products, p *Product, v *Version) bool {
	if c.Skip != nil && c.Skip(Pedigree{Product: p.Name, Version: v.Name}) {
		return true
	}
	return len(c.Hold) > 0 && slices.ContainsFunc(v.Items, func(it *Item) bool {
		return c.Hold.Matches(l, p, v, it)
	})
}

// newest returns the n versions with the greatest names, in their order; all
// if n is 0. The names are compared as strings, as every client does.
func newest(versions []*Version, n int) []*Version {
	if n == 0 || len(versions) <= n {
		return versions
	}
	byName := slices.SortedFunc(slices.Values(versions), func(a, b *Version) int { return -cmp.Compare(a.Name, b.Name) })
	oldest := byName[n-1].Name
	return slices.DeleteFunc(versions, func(v *Version) bool { return v.Name < oldest })
}

// maasBootloaders are the boot loaders that MAAS takes from a stream. It wants
// them whatever is selected.
//
// MAAS 2.9 to 3.7: import_images/download_descriptions.py; MAAS 3.8:
// services/image_sync.py SUPPORTED_BOOTLOADERS and BOOTLOADER_REGEX.
var maasBootloaders = [...]struct{ firmware, os, arch string }{
	{"pxe", "pxelinux", "i386"},
	{"uefi", "grub-efi-signed", "amd64"},
	{"uefi", "grub-efi", "arm64"},
	{"open-firmware", "grub-ieee1275", "ppc64el"},
}

func isMAASBootloader(l *Products, p *Product) bool {
	firmware, ok := l.Tag("bootloader-type", p, nil, nil)
	if !ok || !strings.Contains(p.Name, ":1:") {
		return false
	}
	os, _ := l.Tag("os", p, nil, nil)
	arch, _ := l.Tag("arch", p, nil, nil)
	for _, b := range maasBootloaders {
		if b.firmware == firmware && b.os == os && b.arch == arch {
			return true
		}
	}
	return false
}
