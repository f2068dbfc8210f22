package cache

import (
	"fmt"
	"strings"
)

// A ProblemKind says what is wrong.
type ProblemKind string

const (
	MissingBlob     ProblemKind = "missing"          // a blob that a snapshot names is not there
	WrongSize       ProblemKind = "wrong size"       // a blob is longer or shorter than its snapshot says
	DamagedBlob     ProblemKind = "damaged"          // a blob's content is not what its name says
	MissingManifest ProblemKind = "missing manifest" // a snapshot that is kept is not there
	DamagedManifest ProblemKind = "damaged manifest" // a manifest's text is not what its name says, or cannot be read
	DanglingCurrent ProblemKind = "dangling current" // the current snapshot of a stream is not there
	IndexLacks      ProblemKind = "index lacks"      // the index does not have, or has otherwise, what the files say
	IndexExtra      ProblemKind = "index extra"      // the index has what the files do not say

	// These are no faults.
	Unpublished ProblemKind = "unpublished" // a manifest that never became current; sweep removes it
	PartialFile ProblemKind = "partial"     // an unfinished download, kept to go on with
	ForeignFile ProblemKind = "foreign"     // a file that is not the store's; it is left alone
)

// A Problem is one finding of a check.
type Problem struct {
	Kind     ProblemKind `json:"kind"`
	Digest   Digest      `json:"digest,omitzero"`   // the blob; zero if it is about none
	File     string      `json:"file,omitempty"`    // the file in the store, relative to its directory; "" if it is about none
	Stream   string      `json:"stream,omitempty"`  // the stream that it hurts; "" if none
	Snapshot Digest      `json:"snapshot,omitzero"` // the newest snapshot that it hurts; zero if none
	Path     string      `json:"path,omitempty"`    // the path in that snapshot that cannot be served
	Others   int         `json:"others,omitempty"`  // further entries of kept snapshots that it hurts
	Detail   string      `json:"detail,omitempty"`  // the facts
	Remedy   string      `json:"remedy,omitempty"`  // what to do
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(string(p.Kind))
	if p.File != "" {
		fmt.Fprintf(&b, " %s", p.File)
	}
	if p.Detail != "" {
		fmt.Fprintf(&b, ": %s", p.Detail)
	}
	if p.Stream != "" {
		fmt.Fprintf(&b, "; stream %s", p.Stream)
	}
	if !p.Snapshot.IsZero() {
		fmt.Fprintf(&b, ", snapshot %.12s", p.Snapshot)
	}
	if p.Path != "" {
		fmt.Fprintf(&b, ", path %s", p.Path)
	}
	if p.Others > 0 {
		fmt.Fprintf(&b, " and %d more", p.Others)
	}
	if p.Remedy != "" {
		fmt.Fprintf(&b, "; %s", p.Remedy)
	}
	return b.String()
}

// What to do about problems.
const (
	remedyRepair   = "`oxbow store check --repair` fetches it again, or takes it from a directory"
	remedyManifest = "put the file back from a backup; or give up all snapshots of the stream, but no blob: while no oxbow is running, remove current/STREAM and snapshots/STREAM, then run `oxbow mirror sync`"
	remedyCurrent  = "run `oxbow store rebuild`, which makes the newest whole snapshot current; if there is none, " + remedyManifest
	remedyPublish  = "put the file back from a backup; or run `oxbow store rebuild`, then `oxbow mirror sync`, which publishes anew"
	remedyIndex    = "run `oxbow store rebuild`"
	remedySweep    = "`oxbow store sweep` removes it"
)
