package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// A Handler does the work of a request, which is strictly the handler's to read,
// and returns its exit status. Its context ends with a [Stop] when the client
// wants that, with ErrGone when the client is gone, and with the cause given to
// [Server.Close].
type Handler func(ctx context.Context, r *Request, s *Session) (status int)

// ErrGone is the cause with which a context ends when the client hangs up.
var ErrGone = errors.New("the process that asked for it is gone")

// Options configures a [Server].
type Options struct {
	// Dir is the directory of the store, whose lock the caller has.
	Dir string

	// Owner is what clients are told; Protocol and PID are filled in.
	Owner Owner

	// Handle does the works.
	Handle Handler

	// Patience is how long a client may take nothing of what its work says, and so
	// hold it up, before it counts as gone. If zero, it is a minute.
	Patience time.Duration

	// Log takes what goes wrong with a connection. If nil, nothing is logged.
	Log *slog.Logger
}

const (
	// maxSessions bounds the connections at once; more are refused.
	maxSessions = 64

	// requestTime is how long a client may take to send its request.
	requestTime = 10 * time.Second

	// patience is the one of [Options]. A client that is stopped (SIGSTOP), or shown
	// page by page, must not keep its stream from being synced by others for days.
	patience = time.Minute

	// writeTime is how long what is left to say may take once a work is told to
	// end.
	writeTime = 5 * time.Second
)

// A Server does works for other processes. It begins in [Listen].
type Server struct {
	opts Options
	uid  int // of the store's user
	ln   *net.UnixListener
	log  *slog.Logger
	all  sync.WaitGroup // connections, and the loop that accepts them

	ctx context.Context // of every work
	end context.CancelCauseFunc

	mu       sync.Mutex // guards the rest
	open     int        // connections
	sessions map[*Session]bool
	idle     chan struct{} // closed when there is no connection any more; nil: nobody waits for that
	closing  bool          // no more work is taken
	closed   bool          // the socket is gone
}

// Listen makes the socket and begins to accept connections. A stale socket is
// taken over.
func Listen(o Options) (*Server, error) {
	uid, err := ownerOf(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for other commands: %w", err)
	}
	ln, err := listen(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: o, uid: uid, ln: ln, log: o.Log, sessions: map[*Session]bool{}}
	s.opts.Owner.Protocol, s.opts.Owner.PID = Protocol, os.Getpid()
	if s.opts.Patience == 0 {
		s.opts.Patience = patience
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	s.all.Go(s.accept)
	return s, nil
}

// Finish returns when no work is under way and no more is taken: works that come
// in while others run are done too. Its error is that of ctx, which ends the wait.
func (s *Server) Finish(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.open == 0 {
			s.closing = true
			s.mu.Unlock()
			return nil
		}
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle := s.idle
		s.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close takes the socket away, ends the works that are under way with cause, and
// returns when they have ended. Once is enough, and more is no error.
func (s *Server) Close(cause error) error {
	s.mu.Lock()
	first := !s.closed
	s.closing, s.closed = true, true
	s.mu.Unlock()
	var err error
	if first {
		err = errors.Join(s.ln.Close(), unlink(s.opts.Dir))
	}
	s.end(cause)
	s.all.Wait()
	return err
}

// Running returns what is done for others now.
func (s *Server) Running() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for session := range s.sessions {
		all = append(all, fmt.Sprintf("%s (pid %d)", session.Command, session.Peer.PID))
	}
	return all
}

func (s *Server) accept() {
	for pause := time.Duration(0); ; {
		conn, err := s.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, which pass
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("cannot accept a command", "reason", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
			continue
		}
		pause = 0
		s.all.Go(func() { s.serve(conn) })
	}
}

// serve does what is asked on one connection.
func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	enc := json.NewEncoder(conn)
	conn.SetDeadline(time.Now().Add(requestTime))
	peer, err := peerOf(conn)
	switch {
	case err != nil:
		s.log.Warn("cannot tell who sends a command", "reason", err)
		return
	case peer.UID != 0 && peer.UID != s.uid:
		s.log.Warn("a command was refused", "uid", peer.UID, "pid", peer.PID)
		enc.Encode(fromServer{Refused: fmt.Sprintf("user %d is neither the store's user (%d) nor root", peer.UID, s.uid)})
		return
	}
	if refusal := s.enter(); refusal != nil {
		enc.Encode(refusal)
		return
	}
	defer s.leave()
	if enc.Encode(fromServer{Owner: &s.opts.Owner}) != nil {
		return
	}
	defer context.AfterFunc(s.ctx, func() { conn.SetReadDeadline(time.Now()) })()
	in := &receiver{conn: conn}
	defer in.close()
	bounded := &io.LimitedReader{R: in, N: maxRequest}
	dec := json.NewDecoder(bounded)
	r := new(Request)
	err = dec.Decode(r)
	if s.ctx.Err() != nil { // whatever was asked for is not begun
		conn.SetWriteDeadline(time.Now().Add(writeTime))
		enc.Encode(fromServer{Ending: true})
		return
	}
	if err != nil {
		if err != io.EOF { // it only asked who is there
			enc.Encode(fromServer{Refused: "the request cannot be read: " + err.Error()})
		}
		return
	}
	if r.Protocol != Protocol {
		enc.Encode(fromServer{Refused: fmt.Sprintf("it is oxbow %s and does not understand oxbow %s: restart it", s.opts.Owner.Version, r.Version)})
		return
	}
	if r.Files = in.received(); len(r.Files) != r.NFiles {
		enc.Encode(fromServer{Refused: fmt.Sprintf("of %d files that come with the request %d arrived: it has too many open", r.NFiles, len(r.Files))})
		return
	}
	conn.SetDeadline(time.Time{})
	bounded.N = maxRequest
	s.run(conn, dec, &Session{Request: *r, Peer: peer, conn: conn, patience: s.opts.Patience, enc: enc})
}

// enter takes a place for a connection, or returns why there is none.
func (s *Server) enter() *fromServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return &fromServer{Ending: true}
	case s.open == maxSessions:
		return &fromServer{Refused: fmt.Sprintf("it is at work on %d commands already; try later", maxSessions)}
	}
	s.open++
	return nil
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// run does the work of a session, and listens to its client meanwhile.
func (s *Server) run(conn *net.UnixConn, dec *json.Decoder, session *Session) {
	s.mu.Lock()
	s.sessions[session] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, session)
		s.mu.Unlock()
	}()
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	session.ctx = ctx
	if session.Detach {
		session.end(0)
	} else {
		listening := make(chan struct{})
		go func() {
			defer close(listening)
			why := heard(dec)
			if s.ctx.Err() != nil { // by which nothing is heard any more
				why = context.Cause(s.ctx)
			}
			cancel(why)
		}()
		defer func() {
			conn.Close()
			<-listening
		}()
	}
	defer context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Now().Add(writeTime)) })()
	session.end(s.opts.Handle(ctx, &session.Request, session))
}

// heard waits for what the client still has to say, and returns why its work is
// to end.
func heard(dec *json.Decoder) error {
	var m fromClient
	if err := dec.Decode(&m); err != nil {
		return ErrGone
	}
	return Stop{m.Stop}
}

// A Session is a work under way, and the way to the one who asked for it. Once
// that one is gone what is said gets lost.
type Session struct {
	Request
	Peer     Peer
	conn     *net.UnixConn
	ctx      context.Context // of the work
	patience time.Duration

	mu    sync.Mutex // guards the rest, and keeps messages whole
	enc   *json.Encoder
	ended bool // its status was sent
}

func (s *Session) send(m fromServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = m.Status != nil
	s.allow()
	if s.enc.Encode(m) != nil {
		s.ended = true
		s.conn.Close() // which ends the context, as a client that is gone does
	}
}

// allow bounds the next write, unless that was done already when the work was told
// to end.
func (s *Session) allow() {
	if s.ctx.Err() != nil {
		return
	}
	s.conn.SetWriteDeadline(time.Now().Add(s.patience))
	if s.ctx.Err() != nil { // at that moment
		s.conn.SetWriteDeadline(time.Now().Add(writeTime))
	}
}

func (s *Session) end(status int) { s.send(fromServer{Status: &status}) }

// Stdout returns the client's standard output.
func (s *Session) Stdout() io.Writer {
	return writerFunc(func(p []byte) { s.send(fromServer{Stdout: p}) })
}

// Stderr returns the client's standard error.
func (s *Session) Stderr() io.Writer {
	return writerFunc(func(p []byte) { s.send(fromServer{Stderr: p}) })
}

// Progress tells the client how far the work has come; v is marshalled as JSON.
func (s *Session) Progress(v any) {
	if data, err := json.Marshal(v); err == nil {
		s.send(fromServer{Progress: data})
	}
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	if len(p) > 0 {
		f(p)
	}
	return len(p), nil
}
