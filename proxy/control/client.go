package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"
)

// greetTime is how long an owner may take to say who it is.
const greetTime = 10 * time.Second

// A Conn is a connection to the owner of a store.
type Conn struct {
	Owner  Owner
	socket string
	conn   *net.UnixConn
	dec    *json.Decoder
}

// Dial connects to the owner of the store in dir. The error is ErrNobody where
// none listens, or where it is about to end, and a [*RefusedError] where it does
// not let us in.
func Dial(dir string) (*Conn, error) {
	conn, err := dial(dir)
	if err != nil {
		return nil, err
	}
	c := &Conn{socket: filepath.Join(dir, SocketName), conn: conn, dec: json.NewDecoder(conn)}
	conn.SetReadDeadline(time.Now().Add(greetTime))
	var m fromServer
	err = c.dec.Decode(&m)
	conn.SetReadDeadline(time.Time{})
	switch {
	case err != nil && isTimeout(err):
		err = fmt.Errorf("the process that has the store does not answer on %s", c.socket)
	case err != nil, m.Ending:
		err = ErrNobody // it ended at that moment
	case m.Refused != "":
		err = &RefusedError{c.socket, m.Refused}
	case m.Owner == nil:
		err = fmt.Errorf("%s is not the socket of an oxbow", c.socket)
	case m.Owner.Protocol != Protocol:
		err = fmt.Errorf("the process that has the store is oxbow %s, which does not understand this one: restart %v", m.Owner.Version, *m.Owner)
	default:
		c.Owner = *m.Owner
		return c, nil
	}
	conn.Close()
	return nil, err
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// Close hangs up, which ends a work that is under way.
func (c *Conn) Close() error { return c.conn.Close() }

// A Screen is where the words of a work go.
type Screen struct {
	Stdout, Stderr io.Writer
	Progress       func(json.RawMessage)
}

// Do has the owner do a work and returns its exit status. When ctx ends the work
// is told to end too, and the status is the one with which it does. The error is
// ErrLost when the owner ends first, ErrNobody when it takes no more work.
func (c *Conn) Do(ctx context.Context, r Request, s Screen) (status int, err error) {
	if len(r.Files) > MaxFiles {
		return 0, fmt.Errorf("cannot hand over %d files at once, more than %d", len(r.Files), MaxFiles)
	}
	r.Protocol, r.NFiles = Protocol, len(r.Files)
	data, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	if err := writeRequest(c.conn, append(data, '\n'), r.Files); err != nil {
		return 0, ErrNobody // it ended before it took the work
	}
	enc := json.NewEncoder(c.conn)
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		_ = enc.Encode(fromClient{Stop: context.Cause(ctx).Error()}) // if it fails the owner is gone
	})
	defer func() {
		if !stop() {
			<-told
		}
	}()
	for {
		var m fromServer
		if err := c.dec.Decode(&m); err != nil {
			return 0, fmt.Errorf("%w: %v", ErrLost, c.Owner)
		}
		switch {
		case m.Ending:
			return 0, ErrNobody
		case m.Stdout != nil:
			_, err = s.Stdout.Write(m.Stdout)
		case m.Stderr != nil:
			_, err = s.Stderr.Write(m.Stderr)
		case m.Progress != nil:
			s.Progress(m.Progress)
		case m.Refused != "":
			return 0, &RefusedError{c.socket, m.Refused}
		case m.Status != nil:
			return *m.Status, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
