package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"

	"oxbow/cache"
)

// A forward is the server as a forward proxy, for clients that keep upstream's URLs and
// have an http_proxy. What they ask of a stream's upstream is answered from the store, as
// upstream signed it; what is allowed beside that is relayed, or tunnelled, by goproxy;
// everything else is refused.
type forward struct {
	s       *Server
	relay   *goproxy.ProxyHttpServer
	name    string        // in Via, no other process's
	tunnels *atomic.Int64 // of the face
}

func newForward(s *Server, tunnels *atomic.Int64) *forward {
	id := make([]byte, 6)
	rand.Read(id)
	f := &forward{s: s, name: "oxbow-" + hex.EncodeToString(id), tunnels: tunnels}
	f.relay = goproxy.NewProxyHttpServer()
	f.relay.Logger = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug) // what it warns of, the request's own line tells
	f.relay.KeepAcceptEncoding = true
	f.relay.Tr = &http.Transport{ // its own would take any certificate, and a proxy of the environment
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := s.dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return stalling{c, s.stall}, nil
		},
		Protocols:              new(http.Protocols),
		TLSHandshakeTimeout:    connectTimeout,
		IdleConnTimeout:        time.Minute,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}
	f.relay.Tr.Protocols.SetHTTP1(true)
	f.relay.OnRequest().DoFunc(f.depart)
	f.relay.OnResponse().DoFunc(f.arrive)
	f.relay.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return &goproxy.ConnectAction{Action: goproxy.ConnectHijack, Hijack: f.carry}, host
	})
	return f
}

// ServeForward is [Server.Serve] for clients that have the server as their http_proxy. It
// speaks plain HTTP to them, and lets tunnels end as it does downloads.
func (s *Server) ServeForward(ctx context.Context, ln net.Listener) error {
	on := &face{}
	f := newForward(s, &on.tunnels)
	on.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveWith(f.answer, w, r) })
	defer f.relay.Tr.CloseIdleConnections()
	return s.serve(ctx, ln, on)
}

// What becomes of a request to the forward proxy, in metrics and log.
const (
	outcomeServed    = "served"    // from the streams
	outcomeRelayed   = "relayed"   // to a host that is allowed
	outcomeTunnelled = "tunnelled" // likewise
	outcomeFailed    = "failed"    // the host did not answer
	outcomeRefused   = "refused"   // not allowed
	outcomeDenied    = "denied"    // no token
	outcomeLoop      = "loop"      // it came from here
)

var outcomes = []string{outcomeServed, outcomeRelayed, outcomeTunnelled, outcomeFailed, outcomeRefused, outcomeDenied, outcomeLoop}

// answer finds out what a request to the forward proxy is for.
func (f *forward) answer(w *reply, r *http.Request) {
	w.host = r.URL.Host
	t, ok := targetOf(r)
	switch {
	case f.s.tokens != nil && !f.s.tokens.allow(r.Header.Get("Proxy-Authorization")):
		w.outcome = outcomeDenied
		w.Header().Set("Proxy-Authenticate", `Basic realm="oxbow"`)
		f.end(w, http.StatusProxyAuthRequired, "a token is needed here: the TOKEN as password in the URL of the proxy")
	case !ok:
		f.refuse(w, "this is no request that a proxy can take, or its host has another form than the usual: want one for a URL of a stream's upstream, or for what serve.forward_proxy.allow lists")
	case strings.Contains(strings.Join(r.Header.Values("Via"), ","), f.name):
		w.outcome = outcomeLoop
		f.end(w, http.StatusLoopDetected, "the request came from here: a proxy on its way leads back to this one")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		w.outcome = outcomeRefused
		f.end(w, http.StatusBadRequest, "no request with a body is taken here")
	case r.Method == http.MethodConnect:
		f.tunnel(w, r, t)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.outcome = outcomeRefused
		w.Header().Set("Allow", "GET, HEAD, CONNECT")
		f.end(w, http.StatusMethodNotAllowed, "only GET and HEAD are taken here, and CONNECT for hosts in serve.forward_proxy.allow")
	default:
		f.fetch(w, r, t)
	}
}

// fetch answers a GET or HEAD: from a stream, or by relaying it.
func (f *forward) fetch(w *reply, r *http.Request, t target) {
	if stream, path, ok := f.stream(t); ok {
		w.outcome = outcomeServed
		f.s.serveStream(w, r, stream, path)
		return
	}
	if !f.allows(t) {
		f.refuse(w, t.String()+" is not for clients of this proxy, or not that path of it: "+t.String()+" in serve.forward_proxy.allow would allow it")
		return
	}
	w.outcome = outcomeRelayed
	// Only Write renews the stall limit at the pace of the far host.
	f.relay.ServeHTTP(struct{ http.ResponseWriter }{w}, r.WithContext(context.WithValue(r.Context(), replyKey{}, w)))
}

type replyKey struct{}

// stream returns the stream whose upstream t is of, as upstream has it, and t's path
// inside. Where several have the same upstream, it is the first that knows the path.
func (f *forward) stream(t target) (found Stream, inner string, ok bool) {
	for _, st := range f.s.streams() {
		st.View = cache.Upstream
		for _, base := range st.Upstream {
			u, err := url.Parse(base)
			if err != nil {
				continue
			}
			u.User = nil // is for oxbow only
			up, valid := targetOfURL(u)
			rest, below := t.below(u.Path)
			if !valid || !below || !t.sameHost(up) {
				continue
			}
			if _, err := f.s.store.Find(st.Name, st.View, rest); err == nil {
				return st, rest, true
			}
			if !ok {
				found, inner, ok = st, rest, true
			}
		}
	}
	return found, inner, ok
}

func (f *forward) allows(t target) bool {
	return slices.ContainsFunc(f.s.allowed(), func(a Allowed) bool { return a.allows(t) })
}

// tunnel answers a CONNECT.
func (f *forward) tunnel(w *reply, r *http.Request, t target) {
	if !f.allows(t) {
		f.refuse(w, "no tunnel leads to "+t.String()+": "+t.String()+" in serve.forward_proxy.allow would allow it, and http:// instead of https:// does without for the streams' upstreams")
		return
	}
	far, err := f.s.dialer.DialContext(r.Context(), "tcp", t.String())
	if err != nil {
		f.fail(w, t.String(), err)
		return
	}
	defer far.Close()
	f.tunnels.Add(1)
	defer f.tunnels.Add(-1)
	w.outcome, w.status = outcomeTunnelled, http.StatusOK
	carried := &tunnel{far: far, idle: tunnelIdle, draining: &f.s.draining, metrics: f.s.metrics}
	f.relay.ServeHTTP(hijackable{w}, r.WithContext(context.WithValue(r.Context(), tunnelKey{}, carried)))
	w.carried, w.err = carried.bytes.Load(), carried.err
}

type tunnelKey struct{}

// carry is what goproxy calls for a tunnel.
func (f *forward) carry(r *http.Request, near net.Conn, _ *goproxy.ProxyCtx) {
	t := r.Context().Value(tunnelKey{}).(*tunnel)
	_ = near.SetWriteDeadline(time.Now().Add(f.s.stall))
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\nVia: 1.1 "+f.name+"\r\n\r\n"); err != nil {
		near.Close()
		return
	}
	_ = near.SetWriteDeadline(time.Time{})
	t.run(r.Context(), near)
}

// depart makes a request ready to be relayed.
func (f *forward) depart(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	dropHops(r.Header)
	r.Header.Add("Via", "1.1 "+f.name)
	r.Close = false // is of the client's connection
	if _, said := r.Header["User-Agent"]; !said {
		r.Header["User-Agent"] = nil // else the transport makes one up
	}
	ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
		resp, err := f.relay.Tr.RoundTrip(r)
		if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
			resp.Body.Close()
			err = errors.New("it changed to another protocol, which nobody asked for")
		}
		if err != nil {
			return nil, err
		}
		resp.Body = relayedBody{resp.Body}
		return resp, nil
	})
	return r, nil
}

// arrive makes an answer ready to be relayed. One that did not come is told of without a
// word of the inside, which goproxy would show.
func (f *forward) arrive(resp *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	if resp == nil {
		w := ctx.Req.Context().Value(replyKey{}).(*reply)
		status, text := f.failure(w, ctx.Req.URL.Host, ctx.Error)
		resp = goproxy.NewResponse(ctx.Req, "text/plain; charset=utf-8", status, text+"\n")
	}
	dropHops(resp.Header)
	resp.Header.Add("Via", "1.1 "+f.name)
	return resp
}

// A relayedBody cuts the client where the answer of the far host ends too early: goproxy
// would end it as if it were whole.
type relayedBody struct{ io.ReadCloser }

func (b relayedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// dropHops drops what is for one connection only (RFC 9110, 7.6.1).
func dropHops(h http.Header) {
	for _, list := range h.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authorization", "Proxy-Authenticate", "Proxy-Authentication-Info"} {
		h.Del(name)
	}
}

// failure says what to answer where a host that is allowed did not.
func (f *forward) failure(w *reply, host string, err error) (status int, text string) {
	w.outcome, w.err = outcomeFailed, err
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errInner):
		w.outcome = outcomeRefused
		return http.StatusForbidden, "the name " + host + " stands for an inner address: that address itself in serve.forward_proxy.allow would allow it"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusGatewayTimeout, host + " does not answer"
	}
	return http.StatusBadGateway, host + " cannot be reached, or its answer cannot be used"
}

func (f *forward) fail(w *reply, host string, err error) {
	status, text := f.failure(w, host, err)
	f.end(w, status, text)
}

func (f *forward) refuse(w *reply, text string) {
	w.outcome = outcomeRefused
	f.end(w, http.StatusForbidden, text)
}

// end answers with a line, and ends the connection: what follows on it may be part of a
// request that was not understood.
func (f *forward) end(w *reply, status int, text string) {
	w.Header().Set("Connection", "close")
	say(w, status, "", text)
}
