package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"oxbow/streams"
)

// A tree is a signed plain stream on disk: one product a file.
type tree struct {
	dir     string
	keyring string
	paths   []string
	bytes   int64
}

// makeTree writes a tree of files with the given sizes. Their bytes are random,
// as those of images are in effect.
func makeTree(b *bench, sizes []int64) (*tree, error) {
	dir, err := os.MkdirTemp(b.dir, "tree-")
	if err != nil {
		return nil, err
	}
	t := &tree{dir: dir, keyring: dir + ".gpg"}
	products := map[string]any{}
	for i, size := range sizes {
		path := fmt.Sprintf("files/%02x/%d", i%256, i)
		sum, err := writeRandom(filepath.Join(dir, path), uint64(i), size)
		if err != nil {
			return nil, err
		}
		t.paths = append(t.paths, path)
		t.bytes += size
		item := map[string]any{"ftype": "file", "path": path, "size": size, "sha256": sum}
		products[fmt.Sprintf("org.example:%05d", i)] = map[string]any{
			"versions": map[string]any{"20260101": map[string]any{"items": map[string]any{"file": item}}},
		}
	}
	return t, t.sign(products)
}

const contentID = "org.example:bench"

func (t *tree) sign(products map[string]any) error {
	now := time.Now()
	key, err := streams.GenerateSigningKey(streams.Ed25519, "bench", now)
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.keyring, key.Public(), 0o644); err != nil {
		return err
	}
	names := []string{}
	for name := range products {
		names = append(names, name)
	}
	date := streams.FormatTime(now)
	list := map[string]any{"format": "products:1.0", "content_id": contentID, "datatype": "image-downloads", "updated": date, "products": products}
	index := map[string]any{"format": "index:1.0", "updated": date, "index": map[string]any{contentID: map[string]any{
		"format": "products:1.0", "datatype": "image-downloads", "updated": date, "path": "streams/v1/bench.sjson", "products": names,
	}}}
	for name, doc := range map[string]any{"bench.sjson": list, "index.sjson": index} {
		text, err := json.MarshalIndent(doc, "", " ")
		if err != nil {
			return err
		}
		signed, err := key.Clearsign(text, now)
		if err != nil {
			return err
		}
		file := filepath.Join(t.dir, "streams/v1", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, signed, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func writeRandom(name string, seed uint64, size int64) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	if _, err := io.CopyN(w, rand.NewChaCha8(key), size); err != nil {
		return "", err
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), f.Close()
}

// log is where an upstream that serves the tree notes what it sent.
func (t *tree) log() string { return t.dir + ".log" }

// remove frees the disk for the next scenario.
func (t *tree) remove() { _ = os.RemoveAll(t.dir) }
