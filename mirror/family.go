package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// readFamily reads the unsigned forms of c's documents, X.json of X.sjson, and their
// detached signatures, X.json.gpg. Clients such as incus read these alone, and check
// nothing: so they are published only if each of them says what the signed one says.
// One that does not, or cannot be had, leaves out all, since an index must not name
// lists of another day; those of an older snapshot are served on then.
func (r *reader) readFamily(ctx context.Context, c *catalog) error {
	_, signed := unsignedForm(c.indexDoc.path)
	if !signed {
		return nil // the unsigned family is the one that was read
	}
	family, err := r.family(ctx, c)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		c.unsettled = true
		c.warnings = append(c.warnings, fmt.Sprintf("the unsigned documents are left out: %v", err))
		return nil
	}
	c.family = family
	return nil
}

// family returns what there is to publish of the family: nothing where upstream has no
// unsigned index.
func (r *reader) family(ctx context.Context, c *catalog) (family []document, err error) {
	for i, doc := range c.documents() {
		path, signed := unsignedForm(doc.path)
		if !signed {
			continue // an index may name a list that is not signed apart
		}
		both, err := r.unsigned(ctx, c.base, path, doc, i == 0)
		if i == 0 && errors.Is(err, upstream.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		family = append(family, both...)
	}
	return family, nil
}

// unsignedForm returns the path of the unsigned form of a document that is signed.
func unsignedForm(p streams.Path) (path streams.Path, signed bool) {
	name, signed := strings.CutSuffix(string(p), ".sjson")
	return streams.Path(name + ".json"), signed
}

// unsigned fetches the unsigned form of a document, and its signature if there is one.
func (r *reader) unsigned(ctx context.Context, base string, path streams.Path, signed document, index bool) ([]document, error) {
	doc, err := r.plainDocument(ctx, base, path)
	if err != nil {
		return nil, err
	}
	url := shown(fileURL(base, path))
	text, err := textOf(signed.bytes)
	if err == nil {
		err = sameText(text, doc.bytes, index)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not what is signed: %w", url, err)
	}
	sig, err := r.plainDocument(ctx, base, path+".gpg")
	if errors.Is(err, upstream.ErrNotFound) {
		return []document{doc}, nil
	}
	if err == nil && r.trust.keyring != nil {
		if _, err = r.trust.keyring.VerifyDetached(doc.bytes, sig.bytes, r.m.now()); err != nil {
			err = fmt.Errorf("%s.gpg does not belong to it: %w", url, err)
		}
	}
	return []document{doc, sig}, err
}

// plainDocument fetches a document that nobody vouches for, or finds it unchanged.
func (r *reader) plainDocument(ctx context.Context, base string, p streams.Path) (document, error) {
	url := fileURL(base, p)
	doc, got, err := r.fetchBytes(ctx, url, p, r.m.validated(url))
	if err == nil && !got.NotModified {
		r.m.setValidated(url, got.Validators, doc.digest)
	}
	return doc, err
}

var errOtherText = errors.New("it says something else")

// sameText compares an unsigned document with the text of a signed one. They may differ
// in white space and the order of keys; those of an index also in the endings of the
// paths of lists, each family naming its own.
func sameText(signed, plain []byte, index bool) error {
	if index {
		if _, err := streams.ParseIndex(plain); err != nil { // which refuses keys that come twice
			return err
		}
	} else if _, err := streams.ParseProducts(plain); err != nil {
		return err
	}
	a, err := decode(signed)
	if err != nil {
		return err
	}
	b, err := decode(plain)
	if err != nil {
		return err
	}
	if index {
		nameUnsigned(a)
	}
	if !reflect.DeepEqual(a, b) {
		return errOtherText
	}
	return nil
}

func decode(text []byte) (doc map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return doc, d.Decode(&doc)
}

// nameUnsigned has an index name the unsigned lists.
func nameUnsigned(index map[string]any) {
	entries, _ := index["index"].(map[string]any)
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		if path, ok := entry["path"].(string); ok {
			if unsigned, signed := unsignedForm(streams.Path(path)); signed {
				entry["path"] = string(unsigned)
			}
		}
	}
}
