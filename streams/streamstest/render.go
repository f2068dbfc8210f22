package streamstest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"oxbow/streams"
)

// IndexPath is where the signed index of every tree is.
const IndexPath = "streams/v1/index.sjson"

// A Publication is a tree as it was rendered: what upstream serves. It does not
// change.
type Publication struct {
	files map[string]published
}

// published is what upstream has at one path.
type published struct {
	content  io.ReaderAt
	size     int64
	etag     string // quoted
	modified time.Time
	document []byte // the whole content, of metadata only
}

// Render renders the documents and takes hold of the files. Upstream's tools
// write X.json, sign it apart (X.json.gpg) and in one piece (X.sjson), and let
// index.sjson name the .sjson lists; index.json ends with a newline, lists do not.
func (t *Tree) Render() *Publication {
	p := &Publication{files: make(map[string]published)}
	for _, files := range []map[string]*File{t.Extra, t.Files()} {
		for path, f := range files {
			p.addFile(path, f)
		}
	}
	for _, l := range t.Lists {
		t.sign(p, l.path(), l.render(), l.date())
	}
	t.addDocument(p, "streams/v1/index.json", append(t.index(".json"), '\n'), t.Updated)
	if t.Key != nil {
		t.addDetached(p, "streams/v1/index.json", t.Updated)
		t.addClearsigned(p, IndexPath, t.index(".sjson"), t.Updated)
	}
	return p
}

// sign adds a document in its three forms, or in one if the tree is unsigned.
func (t *Tree) sign(p *Publication, path string, text []byte, date time.Time) {
	t.addDocument(p, path, text, date)
	if t.Key != nil {
		t.addDetached(p, path, date)
		t.addClearsigned(p, signedPath(path), text, date)
	}
}

func (t *Tree) addDetached(p *Publication, path string, date time.Time) {
	sig, err := t.Key.Detach(p.Document(path), date)
	if err != nil {
		panic("streamstest: " + err.Error())
	}
	t.addDocument(p, path+".gpg", sig, date)
}

func (t *Tree) addClearsigned(p *Publication, path string, text []byte, date time.Time) {
	doc, err := t.Key.Clearsign(text, date)
	if err != nil {
		panic("streamstest: " + err.Error())
	}
	t.addDocument(p, path, doc, date)
}

func (t *Tree) addDocument(p *Publication, path string, doc []byte, date time.Time) {
	p.files[path] = published{
		content:  bytes.NewReader(doc),
		size:     int64(len(doc)),
		etag:     etag(doc),
		modified: date,
		document: doc,
	}
}

func (p *Publication) addFile(path string, f *File) {
	if f.Broken == Absent {
		return
	}
	content, size := f.served()
	p.files[path] = published{
		content:  content,
		size:     size,
		etag:     etag(fmt.Append(nil, path, f.Size, f.Seed, f.Broken, f.Text)),
		modified: Epoch,
	}
}

func etag(of []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(of))[:17] + `"` }

// Paths returns every path, sorted.
func (p *Publication) Paths() []string { return slices.Sorted(maps.Keys(p.files)) }

// Document returns the metadata at path as it is served, signature and all; nil
// if there is none.
func (p *Publication) Document(path string) []byte { return p.files[path].document }

// Documents returns all metadata by path.
func (p *Publication) Documents() map[string][]byte {
	docs := make(map[string][]byte)
	for path, f := range p.files {
		if f.document != nil {
			docs[path] = f.document
		}
	}
	return docs
}

// WriteDir writes everything under dir, to be served by any web server. Files
// that are there already are replaced; others stay, as upstream's orphans do.
func (p *Publication) WriteDir(dir string) error {
	for path, f := range p.files {
		if err := f.write(filepath.Join(dir, filepath.FromSlash(path))); err != nil {
			return fmt.Errorf("cannot write upstream tree: %w", err)
		}
	}
	return nil
}

func (f published) write(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	w, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, io.NewSectionReader(f.content, 0, f.size)); err != nil {
		w.Close()
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.Chtimes(name, f.modified, f.modified)
}

func (l *List) path() string {
	if l.Path != "" {
		return l.Path
	}
	return "streams/v1/" + l.ContentID + ".json"
}

func (l *List) date() time.Time { return l.Updated.Add(l.Ahead) }

func signedPath(path string) string { return strings.TrimSuffix(path, ".json") + ".sjson" }

// index renders the index that names lists with the suffix.
func (t *Tree) index(suffix string) []byte {
	entries := make(Tags)
	for _, l := range t.Lists {
		var names []string
		for _, p := range l.Products {
			names = append(names, p.Name)
		}
		slices.Sort(names)
		entry := Tags{
			"format":   "products:1.0",
			"path":     strings.TrimSuffix(l.path(), ".json") + suffix,
			"products": names,
			"updated":  streams.FormatTime(l.Updated),
		}
		if l.DataType != "" {
			entry["datatype"] = l.DataType
		}
		entries[l.ContentID] = with(entry, l.Entry)
	}
	return pythonJSON(with(Tags{
		"format":  "index:1.0",
		"index":   entries,
		"updated": streams.FormatTime(t.Updated),
	}, t.Tags))
}

func (l *List) render() []byte {
	products := make(Tags)
	for _, p := range l.Products {
		versions := make(Tags)
		for _, v := range p.Versions {
			items := make(Tags)
			for _, i := range v.Items {
				items[i.Name] = i.members()
			}
			versions[v.Name] = with(Tags{"items": items}, v.Tags)
		}
		products[p.Name] = with(Tags{"versions": versions}, p.Tags)
	}
	list := Tags{
		"content_id": l.ContentID,
		"format":     "products:1.0",
		"products":   products,
		"updated":    streams.FormatTime(l.date()),
	}
	if l.DataType != "" {
		list["datatype"] = l.DataType
	}
	return pythonJSON(with(list, l.Tags))
}

func (i *Item) members() Tags {
	m := make(Tags)
	if f := i.File; f != nil {
		m["path"], m["size"] = f.Path, f.Length()
		if i.SizeAsString {
			m["size"] = fmt.Sprint(f.Length())
		}
		sums := i.Sums
		if sums == nil {
			sums = []string{"sha256"}
		}
		for _, kind := range sums {
			m[kind] = f.Sum(kind)
		}
	}
	return with(m, i.Tags)
}

// with lays over over base, which it changes and returns.
func with(base, over Tags) Tags {
	maps.Copy(base, over)
	return base
}
