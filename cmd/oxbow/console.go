package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"oxbow/mirror"
)

// A console is standard error while a sync runs: whole lines, and on a
// terminal a bar below them. Elsewhere progress comes as lines, one at each
// change of phase and otherwise one every few seconds.
type console struct {
	w    io.Writer
	term bool
	now  func() time.Time

	mu   sync.Mutex // guards the rest, and keeps lines whole
	p    mirror.Progress
	last time.Time // of the last line, or the bar's last change
	done int64     // bytes done by then

	bars *mpb.Progress // nil while no bar is shown
	bar  *mpb.Bar

	// caption stands before the bar. The bar's own goroutine reads it, and
	// calls of the bar wait for that goroutine: so it needs no mu.
	caption atomic.Pointer[string]
}

// lineEvery is how often progress is written where there is no terminal: a
// log of an hour's sync stays readable.
const lineEvery = 5 * time.Second

func newConsole(w io.Writer) *console {
	return &console{w: w, term: onTerminal(w), now: time.Now}
}

func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Write prints p, whole lines, above the bar if there is one.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bars != nil {
		return c.bars.Write(p)
	}
	return c.w.Write(p)
}

// show shows how far a sync has come; nil: it has ended.
func (c *console) show(p *mirror.Progress) {
	if p == nil {
		c.end()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := p.Stream != c.p.Stream || p.Phase != c.p.Phase
	c.p = *p
	if c.term {
		c.draw()
		return
	}
	now := c.now()
	if !changed && now.Sub(c.last) < lineEvery {
		return
	}
	fmt.Fprintf(c.w, "%s: %s\n", p.Stream, describe(*p, now.Sub(c.last), p.BytesDone-c.done, changed))
	c.last, c.done = now, p.BytesDone
}

// counting are the phases of which files are counted, and what was done with these.
var counting = map[mirror.Phase]string{mirror.PhaseFetching: "fetched", mirror.PhaseTaking: "took in"}

// describe renders progress as a line. The rate is that of the bytes that came
// since the line before.
func describe(p mirror.Progress, since time.Duration, came int64, begins bool) string {
	done, counts := counting[p.Phase]
	if !counts {
		return string(p.Phase)
	}
	if begins {
		return fmt.Sprintf("%s %s, %s", p.Phase, counted(p.Files, "file"), iec(p.Bytes))
	}
	s := fmt.Sprintf("%s %d of %d files, %s of %s", done, p.FilesDone, p.Files, iec(p.BytesDone), iec(p.Bytes))
	if rate := float64(came) / since.Seconds(); rate > 0 {
		left := time.Duration(float64(p.Bytes-p.BytesDone) / rate * float64(time.Second))
		s += fmt.Sprintf(", %s/s, %v left", iec(int64(rate)), left.Round(time.Second))
	}
	return s
}

// draw updates the bar, and makes it first where there is none. c.mu is held.
func (c *console) draw() {
	caption := fmt.Sprintf("%s: %s ", c.p.Stream, c.p.Phase)
	if counting[c.p.Phase] != "" {
		caption = fmt.Sprintf("%s: %d/%d files ", c.p.Stream, c.p.FilesDone, c.p.Files)
	}
	c.caption.Store(&caption)
	if c.bars == nil {
		c.bars = mpb.New(mpb.WithOutput(c.w), mpb.WithWidth(40))
		c.bar = c.bars.New(0, mpb.BarStyle(),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return *c.caption.Load() })),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f / % .1f "),
				decor.EwmaSpeed(decor.SizeB1024(0), "% .1f ", 30),
				decor.EwmaETA(decor.ET_STYLE_GO, 30),
			))
		c.last = c.now()
	}
	now := c.now()
	c.bar.SetTotal(c.p.Bytes, false)
	c.bar.EwmaSetCurrent(c.p.BytesDone, now.Sub(c.last))
	c.last = now
}

// end takes the bar away; what was written above it stays.
func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bars != nil {
		c.bar.Abort(true)
		c.bars.Wait()
		c.bars, c.bar = nil, nil
	}
}
