package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Options configures a [Client]. The zero value is ready to use.
type Options struct {
	// ConnectTimeout bounds a TCP connect with its name look-up, and then the
	// TLS handshake. If zero, it is 15 s.
	ConnectTimeout time.Duration

	// HeaderTimeout bounds the time from the request sent to the head of the
	// answer. If zero, it is 30 s.
	HeaderTimeout time.Duration

	// StallTimeout bounds the time in which not one byte of a body arrives.
	// There is no bound on the whole transfer of a file: a large image over a
	// thin line takes hours. If zero, it is 30 s.
	StallTimeout time.Duration

	// DocumentTimeout bounds the whole transfer of a document, which is held up
	// for ever otherwise by an upstream that sends now and then a byte. A
	// document that takes longer is not tried again. What it waits for a limit of
	// ours does not count. If zero, it is 10 minutes.
	DocumentTimeout time.Duration

	// Attempts bounds the tries of one document or file that bring nothing
	// new. If zero, it is 5.
	Attempts int

	// Backoff says how long to wait between tries.
	Backoff Backoff

	// Connections bounds the requests under way at once, over everything that
	// the client does; what [Client.Limited] returns, as for each sync, has as
	// many of its own. If zero, it is 8.
	Connections int

	// UserAgent names the client to upstream. If empty, it is "oxbow".
	UserAgent string

	// Transport is the one to copy proxy, dialer and TLS settings from. If
	// nil, the proxy is that of the environment (HTTP_PROXY, HTTPS_PROXY,
	// NO_PROXY) and the rest is net/http's.
	Transport *http.Transport

	// Log is told of every try that failed and is made again. If nil, nothing is logged.
	Log *slog.Logger
}

// A Client fetches from upstreams over HTTP. Its methods may be called from
// several goroutines; they share its connections.
type Client struct {
	opts      Options
	transport *http.Transport
	gate      gate
	limit     *rate.Limiter // of the bytes from upstream; nil: none
	buffers   sync.Pool     // *[]byte of bufferSize
}

// bufferSize is the size of the reads from a connection and of the writes to
// disk: large enough that the cost of a system call does not show beside that
// of hashing, and with one per connection small beside a process.
const bufferSize = 256 << 10

// maxRedirects bounds the redirects of one request.
const maxRedirects = 5

// NewClient returns a Client; o may be nil.
func NewClient(o *Options) *Client {
	opts := o.withDefaults()
	return newClient(opts, newTransport(opts))
}

func newClient(opts Options, t *http.Transport) *Client {
	c := &Client{opts: opts, transport: t}
	c.gate.free = opts.Connections
	c.buffers.New = func() any {
		b := make([]byte, bufferSize)
		return &b
	}
	return c
}

func (o *Options) withDefaults() Options {
	var v Options
	if o != nil {
		v = *o
	}
	v.ConnectTimeout = orElse(v.ConnectTimeout, 15*time.Second)
	v.HeaderTimeout = orElse(v.HeaderTimeout, 30*time.Second)
	v.StallTimeout = orElse(v.StallTimeout, 30*time.Second)
	v.DocumentTimeout = orElse(v.DocumentTimeout, 10*time.Minute)
	v.Attempts = orElse(v.Attempts, 5)
	v.Backoff = v.Backoff.withDefaults()
	v.Connections = orElse(v.Connections, 8)
	v.UserAgent = orElse(v.UserAgent, "oxbow")
	v.Log = orElse(v.Log, slog.New(slog.DiscardHandler))
	return v
}

// orElse returns v, or other where v is the zero value.
func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}

// newTransport returns the transport of a client. It speaks HTTP/1.1 only: HTTP/2
// would put all ranges of a file into one TCP connection, and with that under
// one congestion window and one limit of upstream.
func newTransport(o Options) *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if o.Transport != nil {
		t = o.Transport.Clone()
	}
	dial := t.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
		defer cancel()
		conn, err := dial(ctx, network, addr)
		if err != nil && ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("cannot connect to %s within %v", addr, o.ConnectTimeout)
		}
		return conn, err
	}
	if proxy := t.Proxy; proxy != nil {
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			u, err := proxy(r)
			if err != nil { // its text holds the setting, which may hold a password
				return nil, errProxy
			}
			return u, nil
		}
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.TLSHandshakeTimeout = o.ConnectTimeout
	t.ResponseHeaderTimeout = o.HeaderTimeout
	t.MaxIdleConns = 0
	t.MaxIdleConnsPerHost = o.Connections
	t.IdleConnTimeout = 90 * time.Second
	t.DisableCompression = true // sums are of the bytes as stored
	t.ReadBufferSize = 64 << 10 // a small file comes in one read
	return t
}

// Close gives up the idle connections. The client may still be used.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// parseURL returns the URL of a source.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The error and s may hold a password.
		return nil, &FetchError{URL: "(malformed URL)", Err: errMalformedURL}
	}
	if !isHTTP(u) {
		return nil, &FetchError{URL: Display(u), Err: errMalformedURL}
	}
	return u, nil
}

func isHTTP(u *url.URL) bool { return (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" }

// Display returns u for people: without user, password, query and fragment,
// which may hold secrets.
func Display(u *url.URL) string {
	shown := *u
	shown.User, shown.RawQuery, shown.ForceQuery, shown.Fragment, shown.RawFragment = nil, "", false, "", ""
	return shown.String()
}

// An answer is a response under way. Its body must be closed.
type answer struct {
	*http.Response
	url  *url.URL // where it came from, after redirects
	body *body
}

// get requests u once and follows redirects. The caller is in the gate. Any
// status may be the answer's; errors are those of the network, and the
// refusals of a redirect.
func (c *Client) get(ctx context.Context, u *url.URL, header http.Header) (*answer, error) {
	for range maxRedirects + 1 {
		a, err := c.roundTrip(ctx, u, header)
		if err != nil {
			return nil, err
		}
		next := a.Header.Get("Location")
		if !isRedirect(a.StatusCode) || next == "" {
			return a, nil
		}
		a.body.drain()
		if u, err = redirected(u, next); err != nil {
			return nil, err
		}
	}
	return nil, errRedirects
}

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected returns where an answer from u with this Location leads.
func redirected(u *url.URL, location string) (*url.URL, error) {
	next, err := u.Parse(location)
	if err != nil || !isHTTP(next) {
		return nil, errRedirectURL
	}
	if u.Scheme == "https" && next.Scheme == "http" {
		return nil, errDowngrade
	}
	return next, nil
}

// roundTrip sends one request. No Referer goes along: it could carry a secret
// query to another host.
func (c *Client) roundTrip(ctx context.Context, u *url.URL, header http.Header) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header.Clone()}).WithContext(ctx)
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		cancel(nil)
		return nil, closed(err)
	}
	return &answer{Response: resp, url: u, body: newBody(ctx, cancel, resp.Body, c.opts.StallTimeout, c.limit)}, nil
}

// A refusal is something of upstream that we do not take, and that would come
// the same again.
type refusal string

func (r refusal) Error() string { return string(r) }

const (
	errProxy        refusal = "the environment names a proxy with a malformed URL; see HTTP_PROXY and HTTPS_PROXY"
	errMalformedURL refusal = "not the URL of an HTTP or HTTPS server"
	errRedirects    refusal = "more than 5 redirects"
	errRedirectURL  refusal = "redirected to something that is no HTTP or HTTPS URL"
	errDowngrade    refusal = "redirected from https to http"
)
