package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"oxbow/streams"
)

// A tally counts what readers did.
type tally struct{ imports, files, ranges, cut, refused atomic.Int64 }

func (t *tally) String() string {
	return fmt.Sprintf("readers: %d imports, %d whole files and %d ranges with the right bytes, %d transfers cut, %d refused since upstream failed",
		t.imports.Load(), t.files.Load(), t.ranges.Load(), t.cut.Load(), t.refused.Load())
}

// A tortureReader imports from a server that may be killed, in part by ranges. What it completes has to be right.
type tortureReader struct {
	x      *torture
	base   string // of the server
	agent  string
	random *rand.Rand
	client *http.Client
	ring   *streams.Keyring
}

// errCut ends an import that is not completed. It is nobody's fault.
var errCut = errors.New("the transfer was cut")

func (x *torture) reader(base string, random *rand.Rand) *tortureReader {
	r := &tortureReader{x: x, base: base, random: rand.New(rand.NewPCG(random.Uint64(), 0)), ring: x.keyring()}
	r.client = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	r.agent = []string{"maas/3.6", "python-simplestreams/0.1", "curl/8.5"}[random.IntN(3)]
	return r
}

// keyring returns what the streams are signed with.
func (x *torture) keyring() *streams.Keyring {
	out := x.plain("key", "export")
	ring, err := streams.ReadKeyring(append([]byte(out.Stdout), x.up.tree.Keyring()...))
	if err != nil {
		x.Fatal(err)
	}
	return ring
}

// run imports until ctx ends.
func (r *tortureReader) run(ctx context.Context) {
	defer r.client.CloseIdleConnections()
	for ctx.Err() == nil {
		stream := []string{"stable", "through", "through"}[r.random.IntN(3)]
		switch err := r.read(ctx, stream); {
		case err == nil:
			r.x.imports.imports.Add(1)
		case errors.Is(err, errCut):
			r.x.imports.cut.Add(1)
			_ = pause(ctx, 10*time.Millisecond)
		default:
			r.x.Errorf("a reader of %s: %v", stream, err)
			return
		}
	}
}

// read imports some files of a stream.
func (r *tortureReader) read(ctx context.Context, stream string) error {
	items, err := r.items(ctx, stream)
	if err != nil {
		return err
	}
	for range 4 {
		it := items[r.random.IntN(len(items))]
		if err := r.file(ctx, stream, it); err != nil {
			return err
		}
	}
	return nil
}

// items reads the metadata of a stream and returns what it names.
func (r *tortureReader) items(ctx context.Context, stream string) (items []*streams.Item, err error) {
	const index = "streams/v1/index.sjson"
	text, err := r.document(ctx, stream, index)
	if err != nil {
		return nil, err
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		return nil, err
	}
	for _, e := range x.Entries {
		doc, err := r.document(ctx, stream, e.Path)
		if errors.Is(err, errAbsent) { // swept, if another index is there by now
			if now, failed := r.document(ctx, stream, index); failed != nil || !bytes.Equal(now, text) {
				return nil, cmp.Or(failed, errCut)
			}
		}
		if err != nil {
			return nil, err
		}
		list, err := streams.ParseProducts(doc)
		if err != nil {
			return nil, err
		}
		for _, it := range list.Items() {
			items = append(items, it)
		}
	}
	return items, nil
}

var errAbsent = errors.New("it is not there")

// document reads a signed document.
func (r *tortureReader) document(ctx context.Context, stream string, path streams.Path) ([]byte, error) {
	status, data, err := r.get(ctx, stream, path, "")
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", path, errAbsent)
	case status != http.StatusOK:
		return nil, fmt.Errorf("%s: status %d", path, status)
	}
	signed, err := r.ring.Verify(data, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signed.Text, nil
}

// file reads a file, or a part of it.
func (r *tortureReader) file(ctx context.Context, stream string, it *streams.Item) error {
	ranges, from, to := "", int64(0), it.Size
	if r.random.IntN(3) == 0 {
		from = r.random.Int64N(it.Size)
		to = from + 1 + r.random.Int64N(it.Size-from)
		ranges = fmt.Sprintf("bytes=%d-%d", from, to-1)
	}
	status, data, err := r.get(ctx, stream, it.Path, ranges)
	switch {
	case err != nil:
		return err
	case status >= 500 && stream == "through":
		r.x.imports.refused.Add(1)
		return nil
	case status == http.StatusNotFound:
		return r.absent(ctx, stream, it)
	case ranges == "" && status == http.StatusOK:
		if sum := sha256.Sum256(data); !bytes.Equal(sum[:], it.SHA256) {
			return fmt.Errorf("%s: wrong bytes, all %d of them", it.Path, len(data))
		}
		r.x.imports.files.Add(1)
	case ranges != "" && status == http.StatusPartialContent:
		if want := r.x.up.file(string(it.Path)).Bytes(); !bytes.Equal(data, want[from:to]) {
			return fmt.Errorf("%s: wrong bytes, %d of the range %s", it.Path, len(data), ranges)
		}
		r.x.imports.ranges.Add(1)
	default:
		return fmt.Errorf("%s %s: status %d", it.Path, ranges, status)
	}
	return nil
}

// absent makes sure that a file that is not there is not named any more: its snapshot was swept since the reader read of it.
func (r *tortureReader) absent(ctx context.Context, stream string, it *streams.Item) error {
	items, err := r.items(ctx, stream)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(items, func(now *streams.Item) bool { return now.Path == it.Path }) {
		return errCut
	}
	status, _, err := r.get(ctx, stream, it.Path, "")
	if err == nil && status == http.StatusNotFound {
		err = fmt.Errorf("%s: %w, and named", it.Path, errAbsent)
	}
	return err
}

// get returns what was completed; the error is errCut where nothing was.
func (r *tortureReader) get(ctx context.Context, stream string, path streams.Path, ranges string) (status int, data []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/"+stream+"/"+path.Escaped(), nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("User-Agent", r.agent)
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		if strings.Contains(err.Error(), "Client.Timeout") {
			return 0, nil, fmt.Errorf("%s %s: %w", path, ranges, err)
		}
		return 0, nil, errCut
	}
	defer resp.Body.Close()
	if data, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, errCut
	}
	return resp.StatusCode, data, nil
}
