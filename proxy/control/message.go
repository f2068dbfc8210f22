package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Protocol is the version of the protocol. It changes whenever an older peer
// could take a message for something else.
const Protocol = 1

// maxRequest bounds a request in bytes. The largest thing in one is a keyring,
// in base64.
const maxRequest = 16 << 20

// A Role says what the owner of a store is there for.
type Role string

const (
	Serving Role = "serve"   // it stays until it is told to end
	Once    Role = "command" // it ends with its own work, and what it was asked to do meanwhile
)

// An Owner is the process that owns the store, as it introduces itself.
type Owner struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"` // of the program
	Role     Role   `json:"role"`
	Command  string `json:"command"` // its command line, without secrets
	PID      int    `json:"pid"`
}

func (o Owner) String() string { return fmt.Sprintf("%q (pid %d)", o.Command, o.PID) }

// A Request is a work that the owner is asked to do.
type Request struct {
	Protocol int             `json:"protocol"`
	Version  string          `json:"version"` // of the program that asks
	Command  string          `json:"command"` // the words of the command, such as "mirror sync"
	Detach   bool            `json:"detach,omitempty"`
	Work     json.RawMessage `json:"work"`

	// Files are open files of the client's, up to 250, from which the work reads. Those that a server gets are closed when the work
	// has ended.
	Files  []*os.File `json:"-"`
	NFiles int        `json:"files,omitempty"` // set by Do
}

// fromServer is a message to the client; one of its fields is set.
type fromServer struct {
	Owner    *Owner          `json:"owner,omitempty"`
	Refused  string          `json:"refused,omitempty"` // ends the connection
	Ending   bool            `json:"ending,omitempty"`  // the owner takes no more work; ends the connection
	Stdout   []byte          `json:"stdout,omitempty"`
	Stderr   []byte          `json:"stderr,omitempty"`
	Progress json.RawMessage `json:"progress,omitempty"`
	Status   *int            `json:"status,omitempty"` // ends the connection
}

// fromClient is a message to the server behind the request.
type fromClient struct {
	Stop string `json:"stop"` // the reason
}

var (
	// ErrNobody: nobody listens on the socket. Become the owner, or wait for the
	// one who has the lock and does not listen yet, or no more.
	ErrNobody = errors.New("nobody listens on the control socket")

	// ErrLost: the owner ended before it said how the work ended. Look what was
	// done, or ask for the same again.
	ErrLost = errors.New("the process that has the store ended before the command did")
)

// A RefusedError says why the owner does not do the work.
type RefusedError struct {
	Socket string
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused by the process that has the store (%s): %s", e.Socket, e.Reason)
}

// A Stop is the cause with which a context ends when the one who asked for the
// work wants it to end. It is context.Canceled elsewhere.
type Stop struct{ Reason string }

func (s Stop) Error() string { return s.Reason }

// Is makes it what the cancelling of a context is elsewhere.
func (Stop) Is(target error) bool { return target == context.Canceled }
