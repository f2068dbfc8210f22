package streams

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// A chaos makes lists in the shape of images.maas.io with everything wrong
// with them that a rule is about, each now and then.
type chaos struct {
	*rand.Rand
	calm bool // nothing is wrong
}

func newChaos(seed uint64) *chaos { return &chaos{Rand: rand.New(rand.NewPCG(seed, 1))} }

// rarely is true one time in n, never when calm.
func (c *chaos) rarely(n int) bool { return !c.calm && c.IntN(n) == 0 }

func pick[T any](c *chaos, of ...T) T { return of[c.IntN(len(of))] }

type object = map[string]any

func (c *chaos) list(id string) []byte {
	l := object{
		"format":     productsFormat,
		"content_id": id,
		"datatype":   "image-ids",
		"updated":    "Thu, 24 Jul 2025 09:01:42 +0000",
		"products":   c.products(),
		"unknown":    object{"deep": []any{1, nil, object{}, []any{}, "ü\u2028"}},
	}
	if c.rarely(6) {
		l["updated"] = pick[any](c, "Thu, 24 Jul 2025 09:01:42 GMT", "2025-07-24T09:01:42Z", "soon", nil)
	}
	if c.rarely(8) {
		l["datatype"] = pick[any](c, "release-notifications", nil, "image-downloads", "other")
	}
	if c.rarely(4) {
		l["label"] = "inherited"
	}
	if c.rarely(4) {
		l["arch"] = pick[any](c, "amd64", 64, true)
	}
	if c.rarely(4) {
		l["_aliases"] = object{"os": object{
			"ubuntu": object{"release_title": "from alias"}, "centos": object{"os": "ubuntu"}, "grub-efi": object{}, "pxelinux": object{"size": "1"},
		}}
	}
	return marshal(l)
}

func marshal(v any) []byte {
	doc, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return doc
}

func (c *chaos) products() object {
	products := object{}
	main := pick(c, multiFile, singleFile, bootloader)
	for i := range 1 + c.IntN(4) {
		s := main
		if c.rarely(8) {
			s = pick(c, multiFile, singleFile, bootloader)
		}
		products[fmt.Sprintf("com.ubuntu.maas:%d:p%d", 1+c.IntN(2), i)] = c.product(s)
	}
	if c.rarely(20) {
		return object{}
	}
	return products
}

func (c *chaos) product(s shape) object {
	p := object{"arch": pick(c, "amd64", "arm64"), "label": "stable", "unknown": 1.5}
	switch s {
	case bootloader:
		p["os"], p["arches"], p["bootloader-type"] = pick(c, "grub-efi", "pxelinux"), "amd64", pick(c, "uefi", "pxe")
	default:
		p["os"], p["release"], p["release_title"], p["subarch"], p["subarches"], p["version"] = pick(c, "ubuntu", "centos"), "jammy", "22.04 LTS", "ga-22.04", "generic", "22.04"
		p["support_eol"], p["kflavor"] = "2027-04-21", "generic"
	}
	if c.rarely(3) {
		delete(p, pick(c, s.tags()...))
	}
	if c.rarely(6) {
		p["support_eol"] = pick[any](c, nil, "", "2027-4-1", "never", 2027)
	}
	if c.rarely(8) {
		p[pick(c, "product_name", "version", "kflavor", "arch")] = pick[any](c, "x", 22.5, false, nil, []any{"y"})
	}
	versions := object{}
	for range c.IntN(4) {
		versions[fmt.Sprintf("2025%02d01", 1+c.IntN(12))] = c.version(s)
	}
	if len(versions) > 0 || c.rarely(2) {
		p["versions"] = versions
	} else {
		p["versions"] = object{"20250101": c.version(s)}
	}
	return p
}

func (c *chaos) version(s shape) object {
	v, items := object{}, object{}
	for _, group := range s.groups() {
		if !c.rarely(25) {
			items[pick(c, group...)] = c.item(s)
		}
	}
	for range c.IntN(2) {
		items[pick(c, "extra", "boot-dtb", "squashfs", "syslinux", "root-tgz")] = c.item(s)
	}
	v["items"] = items
	if c.rarely(6) {
		v[pick(c, "label", "arch", "support_eol", "release_title", "version_name", "squashfs", "os")] = pick[any](c, "ubuntu", "2027-04-21", 7, nil)
	}
	if c.rarely(30) {
		items[pick(c, "version_name", "support_eol")] = c.item(s)
	}
	if c.rarely(20) {
		delete(v, "items")
	}
	return v
}

func (c *chaos) item(s shape) object {
	sum := sha256.Sum256([]byte{byte(c.IntN(256))})
	hash := hex.EncodeToString(sum[:])
	it := object{"ftype": "f", "path": fmt.Sprintf("a/b%d", c.IntN(1000)), "sha256": hash, "size": 1 + c.IntN(1e6)}
	if s == bootloader {
		it["src_package"], it["src_release"], it["src_version"] = "p", "r", "1.0~é"
	} else {
		it["kpackage"] = "linux-generic"
	}
	if c.rarely(10) {
		it["size"] = fmt.Sprint(it["size"])
	}
	if c.rarely(30) {
		delete(it, "sha256")
		it["md5"] = hash[:32]
	}
	if c.rarely(30) {
		it["sha512"] = hash + hash
	}
	if c.rarely(40) {
		it = object{"id": "ami-1", "ftype": "cloud"}
	}
	if c.rarely(40) {
		delete(it, pick(c, "ftype", "src_release", "kpackage"))
	}
	if c.rarely(40) {
		it[pick(c, "kpackage", "src_version", "ftype")] = pick[any](c, 5, nil, object{})
	}
	if c.rarely(60) {
		it["path"] = "streams/v1/index.json"
	}
	return it
}

// parseRandom returns the list of a seed, or nil if it cannot be parsed.
func parseRandom(t *testing.T, c *chaos, id string) *Products {
	t.Helper()
	l, err := ParseProducts(c.list(id))
	if err != nil {
		if c.calm {
			t.Fatal(err)
		}
		return nil
	}
	return l
}
