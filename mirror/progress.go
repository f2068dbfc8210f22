package mirror

import (
	"sync"
	"time"
)

// A Phase is what a sync is doing.
type Phase string

const (
	PhaseWaiting    Phase = "waiting for a sync that is under way"
	PhaseReading    Phase = "reading metadata"
	PhaseFetching   Phase = "fetching"
	PhaseTaking     Phase = "taking in" // files of a tree
	PhasePublishing Phase = "publishing"
)

// Progress says how far a sync has come. Files and Bytes are what this sync
// has to fetch in all.
type Progress struct {
	Stream    string `json:"stream"`
	Phase     Phase  `json:"phase"`
	Files     int    `json:"files"`
	FilesDone int    `json:"files_done"`
	Bytes     int64  `json:"bytes"`
	BytesDone int64  `json:"bytes_done"`
}

// A tracker turns events of a sync into progress reports.
type tracker struct {
	report func(Progress)

	mu   sync.Mutex // guards the rest; held while report runs
	p    Progress
	last time.Time
}

const reportEvery = 200 * time.Millisecond

func (t *tracker) phase(p Phase) {
	t.change(true, func() { t.p.Phase = p })
}

func (t *tracker) begin(a Amount) {
	t.change(true, func() {
		t.p = Progress{Stream: t.p.Stream, Phase: PhaseFetching, Files: a.Files, Bytes: a.Bytes}
	})
}

// bytes counts n more bytes; a file begun anew counts back by a negative n.
func (t *tracker) bytes(n int64) { t.change(false, func() { t.p.BytesDone += n }) }

func (t *tracker) fileDone() { t.change(false, func() { t.p.FilesDone++ }) }

func (t *tracker) change(now bool, f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	if t.report == nil || !now && time.Since(t.last) < reportEvery {
		return
	}
	t.last = time.Now()
	t.report(t.p)
}
