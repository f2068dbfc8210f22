package mirror

import (
	"bytes"
	"fmt"
	"io"

	"oxbow/cache"
	"oxbow/mirror/bundle"
)

// bundleMetadata is what volumes of a bundle have beside files, held as it came: compressed.
type bundleMetadata struct {
	members   map[string][]byte
	docs      map[cache.Digest]bundle.Member
	manifests map[cache.Digest]*cache.Manifest
	text      int64 // bytes of the manifests
	limit     int64 // of these
}

func newBundleMetadata(limit int64) *bundleMetadata {
	return &bundleMetadata{members: map[string][]byte{}, docs: map[cache.Digest]bundle.Member{}, manifests: map[cache.Digest]*cache.Manifest{}, limit: limit}
}

// add takes in a member that is no file. One that is here already is read to its end, which proves it.
func (md *bundleMetadata) add(m bundle.Member, data io.Reader) error {
	if md.members[m.Path] != nil {
		_, err := io.Copy(io.Discard, data)
		return err
	}
	text, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	md.members[m.Path] = text
	switch m.Kind() {
	case bundle.KindDocument:
		md.docs[m.Content()] = m
	case bundle.KindSnapshot:
		text, err := bundle.Decompress(m, bytes.NewReader(text), md.limit-md.text)
		if err != nil {
			md.text = md.limit // it may have been as long
			return err
		}
		md.text += int64(len(text))
		if md.manifests[m.Content()], err = cache.ParseManifest(text); err != nil {
			return err
		}
	}
	return nil
}

// ReadFile returns a document of the bundle.
func (md *bundleMetadata) ReadFile(d cache.Digest, limit int64) ([]byte, error) {
	m, ok := md.docs[d]
	if !ok {
		return nil, fmt.Errorf("document %v is not in what was read of the bundle: %w", d, cache.ErrMiss)
	}
	return bundle.Decompress(m, bytes.NewReader(md.members[m.Path]), limit)
}
