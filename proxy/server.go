package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"oxbow/cache"
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
}

// maxHeader bounds the head of a request, in bytes. Package net/http adds 4 KiB.
const maxHeader = 32 << 10

// A Server serves the streams of a store. It is an [http.Handler].
type Server struct {
	store    *cache.Store
	streams  func() []Stream
	keyring  func() []byte
	log      *slog.Logger
	header   time.Duration
	idle     time.Duration
	stall    time.Duration
	drain    time.Duration
	draining atomic.Bool // told to end; readiness says so
}

// New returns a server as o describes it.
func New(o *Options) *Server {
	s := &Server{
		store:   o.Store,
		streams: o.Streams,
		keyring: o.Keyring,
		log:     o.Log,
		header:  orDefault(o.Header, 10*time.Second),
		idle:    orDefault(o.Idle, 2*time.Minute),
		stall:   orDefault(o.Stall, 2*time.Minute),
		drain:   orDefault(o.Drain, 30*time.Second),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.keyring == nil {
		s.keyring = func() []byte { return nil }
	}
	return s
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// Serve answers requests on ln until ctx ends, and then drains: it closes ln and the
// idle connections, lets running requests go on for the drain limit, and cuts what is
// left. It returns nil after a drain, else why connections cannot be accepted any more;
// either way no request is running by then, and ln is closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup // open connections; counted up only while accepting
	srv := &http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            s.header,
		IdleTimeout:                  s.idle,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ConnContext:                  withConn,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			}
		},
	}
	defer conns.Wait()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener{ln}) }()
	select {
	case err := <-failed:
		srv.Close()
		return fmt.Errorf("cannot accept connections on %v: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drain)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		s.log.Warn("cutting the downloads that outlast the drain limit", "limit", s.drain)
		srv.Close()
	}
	<-failed
	return nil
}

// ServeHTTP answers one request and logs it.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w := newReply(rw, r, s.stall)
	defer func() { s.logRequest(w, r, time.Since(began)) }()
	if r.ContentLength != 0 {
		// Nothing here takes a body. What comes of one is skipped by net/http
		// after the answer, for no longer than a head may take.
		_ = w.control.SetReadDeadline(began.Add(s.header))
		w.Header().Set("Connection", "close")
	}
	s.answer(w, r)
	if w.Header().Get("Connection") == "close" {
		lingerAfter(r)
	}
}

// answer finds out what a request is for.
func (s *Server) answer(w *reply, r *http.Request) {
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
