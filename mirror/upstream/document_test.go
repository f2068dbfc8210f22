package upstream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestDocument(t *testing.T) {
	text := random(1, 100_000)
	o := &origin{files: map[string][]byte{"/d": text}}
	base := o.start(t)
	c := newTestClient(t, quick())
	doc, err := c.Document(t.Context(), base+"/d?v=1", Validators{}, int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	want := Validators{ETag: etagOf(text)}
	if !bytes.Equal(doc.Bytes, text) || doc.URL != base+"/d" || doc.Validators != want || doc.NotModified {
		t.Errorf("got %d bytes, %s, %+v, %v", len(doc.Bytes), doc.URL, doc.Validators, doc.NotModified)
	}
	doc, err = c.Document(t.Context(), base+"/d", want, int64(len(text)))
	if err != nil || doc.Bytes != nil || doc.Validators != want || !doc.NotModified {
		t.Errorf("unchanged: %+v, %v", doc, err)
	}
	o.files["/d"] = []byte("new")
	doc, err = c.Document(t.Context(), base+"/d", want, int64(len(text)))
	if err != nil || string(doc.Bytes) != "new" || doc.NotModified {
		t.Errorf("changed: %+v, %v", doc, err)
	}
	if n := len(o.asked()); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

func TestDocumentFaults(t *testing.T) {
	const text = "0123456789"
	// header answers with a status and pairs of header fields.
	header := func(code int, fields ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(fields); i += 2 {
				w.Header().Set(fields[i], fields[i+1])
			}
			w.WriteHeader(code)
		}
	}
	for _, tt := range []struct {
		name     string
		times    int // how often upstream fails first
		fail     func(http.ResponseWriter, *http.Request)
		want     string // the error after "cannot fetch URL: "; "" if none
		requests int
	}{
		{"404", 99, header(404), "HTTP 404 Not Found", 1},
		{"403", 99, header(403), "HTTP 403 Forbidden", 1},
		{"304 that nobody asked for", 99, header(304), "HTTP 304 Not Modified", 1},
		{"206 that nobody asked for", 99, header(206, "Content-Range", "bytes 0-4/10"), "HTTP 206 Partial Content", 1},
		{"redirect without target", 99, header(302), "HTTP 302 Found", 1},
		{"a status of its own", 99, header(799), "HTTP 799 (5 attempts)", 5},
		{"503 once", 1, header(503), "", 2},
		{"503 with Retry-After", 2, header(503, "Retry-After", "1"), "", 3},
		{"408, 429, 500, 502 in turn", 4, func(w http.ResponseWriter, r *http.Request) {
			n, _ := r.Context().Value(nth{}).(int)
			w.WriteHeader([]int{408, 429, 500, 502}[n-1])
		}, "", 5},
		{"503 for ever", 99, header(503), "HTTP 503 Service Unavailable (5 attempts)", 5},
		{"reset once", 1, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "", 2},
		{"reset for ever", 99, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
			"upstream closed the connection (5 attempts)", 5},
		{"truncated once", 1, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte(text[:5]))
			panic(http.ErrAbortHandler)
		}, "", 2},
		{"too long, declared", 99, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(text + "!")) },
			"the document is longer than the bound of 10 bytes", 1},
		{"too long, not declared", 99, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			w.Write([]byte(strings.Repeat(text, 1000)))
		}, "the document is longer than the bound of 10 bytes", 1},
		{"encoded", 99, header(200, "Content-Encoding", "gzip"), "the answer has a content encoding that was not asked for: gzip", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &origin{files: map[string][]byte{"/d": []byte(text)}}
			o.fault = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
				if n > tt.times {
					return w
				}
				tt.fail(w, r.WithContext(context.WithValue(r.Context(), nth{}, n)))
				return nil
			}
			base := o.start(t)
			doc, err := newTestClient(t, quick()).Document(t.Context(), base+"/d", Validators{}, int64(len(text)))
			if tt.want == "" && (err != nil || string(doc.Bytes) != text) {
				t.Errorf("got %+v, %v", doc, err)
			}
			if tt.want != "" && (err == nil || err.Error() != "cannot fetch "+base+"/d: "+tt.want) {
				t.Errorf("error %v\nwant %s", err, tt.want)
			}
			if err != nil && errors.Is(err, ErrNotFound) != (tt.name == "404") {
				t.Errorf("%v is ErrNotFound: %v", err, errors.Is(err, ErrNotFound))
			}
			if n := len(o.asked()); n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
		})
	}
}

// nth is the key of a request's number.
type nth struct{}

func TestDocumentCancelled(t *testing.T) {
	reason := errors.New("the operator has had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	o := &origin{fault: func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		cancel(reason)
		<-r.Context().Done()
		return nil
	}}
	_, err := newTestClient(t, quick()).Document(ctx, o.start(t)+"/d", Validators{}, 100)
	if _, upstream := errors.AsType[*FetchError](err); !errors.Is(err, reason) || upstream {
		t.Errorf("got %v", err)
	}
}
