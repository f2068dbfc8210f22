package mirror

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// A reader reads one stream's upstream metadata.
type reader struct {
	m          *Mirror
	client     *upstream.Client // limited as the stream is
	s          Stream
	trust      trust
	accepted   accepted
	allowOlder bool
	brief      bool  // somebody waits for the metadata: custody is left to the next sync
	tree       *Tree // read in place of the upstreams; nil: none
}

// bases returns where to read, best first.
func (r *reader) bases() []string {
	if r.tree != nil {
		return []string{r.tree.base()}
	}
	return r.s.Upstream
}

// ErrBehind is wrapped by the error about a source whose metadata is older than
// what was accepted before. Another source may be ahead.
var ErrBehind = errors.New("older than the metadata accepted before")

// read returns the catalog of the first source that has a good one. Where done
// says that an index alone tells enough, its lists are not read. Sources that are
// behind are an error only if no other one could be asked.
func (r *reader) read(ctx context.Context, done func(*catalog) bool) (*catalog, error) {
	var behind, failures []error
	for _, base := range r.bases() {
		c, err := r.index(ctx, base)
		if err == nil && !done(c) {
			c, err = r.complete(ctx, c)
		}
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, ErrBehind) {
			behind = append(behind, err)
		} else {
			failures = append(failures, err)
		}
		if len(r.bases()) > 1 {
			r.m.log.Warn("upstream skipped", "stream", r.s.Name, "upstream", shown(base), "reason", err)
		}
	}
	if len(failures) > 0 {
		return nil, errors.Join(failures...)
	}
	return nil, errors.Join(behind...)
}

// index reads the index of a source.
func (r *reader) index(ctx context.Context, base string) (*catalog, error) {
	doc, text, err := r.indexDocument(ctx, base)
	if err != nil {
		return nil, err
	}
	if r.brief {
		doc.offer = nil
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", shown(fileURL(base, doc.path)), err)
	}
	if err := r.notBehind(fileURL(base, doc.path), x.Updated, r.accepted.Index); err != nil {
		return nil, err
	}
	return &catalog{base: base, indexDoc: doc, index: x}, nil
}

// maxAhead is how far a date of upstream's may lie in the future: clocks differ, but not
// by more. A later one, once accepted, would make everything that follows seem older.
const maxAhead = 24 * time.Hour

// notBehind refuses a document that is older than the one accepted before, or dated
// ahead. A missing or unreadable date counts as the oldest.
func (r *reader) notBehind(url, updated string, accepted time.Time) error {
	date, _ := streams.ParseTime(updated)
	if now := r.m.now(); date.After(now.Add(maxAhead)) {
		return fmt.Errorf("%w: %s is dated %s, more than a day ahead of this machine's clock (%s): set the clock, or wait until upstream has mended its date",
			ErrVerification, shown(url), updated, streams.FormatTime(now))
	}
	if r.allowOlder || !date.Before(accepted) {
		return nil
	}
	if updated == "" {
		updated = "no date"
	}
	return fmt.Errorf("%w: %s is of %s, %w (%s): an old copy may hide security updates; --allow-older accepts it",
		ErrVerification, shown(url), updated, ErrBehind, streams.FormatTime(accepted))
}

func (r *reader) indexDocument(ctx context.Context, base string) (document, []byte, error) {
	if r.s.Index != "" {
		return r.document(ctx, base, r.s.Index)
	}
	doc, text, err := r.document(ctx, base, streams.SignedIndex)
	if r.s.AllowUnsigned && errors.Is(err, upstream.ErrNotFound) {
		return r.document(ctx, base, streams.UnsignedIndex)
	}
	if errors.Is(err, upstream.ErrNotFound) {
		err = fmt.Errorf("%w: this is no signed stream, or its URL is not the one above streams/v1; --allow-unsigned takes an unsigned one", err)
	}
	return doc, text, err
}

// document fetches one of upstream's documents, or finds it unchanged, and
// returns it with its text.
func (r *reader) document(ctx context.Context, base string, p streams.Path) (document, []byte, error) {
	url := fileURL(base, p)
	known := r.m.validated(url)
	doc, text, err := r.fetchDocument(ctx, url, p, known)
	if errors.Is(err, ErrVerification) && known.bytes != nil {
		// Another stream may have taken these bytes from the same URL, with less
		// to ask of them.
		return r.fetchDocument(ctx, url, p, validated{})
	}
	return doc, text, err
}

func (r *reader) fetchDocument(ctx context.Context, url string, p streams.Path, known validated) (document, []byte, error) {
	doc, got, err := r.fetchBytes(ctx, url, p, known)
	if err != nil {
		return doc, nil, err
	}
	text, err := r.trust.open(doc.bytes, r.m.now())
	if err != nil {
		return doc, nil, fmt.Errorf("%w: cannot believe %s: %w", ErrVerification, shown(url), err)
	}
	if !got.NotModified {
		r.m.setValidated(url, got.Validators, doc.digest)
	}
	return doc, text, nil
}

// fetchBytes fetches a document, of which nothing is believed yet.
func (r *reader) fetchBytes(ctx context.Context, url string, p streams.Path, known validated) (document, *upstream.Document, error) {
	doc := document{path: p}
	var got *upstream.Document
	var err error
	if r.tree != nil {
		got = &upstream.Document{}
		got.Bytes, err = r.tree.document(ctx, p)
	} else {
		got, err = r.client.Document(ctx, url, known.Validators, streams.MaxDocument)
	}
	if err != nil {
		return doc, nil, err
	}
	doc.bytes, doc.offer = got.Bytes, offered(got.Links)
	if got.NotModified {
		doc.bytes = known.bytes
	}
	doc.digest = sha256.Sum256(doc.bytes)
	return doc, got, nil
}

// complete reads what c's index names: the lists and, where upstream's documents
// are published, their unsigned family.
func (r *reader) complete(ctx context.Context, c *catalog) (*catalog, error) {
	c, err := r.settled(ctx, c)
	if err == nil && r.s.all() {
		err = r.readFamily(ctx, c)
	}
	return c, err
}

// settled reads the lists that c's index names, again and again for up to
// the settling time while they contradict it: upstream writes its documents
// one by one.
func (r *reader) settled(ctx context.Context, c *catalog) (*catalog, error) {
	waited := time.Duration(0)
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		err := r.readLists(ctx, c)
		if err == nil {
			err = c.contradiction()
		}
		if err == nil {
			return c, nil
		}
		_, contradicts := errors.AsType[contradictionError](err)
		if !contradicts && !errors.Is(err, upstream.ErrNotFound) {
			return nil, err
		}
		if waited += wait; waited > r.m.settle || r.tree != nil { // nobody writes to a tree
			if !contradicts {
				return nil, err
			}
			c.warnings, c.unsettled = append(c.warnings, err.Error()), true
			return c, nil
		}
		r.m.log.Info("upstream seems to be publishing: reading its metadata again", "stream", r.s.Name, "reason", err, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		if c, err = r.index(ctx, c.base); err != nil {
			return nil, err
		}
	}
}

func (r *reader) readLists(ctx context.Context, c *catalog) error {
	c.lists, c.warnings = nil, nil
	for _, e := range c.index.Entries {
		if e.Format != "products:1.0" {
			c.warnings = append(c.warnings, fmt.Sprintf("index entry %s has format %q, which is not followed", e.ContentID, e.Format))
			continue
		}
		li, err := r.list(ctx, c.base, e)
		if err != nil {
			return err
		}
		c.lists = append(c.lists, li)
	}
	return nil
}

func (r *reader) list(ctx context.Context, base string, e *streams.Entry) (list, error) {
	doc, text, err := r.document(ctx, base, e.Path)
	if err != nil {
		return list{}, err
	}
	url := fileURL(base, e.Path)
	l, err := streams.ParseProducts(text)
	if err != nil {
		return list{}, fmt.Errorf("cannot read %s: %w", shown(url), err)
	}
	if l.ContentID != e.ContentID {
		return list{}, fmt.Errorf("%w: %s is the list %s, the index names it as %s", ErrVerification, shown(url), l.ContentID, e.ContentID)
	}
	if err := r.notBehind(url, l.Updated, r.accepted.Lists[l.ContentID]); err != nil {
		return list{}, err
	}
	return list{document: doc, entry: e, products: l}, nil
}
