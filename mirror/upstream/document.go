package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// A Document is a small file of upstream, held in memory.
type Document struct {
	Bytes       []byte // nil when NotModified
	URL         string // where it came from, after redirects; without user, password and query
	Validators  Validators
	NotModified bool // it is what the validators of the request stand for
}

// Document fetches the document at rawURL, of at most limit bytes. With
// validators of an earlier answer the request is conditional.
// Errors are a [*FetchError], or the context's.
func (c *Client) Document(ctx context.Context, rawURL string, v Validators, limit int64) (*Document, error) {
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	for failures := 1; ; failures++ {
		doc, err := c.document(ctx, u, v, limit)
		if err == nil {
			return doc, nil
		}
		if err := c.retry(ctx, u, failures, err); err != nil {
			return nil, err
		}
	}
}

// document tries once.
func (c *Client) document(ctx context.Context, u *url.URL, v Validators, limit int64) (*Document, error) {
	if err := c.gate.enter(ctx, urgent); err != nil {
		return nil, err
	}
	defer c.gate.leave()
	header := http.Header{}
	if v.ETag != "" {
		header.Set("If-None-Match", v.ETag)
	}
	if v.LastModified != "" {
		header.Set("If-Modified-Since", v.LastModified)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	allowed := allow(c.opts.DocumentTimeout, cancel, refusal(fmt.Sprintf("the document did not arrive within %v", c.opts.DocumentTimeout)))
	defer allowed.end()
	a, err := c.get(ctx, u, header)
	if err != nil {
		return nil, err
	}
	defer a.body.Close()
	a.body.allowed = allowed
	doc := &Document{URL: Display(a.url), Validators: documentValidators(a.Header)}
	switch {
	case a.StatusCode == http.StatusOK:
		doc.Bytes, err = readDocument(a, limit)
		return doc, err
	case a.StatusCode == http.StatusNotModified && v != Validators{}:
		doc.NotModified = true
		doc.Validators = v
		return doc, nil
	}
	return nil, statusError(a)
}

func readDocument(a *answer, limit int64) ([]byte, error) {
	if e := a.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, fmt.Errorf("%w: %s", errEncoding, e)
	}
	if a.ContentLength > limit {
		return nil, fmt.Errorf("%w of %d bytes", errTooLong, limit)
	}
	data, err := io.ReadAll(io.LimitReader(a.body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w of %d bytes", errTooLong, limit)
	}
	return data, nil
}

const (
	errEncoding refusal = "the answer has a content encoding that was not asked for"
	errTooLong  refusal = "the document is longer than the bound"
)
