package main

import (
	"fmt"
	"os"

	"oxbow/proxy/control"
)

// filesAtOnce bounds the files that are handed to the owner of a store with one work.
const filesAtOnce = control.MaxFiles

// A fileWork reads or writes open files of the command, which travel beside it: the owner of the store may have no right to, or
// see another, /media.
type fileWork interface {
	work
	wants() int      // how many files come with it
	opened() *handed // embedded in the work
}

// handed are the open files of a work, in an order that the work knows.
type handed struct{ files []*os.File }

func (h *handed) opened() *handed { return h }

// handOver gives a work the files that came with it.
func handOver(w fileWork, came []*os.File) error {
	if len(came) != w.wants() {
		return fmt.Errorf("%d files came with the work, not %d", len(came), w.wants())
	}
	w.opened().files = came
	return nil
}
