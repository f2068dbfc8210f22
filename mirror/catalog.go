package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/streams"
)

// A catalog is all that upstream's verified metadata says, as one source had
// it at one time.
type catalog struct {
	source string // base URL, without a trailing slash
	index  document
	x      *streams.Index
	lists  []list // in the order of the index

	// warnings are contradictions that stayed after fetching again.
	warnings []string
}

// A document is one of upstream's own, as it came.
type document struct {
	path   streams.Path
	bytes  []byte
	digest cache.Digest
	signed *streams.Signed // nil if nobody signed it or no key was at hand
}

// A list is a products document and the index entry that names it.
type list struct {
	document
	entry *streams.Entry
	l     *streams.Products
}

// ErrVerification is wrapped by every error that means: upstream said
// something that must not be believed. Nothing was published.
var ErrVerification = errors.New("verification failed")

// distKeyrings are where Ubuntu's packages keep the keyring that signs
// images.maas.io: the ubuntu-keyring package, and inside the MAAS snap.
var distKeyrings = []string{
	"/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",
	"/snap/maas/current/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg",
}

// trust decides whether a document may be believed.
type trust struct {
	keyring       *streams.Keyring // nil: none at hand, only with allowUnsigned
	allowUnsigned bool
}

func (s Stream) trust() (trust, error) {
	t := trust{allowUnsigned: s.AllowUnsigned}
	data := s.Keyring
	if len(data) == 0 {
		if t.allowUnsigned {
			return t, nil
		}
		var err error
		if data, err = readDistKeyring(); err != nil {
			return t, fmt.Errorf("cannot verify stream %s: %w", s.Name, err)
		}
	}
	k, err := streams.ReadKeyring(data)
	if err != nil {
		return t, fmt.Errorf("cannot verify stream %s: cannot use its keyring: %w", s.Name, err)
	}
	t.keyring = k
	return t, nil
}

func readDistKeyring() ([]byte, error) {
	for _, name := range distKeyrings {
		data, err := os.ReadFile(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, fmt.Errorf("no keyring: %s is absent; install the package ubuntu-keyring or give one with --keyring (Canonical's image key is 4A3CE3CD565D7EB5C810E2B97FF3F408476CF100)", distKeyrings[0])
}

// open returns the text of a document that may be believed.
func (t trust) open(doc []byte, now time.Time) (text []byte, signed *streams.Signed, err error) {
	if t.keyring != nil {
		signed, err := t.keyring.Verify(doc, now)
		if err == nil {
			return signed.Text, signed, nil
		}
		if !t.allowUnsigned || !errors.Is(err, streams.ErrUnsigned) {
			return nil, nil, err
		}
	}
	if streams.IsClearsigned(doc) {
		text, err := streams.ClearText(doc)
		return text, nil, err
	}
	return doc, nil, nil
}

// A reader reads one stream's upstream metadata.
type reader struct {
	m          *Mirror
	s          Stream
	trust      trust
	accepted   accepted
	allowOlder bool
}

// errBehind is returned for a source whose index is older than the last
// accepted one.
var errBehind = errors.New("older than the metadata accepted before")

// indexes reads the index of the first source that answers with a good one.
func (r *reader) indexes(ctx context.Context) (*catalog, error) {
	var failures []error
	for _, source := range r.s.Upstream {
		c, err := r.index(ctx, source)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failures = append(failures, err)
		if len(r.s.Upstream) > 1 {
			r.m.log.Warn("upstream skipped", "stream", r.s.Name, "reason", err)
		}
	}
	return nil, errors.Join(failures...)
}

func (r *reader) index(ctx context.Context, source string) (*catalog, error) {
	doc, text, err := r.indexDocument(ctx, source)
	if err != nil {
		return nil, err
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s/%s: %w", source, doc.path, err)
	}
	// A missing or unreadable date counts as the oldest.
	updated, _ := streams.ParseTime(x.Updated)
	if updated.Before(r.accepted.Index) && !r.allowOlder {
		return nil, fmt.Errorf("%w: %s/%s is of %s, %w (%s): an old copy may hide security updates; --allow-older accepts it",
			ErrVerification, source, doc.path, orNoDate(x.Updated), errBehind, streams.FormatTime(r.accepted.Index))
	}
	return &catalog{source: source, index: doc, x: x}, nil
}

func orNoDate(s string) string {
	if s == "" {
		return "no date"
	}
	return s
}

func (r *reader) indexDocument(ctx context.Context, source string) (document, []byte, error) {
	if r.s.Index != "" {
		return r.document(ctx, source, r.s.Index, true)
	}
	doc, text, err := r.document(ctx, source, signedIndex, true)
	if r.s.AllowUnsigned && errors.Is(err, ErrNotFound) {
		return r.document(ctx, source, unsignedIndex, true)
	}
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: this is no signed stream, or its URL is not the one above streams/v1; --allow-unsigned takes an unsigned one", err)
	}
	return doc, text, err
}

// document fetches, or finds unchanged, one of upstream's documents, and opens it.
func (r *reader) document(ctx context.Context, source string, p streams.Path, conditional bool) (document, []byte, error) {
	url := fileURL(source, p)
	doc := document{path: p}
	var known validated
	if conditional {
		known = r.m.validated(url)
	}
	got, err := r.m.client.Document(ctx, url, known.Validators, streams.MaxDocument)
	if err != nil {
		return doc, nil, err
	}
	doc.bytes = got.Bytes
	if got.NotModified {
		doc.bytes = known.bytes
	}
	doc.digest = sha256.Sum256(doc.bytes)
	text, signed, err := r.trust.open(doc.bytes, r.m.now())
	if err != nil && got.NotModified {
		// Another stream took these bytes from the same URL, with less to ask of them.
		return r.document(ctx, source, p, false)
	}
	if err != nil {
		return doc, nil, fmt.Errorf("%w: cannot believe %s: %w", ErrVerification, url, err)
	}
	doc.signed = signed
	if !got.NotModified {
		r.m.setValidated(url, got.Validators, doc.digest)
	}
	return doc, text, nil
}

// validated is what makes a conditional request for a document possible: the
// validators of its last answer and the bytes they stand for.
type validated struct {
	Validators
	Digest string `json:"digest"`
	bytes  []byte
}

// validated returns the validators of a document that the store still has.
// They are facts of the index: when it is lost, documents are fetched whole.
func (m *Mirror) validated(url string) (v validated) {
	note, err := m.store.Note("document " + url)
	if err != nil || json.Unmarshal(note, &v) != nil {
		return validated{}
	}
	d, err := cache.ParseDigest(v.Digest)
	if err != nil {
		return validated{}
	}
	if v.bytes, err = m.readBlob(d); err != nil {
		return validated{}
	}
	return v
}

func (m *Mirror) setValidated(url string, v Validators, d cache.Digest) {
	if v == (Validators{}) {
		return
	}
	note, err := json.Marshal(validated{Validators: v, Digest: d.String()})
	if err == nil {
		err = m.store.SetNote("document "+url, note)
	}
	if err != nil {
		m.log.Warn("validators not kept: the next sync fetches the document whole", "url", url, "reason", err)
	}
}

// complete reads the lists that c's index names, again and again for up to
// the settling time while they contradict it: upstream writes its documents
// one by one.
func (r *reader) complete(ctx context.Context, c *catalog) (*catalog, error) {
	deadline := r.m.now().Add(r.m.settle)
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		err := r.readLists(ctx, c)
		if err == nil {
			err = c.contradiction()
		}
		unsettled := errors.Is(err, ErrNotFound) || errors.As(err, new(contradictionError))
		if !unsettled {
			return c, err
		}
		if !r.m.now().Add(wait).Before(deadline) {
			if errors.Is(err, ErrNotFound) {
				return nil, err
			}
			c.warnings = append(c.warnings, err.Error())
			return c, nil
		}
		r.m.log.Info("upstream seems to be publishing: reading its metadata again", "stream", r.s.Name, "reason", err, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		fresh, err := r.index(ctx, c.source)
		if err != nil {
			return nil, err
		}
		c = fresh
	}
}

func (r *reader) readLists(ctx context.Context, c *catalog) error {
	c.lists, c.warnings = nil, nil
	for _, e := range c.x.Entries {
		if e.Format != "products:1.0" {
			c.warnings = append(c.warnings, fmt.Sprintf("index entry %s has format %q, which is not followed", e.ContentID, e.Format))
			continue
		}
		li, err := r.list(ctx, c.source, e)
		if err != nil {
			return err
		}
		c.lists = append(c.lists, li)
	}
	return nil
}

func (r *reader) list(ctx context.Context, source string, e *streams.Entry) (list, error) {
	doc, text, err := r.document(ctx, source, e.Path, true)
	if err != nil {
		return list{}, err
	}
	l, err := streams.ParseProducts(text)
	if err != nil {
		return list{}, fmt.Errorf("cannot read %s: %w", fileURL(source, e.Path), err)
	}
	if l.ContentID != e.ContentID {
		return list{}, fmt.Errorf("%w: %s is the list %s, the index names it as %s", ErrVerification, fileURL(source, e.Path), l.ContentID, e.ContentID)
	}
	updated, _ := streams.ParseTime(l.Updated)
	if last := r.accepted.Lists[l.ContentID]; updated.Before(last) && !r.allowOlder {
		return list{}, fmt.Errorf("%w: %s is of %s, %w (%s): an old copy may hide security updates; --allow-older accepts it",
			ErrVerification, fileURL(source, e.Path), orNoDate(l.Updated), errBehind, streams.FormatTime(last))
	}
	return list{document: doc, entry: e, l: l}, nil
}

// A contradictionError says how an index and its lists disagree.
type contradictionError string

func (e contradictionError) Error() string { return string(e) }

// contradiction compares the products that the index promises with those of
// the lists. The dates are not compared: in the real stream the index's
// `updated` of a list differs from the list's own.
func (c *catalog) contradiction() error {
	for _, li := range c.lists {
		promised := make(map[string]bool, len(li.entry.Products))
		for _, name := range li.entry.Products {
			promised[name] = true
		}
		for _, p := range li.l.Products {
			if !promised[p.Name] {
				return contradictionError(fmt.Sprintf("the list %s has the product %s, which the index does not name", li.l.ContentID, p.Name))
			}
			delete(promised, p.Name)
		}
		for name := range promised {
			return contradictionError(fmt.Sprintf("the index names the product %s, which the list %s lacks", name, li.l.ContentID))
		}
	}
	return nil
}

// dates returns what a sync of c makes the accepted state.
func (c *catalog) dates() (index time.Time, lists map[string]time.Time) {
	index, _ = streams.ParseTime(c.x.Updated)
	lists = map[string]time.Time{}
	for _, li := range c.lists {
		lists[li.l.ContentID], _ = streams.ParseTime(li.l.Updated)
	}
	return index, lists
}

// equal reports whether two catalogs hold the same documents.
func (c *catalog) equal(other *catalog) bool {
	return c.source == other.source && bytes.Equal(c.index.bytes, other.index.bytes)
}

// readBlob returns a small blob whole.
func (m *Mirror) readBlob(d cache.Digest) ([]byte, error) {
	return m.store.Files().ReadFile(d, streams.MaxDocument)
}

// fileURL joins a base URL and a path: the path's characters are sent
// literally where a URL allows them, as simplestreams' own clients do.
func fileURL(source string, p streams.Path) string {
	return strings.TrimRight(source, "/") + "/" + escapePath(string(p))
}
