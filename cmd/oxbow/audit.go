package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"oxbow/streams"
)

// An audit reads a served tree as clients do, everything that its metadata
// names, and proves all of it. The keyring is the only thing it trusts.
type audit struct {
	client *http.Client
	base   string // of the tree, with a slash at its end
	ring   *streams.Keyring
	seen   map[streams.Path]*streams.Item

	Indexes    int   `json:"indexes"`
	Lists      int   `json:"lists"`
	Signatures int   `json:"signatures"`
	Files      int   `json:"files"`
	Bytes      int64 `json:"bytes"` // of the files
}

// auditTree reads the tree at base, which ends with a slash.
func auditTree(ctx context.Context, client *http.Client, base, keyringURL string) (*audit, error) {
	return auditFamilies(ctx, client, base, keyringURL, "sjson", "json")
}

// auditFamilies reads what one of the families of documents names, or both.
func auditFamilies(ctx context.Context, client *http.Client, base, keyringURL string, suffixes ...string) (*audit, error) {
	a := &audit{client: client, base: base, seen: map[streams.Path]*streams.Item{}}
	data, err := a.get(ctx, keyringURL)
	if err != nil {
		return nil, err
	}
	if a.ring, err = streams.ReadKeyring(data); err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", keyringURL, err)
	}
	for _, suffix := range suffixes {
		if err := a.family(ctx, suffix); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// family reads an index, its lists and their files.
func (a *audit) family(ctx context.Context, suffix string) error {
	doc, err := a.signed(ctx, streams.Path("streams/v1/index."+suffix), suffix)
	if err != nil {
		return err
	}
	x, err := streams.ParseIndex(doc)
	if err != nil {
		return err
	}
	a.Indexes++
	var lists []*streams.Products
	for _, e := range x.Entries {
		doc, err := a.signed(ctx, e.Path, suffix)
		if err != nil {
			return err
		}
		l, err := streams.ParseProducts(doc)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		a.Lists++
		lists = append(lists, l)
	}
	for _, f := range streams.Lint(x, lists, streams.All) {
		if f.Fatal {
			return fmt.Errorf("MAAS %s refuses the tree: %s %s: %s", f.Profile, f.ContentID, f.Pedigree, f.Problem)
		}
	}
	for _, l := range lists {
		if err := a.files(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// signed returns the text of a document whose signature, within a .sjson or
// beside a .json, is good.
func (a *audit) signed(ctx context.Context, p streams.Path, suffix string) ([]byte, error) {
	doc, err := a.get(ctx, a.url(p))
	if err != nil {
		return nil, err
	}
	var sig *streams.Signed
	if suffix == "sjson" {
		sig, err = a.ring.Verify(doc, time.Now())
	} else {
		var detached []byte
		if detached, err = a.get(ctx, a.url(p+".gpg")); err != nil {
			return nil, err
		}
		sig, err = a.ring.VerifyDetached(doc, detached, time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	a.Signatures++
	return sig.Text, nil
}

func (a *audit) files(ctx context.Context, l *streams.Products) error {
	for at, it := range l.Items() {
		if it.Path == "" {
			continue
		}
		if other := a.seen[it.Path]; other != nil {
			if other.Size != it.Size || !bytes.Equal(other.SHA256, it.SHA256) {
				return fmt.Errorf("%s has two contents", it.Path)
			}
			continue
		}
		a.seen[it.Path] = it
		if err := a.file(ctx, it); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

// file reads one file and checks its size and every sum that is promised.
func (a *audit) file(ctx context.Context, it *streams.Item) error {
	body, err := a.open(ctx, a.url(it.Path))
	if err != nil {
		return err
	}
	defer body.Close()
	sums := []struct {
		name string
		hash hash.Hash
		want []byte
	}{{"sha256", sha256.New(), it.SHA256}, {"sha512", sha512.New(), it.SHA512}, {"md5", md5.New(), it.MD5}}
	n, err := io.Copy(io.MultiWriter(sums[0].hash, sums[1].hash, sums[2].hash), body)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", it.Path, err)
	}
	if n != it.Size || it.SHA256 == nil {
		return fmt.Errorf("%s has %d bytes, %d and a sha256 are promised", it.Path, n, it.Size)
	}
	for _, s := range sums {
		if got := s.hash.Sum(nil); s.want != nil && !bytes.Equal(got, s.want) {
			return fmt.Errorf("%s has the %s %x, %x is promised", it.Path, s.name, got, s.want)
		}
	}
	a.Files++
	a.Bytes += n
	return nil
}

func (a *audit) url(p streams.Path) string { return a.base + p.Escaped() }

// get returns a document of at most streams.MaxDocument bytes.
func (a *audit) get(ctx context.Context, url string) ([]byte, error) {
	body, err := a.open(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return readAll(body, url, streams.MaxDocument)
}

// open requests a URL; anything but 200 is an error.
func (a *audit) open(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return resp.Body, nil
}

func (a *audit) String() string {
	return fmt.Sprintf("%d indexes, %s, %d good signatures, %s, %s", a.Indexes, counted(a.Lists, "list"), a.Signatures, counted(a.Files, "file"), iec(a.Bytes))
}
