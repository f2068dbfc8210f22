package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
)

// Options configures a [Server]. Store and Streams are needed, the rest may be zero.
type Options struct {
	// Store is what is served. It has to stay open until Serve has returned.
	Store *cache.Store

	// Streams returns the streams to serve. It is called for every request, from
	// several goroutines at once, and what it returned is not changed afterwards.
	Streams func() []Stream

	// Keyring returns the public keys that sign what is served, as a binary OpenPGP
	// keyring. If it is nil or returns nothing, there is none.
	Keyring func() []byte

	// Custody makes the custody volumes of snapshots, which are served at /-/custody/ and offered with their indexes. If nil, there are
	// none.
	Custody *mirror.Custodian

	// Pull brings files that the metadata names and that are not here. If nil, they are
	// answered with 404.
	Pull Puller

	// Refresh brings the metadata of a stream up to date, where it is one whose metadata
	// is passed on as upstream has it; for the others, and more than once a minute, it
	// fails. If nil, it is not tried.
	Refresh func(ctx context.Context, stream string) error

	// Damaged, if not nil, is told of a published file that could not be sent, which is set aside then. Files are fetched again by
	// Pull; documents are the caller's to see to.
	Damaged func(stream string, e cache.Entry)

	// Allowed returns what clients of the forward proxy may reach beside the streams'
	// upstreams. It is called as Streams is. If nil, there is nothing.
	Allowed func() []Allowed

	// Certificate is what the server shows of itself. If nil, it speaks plain HTTP,
	// otherwise nothing but TLS.
	Certificate *Certificate

	// Tokens has clients show a token for everything but the probes /-/healthz and
	// /-/readyz. If nil, all is served to everyone.
	Tokens *Tokens

	// Metrics counts what happens, and is served at /-/metrics. If nil, nothing is
	// counted and nothing served. It belongs to one server.
	Metrics *Metrics

	// Syncs says how the syncs of a stream stand, for metrics and readiness. It is
	// called often and should not take long. If nil, nothing is known of them.
	Syncs func(stream string) mirror.Standing

	// Notes returns what else an operator should know, a sentence each, for
	// readiness. If nil, there is nothing.
	Notes func() []string

	// Unfinished returns the bundles of which volumes are still to be imported, for metrics. It is called often and should not
	// take long. If nil, there are none.
	Unfinished func() []*mirror.UnfinishedBundle

	// Log takes a line a request and what goes wrong. If nil, nothing is logged.
	Log *slog.Logger

	// Header is how long a client may take to send the head of a request. If zero,
	// 10 seconds.
	Header time.Duration

	// Idle is how long a connection is kept between requests. If zero, 2 minutes.
	Idle time.Duration

	// Stall is how long a client may take to accept the next MiB of a response. If
	// zero, 2 minutes.
	Stall time.Duration

	// Drain is how long running downloads go on once the server is told to end. If
	// zero, 30 seconds; if negative, they are cut at once.
	Drain time.Duration

	// Connections bounds the connections of clients at once, over all listeners, idle
	// ones, lingering ones and tunnels included. Further ones wait in the backlog of the
	// kernel. If zero, 4096.
	Connections int
}

// maxHeader bounds the head of a request, in bytes. Package net/http adds 4 KiB.
const maxHeader = 32 << 10

// A Server serves the streams of a store. It is an [http.Handler].
type Server struct {
	store       *cache.Store
	streams     func() []Stream
	damaged     func(stream string, e cache.Entry)
	keyring     func() []byte
	custody     *mirror.Custodian // nil: none
	fills       *fills
	refreshing  func(ctx context.Context, stream string) error
	allowed     func() []Allowed
	dialer      *dialer // of the forward proxy
	certificate *Certificate
	tokens      *Tokens
	metrics     *Metrics
	syncs       func(stream string) mirror.Standing
	more        func() []string // notes
	unfinished  func() []*mirror.UnfinishedBundle
	log         *slog.Logger
	header      time.Duration
	idle        time.Duration
	stall       time.Duration
	drain       time.Duration
	slots       chan struct{} // one is taken by each connection
	serving     atomic.Int32  // faces
	draining    atomic.Bool   // told to end; readiness says so
	hard        chan struct{} // closed by Cut
	cut         func()
}

// New returns a server as o describes it.
func New(o *Options) *Server {
	s := &Server{
		store:       o.Store,
		streams:     o.Streams,
		damaged:     o.Damaged,
		keyring:     o.Keyring,
		custody:     o.Custody,
		allowed:     o.Allowed,
		dialer:      newDialer(),
		certificate: o.Certificate,
		tokens:      o.Tokens,
		metrics:     o.Metrics,
		syncs:       o.Syncs,
		unfinished:  o.Unfinished,
		more:        o.Notes,
		log:         orDiscard(o.Log),
		header:      orDefault(o.Header, 10*time.Second),
		idle:        orDefault(o.Idle, 2*time.Minute),
		stall:       orDefault(o.Stall, 2*time.Minute),
		drain:       orDefault(o.Drain, 30*time.Second),
		slots:       make(chan struct{}, cmp.Or(o.Connections, 4096)),
		hard:        make(chan struct{}),
	}
	s.cut = sync.OnceFunc(func() { close(s.hard) })
	if s.keyring == nil {
		s.keyring = func() []byte { return nil }
	}
	if s.allowed == nil {
		s.allowed = func() []Allowed { return nil }
	}
	if s.syncs == nil {
		s.syncs = func(string) mirror.Standing { return mirror.Standing{} }
	}
	if s.more == nil {
		s.more = func() []string { return nil }
	}
	if s.unfinished == nil {
		s.unfinished = func() []*mirror.UnfinishedBundle { return nil }
	}
	s.refreshing = o.Refresh
	s.fills = newFills(s, o.Pull)
	s.metrics.watch(s)
	return s
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// Serve answers requests on ln until ctx ends, and then drains: it closes ln and the
// idle connections, lets running requests go on for the drain limit or until [Server.Cut],
// and cuts what is left. It returns nil after a drain, else why connections cannot be
// accepted any more; either way no request is running by then, and ln is closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, &face{Handler: s, certificate: s.certificate})
}

// A face is what the server is on one of its listeners.
type face struct {
	http.Handler
	certificate *Certificate // nil: plain HTTP
	tunnels     atomic.Int64 // of which package net/http knows nothing
}

// serve is Serve for any face. The last one to end ends the fills.
func (s *Server) serve(ctx context.Context, ln net.Listener, f *face) error {
	s.serving.Add(1)
	defer func() {
		if s.serving.Add(-1) == 0 {
			s.fills.close()
		}
	}()
	base, cut := context.WithCancel(context.Background()) // of all requests; its end cuts tunnels
	defer cut()
	accepting := s.listener(ln)
	srv := s.httpServer(f, &accepting.open)
	srv.BaseContext = func(net.Listener) context.Context { return base }
	defer accepting.open.Wait()
	failed := make(chan error, 1)
	go func() {
		if f.certificate != nil {
			failed <- srv.ServeTLS(accepting, "", "")
			return
		}
		failed <- srv.Serve(accepting)
	}()
	select {
	case err := <-failed:
		srv.Close()
		cut()
		return fmt.Errorf("cannot accept connections on %v: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.shutdown(srv, &f.tunnels)
	cut()
	<-failed
	return nil
}

// httpServer returns what speaks HTTP for f. It counts in running the connections on which
// requests may run, but for tunnels.
func (s *Server) httpServer(f *face, running *sync.WaitGroup) *http.Server {
	srv := &http.Server{
		Handler:                      f,
		Protocols:                    new(http.Protocols),
		ReadHeaderTimeout:            s.header,
		IdleTimeout:                  s.idle,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnContext:                  withConn,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				running.Add(1)
			case http.StateClosed, http.StateHijacked:
				running.Done()
			}
		},
	}
	// The way in which connections end for the sake of MAAS (conn.go), and the stall
	// limit, are those of one request a connection at a time. HTTP/2 has neither, and
	// clients of boot images speak 1.1.
	srv.Protocols.SetHTTP1(true)
	if f.certificate != nil {
		srv.TLSConfig = f.certificate.config()
	}
	return srv
}

// shutdown lets running requests and tunnels go on for the drain limit, and cuts the
// requests that are left.
func (s *Server) shutdown(srv *http.Server, tunnels *atomic.Int64) {
	limit, cancel := context.WithTimeout(context.Background(), s.drain)
	defer cancel()
	go func() {
		select {
		case <-s.hard:
			cancel()
		case <-limit.Done():
		}
	}()
	err := srv.Shutdown(limit)
	if err == nil {
		err = waitForNone(limit, tunnels)
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		s.log.Warn("cutting the running downloads: told not to wait for them")
	default:
		s.log.Warn("cutting the downloads that outlast the drain limit", "limit", s.drain)
	}
	srv.Close()
}

// Cut ends the drain of a server that was told to end, at once: what is still running is
// cut. Called before, it has the drain end as it begins. It may be called several times.
func (s *Server) Cut() { s.cut() }

// ServeHTTP answers one request, counts it and logs it.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.serveWith(s.answer, rw, r)
}

// serveWith is ServeHTTP for any answer.
func (s *Server) serveWith(answer func(*reply, *http.Request), rw http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w := newReply(rw, r, s.stall)
	s.metrics.begin()
	defer func() {
		fault := recover()
		if fault != nil && fault != http.ErrAbortHandler {
			s.logPanic(r, fault)
			fault = http.ErrAbortHandler // net/http would log it once more, unquoted
		}
		took := time.Since(began)
		s.metrics.served(w, r, took)
		s.logRequest(w, r, took)
		if fault != nil {
			panic(fault)
		}
	}()
	answer(w, r)
	if w.Header().Get("Connection") == "close" {
		lingerAfter(r)
	}
}

// skipBody prepares for a request whose body nobody takes. What comes of one is skipped by
// net/http after the answer, for no longer than a head may take.
func (s *Server) skipBody(w *reply, r *http.Request) {
	if r.ContentLength != 0 {
		_ = w.control.SetReadDeadline(time.Now().Add(s.header))
		w.Header().Set("Connection", "close")
	}
}

// answer finds out what a request is for.
func (s *Server) answer(w *reply, r *http.Request) {
	s.skipBody(w, r)
	if s.tokens != nil && !isProbe(r) && !s.tokens.allow(r.Header.Get("Authorization")) {
		s.unauthorized(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		say(w, http.StatusMethodNotAllowed, "", "only GET and HEAD are served here")
		return
	}
	path, ok := requestPath(r.URL)
	if !ok {
		s.unknown(w, r, path)
		return
	}
	if own, ok := cutPrefix(path, "-"); ok {
		s.serveOwn(w, r, own)
		return
	}
	stream, inner, ok := route(s.streams(), path)
	if !ok {
		s.unknown(w, r, path)
		return
	}
	s.serveStream(w, r, stream, inner)
}

// isProbe reports whether the request asks how the server does, as load balancers and
// supervisors do: they carry no token, and their lines would drown the log.
func isProbe(r *http.Request) bool {
	return r.URL.Host == "" && (r.URL.Path == "/-/healthz" || r.URL.Path == "/-/readyz")
}

// say answers with a short text instead of a file. The detail, a token, goes into
// Cache-Status.
func say(w *reply, status int, detail, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	h.Set("Cache-Control", "no-store")
	if detail != "" {
		h.Set("Cache-Status", "oxbow; detail="+detail)
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // a failure is kept in w, for the log
}
