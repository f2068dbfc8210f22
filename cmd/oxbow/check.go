package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func storeCheckCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "compare what is on disk with what the snapshots promise",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "deep", Usage: "prove every file by its SHA-256, not by the fingerprint taken when it came"},
			&cli.StringFlag{Name: "sample", Usage: "read `P%` of the files only, other ones each time; all are looked for"},
			&cli.BoolFlag{Name: "repair", Usage: "fetch what is damaged or missing again, and make the index anew if it is wrong"},
			&cli.StringFlag{Name: "from", Usage: "with --repair, look for what upstream does not have in the files below `DIR`, whatever their names, and in volumes of bundles there (*.tar)"},
			jsonFlag(), detachFlag(),
		},
		Action: storeCheck,
	}
}

// checkView is what `store check --json` prints.
type checkView struct {
	Deep      bool            `json:"deep"`
	Sample    float64         `json:"sample,omitempty"` // percent of the blobs that were to be read; all if absent
	Snapshots int             `json:"snapshots"`
	Of        int             `json:"of"`    // blobs that there are
	Blobs     int             `json:"blobs"` // read
	Bytes     int64           `json:"bytes"` // read
	Faults    []cache.Problem `json:"faults"`
	Notes     []cache.Problem `json:"notes"` // no faults
	Repair    *repairView     `json:"repair,omitempty"`
}

type repairView struct {
	Mended  []mirror.Mended `json:"mended"`
	Left    []mirror.Left   `json:"left"`
	Faults  []cache.Problem `json:"faults"` // left, besides blobs
	Reasons []string        `json:"reasons"`
}

// present returns a list that is printed as [] where it is empty, not as null.
func present[T any](list []T) []T { return append([]T{}, list...) }

func digestText(d cache.Digest) string {
	if d.IsZero() {
		return ""
	}
	return d.String()
}

func storeCheck(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	w := &checkWork{Deep: c.Bool("deep"), Repair: c.Bool("repair"), JSON: c.Bool("json")}
	if sample := c.String("sample"); c.IsSet("sample") {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(sample, "%"), 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return usagef(c, "--sample is %q; want a percentage above 0 and up to 100, as in 5%%", sample)
		}
		w.Part = cache.Part{From: rand.Float64(), Share: percent / 100}
	}
	if !c.IsSet("from") {
		return perform(c, w, cache.Open)
	}
	switch {
	case !w.Repair:
		return usagef(c, "--from says where to take files from, which only --repair does")
	case c.Bool("detach"):
		return usagef(c, "--from needs this command to stay: leave --detach out")
	}
	return repairFrom(c, w, c.String("from"))
}

// A checkWork checks, and repairs if that is wanted; or it takes in contents that the command has found.
type checkWork struct {
	Deep, Repair, JSON bool
	Quiet              bool // the command that asked gives the verdict
	Part               cache.Part
	Take               []content `json:",omitempty"` // of the files, in order; if any, there is no check
	Left               int       `json:",omitempty"` // with Take: how many faults there are before

	handed // what is to be taken in
}

func (w *checkWork) wants() int { return len(w.Take) }

func (w *checkWork) do(ctx context.Context, o *owner, out *screen) error {
	if len(w.Take) > 0 {
		return w.take(ctx, o, out)
	}
	r, err := o.store.Check(ctx, cache.CheckOptions{Deep: w.Deep, Part: w.Part})
	if err != nil {
		return err
	}
	v := &checkView{r.Deep, 100 * w.Part.Share, r.Snapshots, r.Of, r.Blobs, r.Bytes, present(r.Problems), present(r.Notes), nil}
	if !w.JSON {
		v.showFound(out.stdout)
	}
	if w.Repair {
		res, err := o.mirror.Repair(ctx, r, mirror.RepairOptions{Mended: func(m mirror.Mended) {
			if !w.JSON {
				printLine(out.stdout, "repaired: %v", m)
			}
		}})
		if err != nil {
			return err
		}
		v.Repair = &repairView{present(res.Mended), present(res.Left), present(res.Faults), present(res.Reasons)}
	}
	o.foundFaults(v.left())
	if w.Quiet {
		return printJSON(out.stdout, v)
	}
	if w.JSON {
		err = printJSON(out.stdout, v)
	} else {
		err = v.showEnd(out.stdout)
	}
	if err != nil {
		return err
	}
	return v.verdict()
}

// showFound prints what the check found.
func (v *checkView) showFound(w io.Writer) {
	for _, p := range v.Faults {
		printLine(w, "fault: %v", p)
	}
	for _, p := range v.Notes {
		printLine(w, "note: %v", p)
	}
}

// showEnd prints what is left, and the sum.
func (v *checkView) showEnd(w io.Writer) error {
	if r := v.Repair; r != nil {
		for _, reason := range r.Reasons {
			printLine(w, "note: %s", reason)
		}
		for _, l := range r.Left {
			printLine(w, "not repaired: %.12s, %s: %s; it hurts", l.Digest, iec(l.Size), l.Reason)
			for _, h := range l.Hurts {
				printLine(w, "  %v", h)
			}
		}
		for _, p := range r.Faults {
			printLine(w, "not repaired: %v", p)
		}
	}
	blobs := counted(v.Blobs, "blob")
	if v.Sample > 0 {
		blobs = fmt.Sprintf("%d of %s", v.Blobs, counted(v.Of, "blob"))
	}
	sum := fmt.Sprintf("checked %s, %s, %s: %s", counted(v.Snapshots, "snapshot"), blobs, iec(v.Bytes), counted(len(v.Faults), "fault"))
	if v.Repair != nil {
		sum += fmt.Sprintf("; repaired %s, left %s", counted(len(v.Repair.Mended), "blob"), counted(v.left(), "fault"))
	}
	_, err := fmt.Fprintln(w, sum)
	return err
}

// left returns how many faults are left.
func (v *checkView) left() int {
	if v.Repair == nil {
		return len(v.Faults)
	}
	return len(v.Repair.Left) + len(v.Repair.Faults)
}

// verdict is the error of a check that printed what it found.
func (v *checkView) verdict() error {
	if v.left() == 0 {
		return nil
	}
	err := fmt.Errorf("the store has %s", counted(v.left(), "fault"))
	if v.Repair != nil && len(v.Repair.Left) > 0 {
		return &hinted{err, "`oxbow store check --repair --from DIR` takes what is left from a copy of the images, or from a disk with the volumes of a bundle that had it"}
	}
	return err
}
