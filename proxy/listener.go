package proxy

import (
	"net"
	"sync"
)

// A listener makes its connections able to linger, counts them, and hands on no more than
// the server has slots for. A connection counts until it is closed, whatever becomes of
// it meanwhile: package net/http loses sight of tunnels.
type listener struct {
	net.Listener
	server *Server
	open   sync.WaitGroup // connections, and what runs on them; counted up only while accepting
	closed chan struct{}
	close  func()
}

func (s *Server) listener(ln net.Listener) *listener {
	l := &listener{Listener: ln, server: s, closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// Accept has a connection wait for a free slot, and those behind it in the kernel's
// backlog, where they cost nothing.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.server.slots <- struct{}{}:
	case <-l.closed:
		c.Close()
		return nil, net.ErrClosed
	}
	l.open.Add(1)
	l.server.metrics.connected(1)
	gone := sync.OnceFunc(func() {
		<-l.server.slots
		l.server.metrics.connected(-1)
		l.open.Done()
	})
	if half, ok := c.(halfCloser); ok {
		return &conn{halfCloser: half, gone: gone}, nil
	}
	return &plainConn{c, gone}, nil
}

// Close ends an Accept that waits for a slot, too.
func (l *listener) Close() error {
	l.close()
	return l.Listener.Close()
}
