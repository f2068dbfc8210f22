package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func importTreeCommand() *cli.Command {
	return &cli.Command{
		Name: "import-tree", Usage: "take over a plain tree, such as sstream-mirror makes, without downloading anything",
		ArgsUsage: "DIR [STREAM | FILTER...]",
		Description: "The metadata in DIR is verified as that of an upstream, and every file by its digest. What DIR lacks of a version leaves\n" +
			"that version out. With STREAM, that stream is brought to what DIR has. Without, DIR becomes a stream, offline unless\n" +
			"--upstream says where its syncs go; give the filters with which DIR was made.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be taken in and published, by names and sizes, and change nothing"},
			jsonFlag(),
			&cli.BoolFlag{Name: "files-only", Usage: "with STREAM: take the files in for its next sync, and publish nothing; DIR may be older than what is published"},
			&cli.BoolFlag{Name: "allow-older", Usage: "with STREAM: accept metadata older than what was accepted before"},
			&cli.StringFlag{Name: "upstream", Usage: "for a new stream: the `URL` of the upstream of its later syncs"},
			&cli.IntFlag{Name: "max", Usage: "for a new stream: keep the `N` newest versions of a product; 0 keeps all that DIR has"},
			&cli.StringFlag{Name: "keyring", Usage: "for a new stream: the `FILE` of the public keys that sign DIR (default: Ubuntu's for cloud images)"},
			&cli.BoolFlag{Name: "allow-unsigned", Usage: "for a new stream: accept metadata that nobody signed"},
			&cli.StringFlag{Name: "name", Usage: "for a new stream: its `NAME` (default: that of DIR, or from the URL)"},
			&cli.StringFlag{Name: "path", Usage: "for a new stream: serve it under `PREFIX` (default: /NAME/, or the URL's path)"},
		},
		Action: importTree,
	}
}

// A treeImport is an `import-tree` under way.
type treeImport struct {
	c    *cli.Context
	root *os.Root
	open opening
	work treeWork // what all steps share
	documents
	files inventory

	view treeView
	bad  map[string]bool // contents that the tree does not have after all, by key

	taken map[string]bool // contents that the owner of the store took, by key
}

// treeView is what `mirror import-tree --json` prints.
type treeView struct {
	Dir        string         `json:"dir"`
	DryRun     bool           `json:"dry_run"`
	Taken      mirror.Amount  `json:"taken"`
	PassedOver []passedOver   `json:"passed_over"`
	Plan       *mirror.Plan   `json:"plan,omitempty"`   // of a dry run
	Result     *mirror.Result `json:"result,omitempty"` // null with --files-only
}

// A passedOver is a file that is not what its name says, or cannot be read.
type passedOver struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

func importTree(c *cli.Context) error {
	t := &treeImport{c: c, bad: map[string]bool{}, taken: map[string]bool{}}
	if err := t.args(); err != nil {
		return err
	}
	info, err := os.Stat(t.work.Dir)
	if err == nil && !info.IsDir() { // a pipe would wait for its other end
		err = fmt.Errorf("%s is no directory", t.work.Dir)
	}
	if err == nil {
		t.root, err = os.OpenRoot(t.work.Dir)
	}
	if err != nil {
		return fmt.Errorf("cannot import a tree: %w", err)
	}
	defer t.root.Close()
	if err := t.documents.open(t.root, t.work.Dir); err != nil {
		return err
	}
	defer t.documents.close()
	if t.files, err = t.takeStock(); err != nil {
		return err
	}
	err = t.run()
	if err != nil && c.Context.Err() != nil {
		return &hinted{err, "what was taken in is kept; the same command goes on from there"}
	}
	return err
}

// args reads the arguments and flags.
func (t *treeImport) args() error {
	c := t.c
	if c.NArg() == 0 {
		return usagef(c, "want the directory of a tree: the one that has streams/v1 in it")
	}
	dir, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	t.view = treeView{Dir: dir, DryRun: c.Bool("dry-run"), PassedOver: []passedOver{}}
	t.work = treeWork{Dir: dir, DryRun: t.view.DryRun, AllowOlder: c.Bool("allow-older"), FilesOnly: c.Bool("files-only")}
	word := c.Args().Get(1)
	if word == "" || strings.ContainsAny(word, "=~") {
		return t.define()
	}
	if c.NArg() > 2 {
		return usagef(c, "unexpected argument %q: want the directory and one stream; filters describe a new one", c.Args().Get(2))
	}
	for _, name := range append(streamFlags[:], "upstream") {
		if c.IsSet(name) {
			return usagef(c, "--%s describes a new stream, and %q stands for one that is there: leave one of them out; --name names a new one", name, word)
		}
	}
	if !mirror.ValidName(word) {
		return usagef(c, "%q is neither a stream's name nor a filter: %s", word, mirror.NameRule)
	}
	p, err := placeOf(c)
	if err != nil {
		return err
	}
	t.work.Name, t.open = word, p.opening()
	return nil
}

// define describes the new stream.
func (t *treeImport) define() error {
	c := t.c
	for _, name := range []string{"files-only", "allow-older"} {
		if c.IsSet(name) {
			return usagef(c, "--%s is for a stream that is there: name it behind the directory", name)
		}
	}
	s := mirror.Stream{Name: strings.ToLower(path.Base(t.work.Dir)), Offline: true}
	if c.IsSet("upstream") {
		var err error
		if s, err = mirror.NewStream(c.String("upstream")); err != nil {
			return &usageError{err.Error(), c.Command.HelpName}
		}
	} else {
		if c.IsSet("name") {
			s.Name = c.String("name")
		}
		s.Path = "/" + s.Name + "/"
	}
	s, err := described(c, s)
	if err != nil {
		return err
	}
	t.work.Stream, t.work.Name, t.open = &s, s.Name, cache.Create
	return nil
}

// run plans, takes in what the plan lacks until the tree has no more of it, and publishes.
func (t *treeImport) run() error {
	var total mirror.Amount
	for round := 0; ; round++ {
		plan, err := t.plan(round == 0)
		if err != nil {
			return err
		}
		if round == 0 {
			total = amountOf(plan.Lacks)
			t.comparePaths(plan.Absent)
		}
		if t.view.DryRun {
			return t.printPlan(plan)
		}
		if len(plan.Lacks) == 0 {
			break
		}
		if err := t.take(plan.Lacks, total); err != nil {
			return err
		}
	}
	if t.work.FilesOnly {
		return t.print(nil)
	}
	w := t.step(stepPublish)
	t.view.Result = &mirror.Result{}
	err := performFor(t.c, w, t.open, t.view.Result)
	if t.view.Result.Stream == "" {
		return err
	}
	return t.print(err)
}

func amountOf(lacks []mirror.Lack) (a mirror.Amount) {
	for _, l := range lacks {
		a.Files++
		a.Bytes += l.Want.Size
	}
	return a
}

// step returns the work of one step that reads the tree's metadata.
func (t *treeImport) step(name string) *treeWork {
	w := t.work
	w.Step, w.Documents, w.files = name, t.documents.paths, t.documents.files
	w.Sizes = t.files.sizes()
	for key := range t.bad {
		w.Bad = append(w.Bad, key)
	}
	return &w
}

// plan asks the owner of the store what it lacks of what the tree may have.
func (t *treeImport) plan(first bool) (plan treePlan, err error) {
	w := t.step(stepPlan)
	w.First = first
	if w.DryRun {
		var printed strings.Builder
		err := dryRun(t.c, w, w.Stream != nil, &printed)
		return plan, readPrinted([]byte(printed.String()), &plan, err)
	}
	return plan, performFor(t.c, w, t.open, &plan)
}

// passOver tells of a file that is no use.
func (t *treeImport) passOver(name string, reason error) {
	if e, ok := errors.AsType[*fs.PathError](reason); ok {
		reason = e.Err // the name is there already
	}
	t.view.PassedOver = append(t.view.PassedOver, passedOver{name, reason.Error()})
	printLine(t.c.App.ErrWriter, "oxbow: passed over: %s: %v", filepath.Join(t.work.Dir, filepath.FromSlash(name)), reason)
}

func (t *treeImport) printPlan(plan treePlan) error {
	t.view.Plan, t.view.Taken = plan.Plan, amountOf(plan.Lacks)
	if t.c.Bool("json") {
		return printJSON(t.c.App.Writer, t.view)
	}
	p := plan.Plan
	for _, s := range p.Warnings {
		printLine(t.c.App.ErrWriter, "oxbow: %s: warning: %s", p.Stream, s)
	}
	printTreeLeftOut(t.c.App.ErrWriter, p.Stream, p.LeftOut)
	if t.work.FilesOnly {
		return printLine(t.c.App.Writer, "%s: would take in %s, %s, of %s", p.Stream, counted(t.view.Taken.Files, "file"), iec(t.view.Taken.Bytes), t.view.Dir)
	}
	return printLine(t.c.App.Writer, "%s: would take in %s, %s, of %s, and publish %s, %s, %s%s", p.Stream, counted(t.view.Taken.Files, "file"), iec(t.view.Taken.Bytes), t.view.Dir,
		counted(p.Products, "product"), counted(p.Versions, "version"), counted(p.Items, "item"), knownText(p.Known))
}

// print prints what came of it; err is how the publication ended.
func (t *treeImport) print(err error) error {
	v := &t.view
	if t.c.Bool("json") {
		return errors.Join(printJSON(t.c.App.Writer, v), err)
	}
	printLine(t.c.App.Writer, "%s: took in %s, %s, of %s", t.work.Name, counted(v.Taken.Files, "file"), iec(v.Taken.Bytes), v.Dir)
	if v.Result != nil {
		printResult(t.c.App.Writer, v.Result)
	}
	return err
}

// printTreeLeftOut prints a line for each version that is left out, but one for all of which the tree has nothing: whoever made it
// did not select them.
func printTreeLeftOut(w io.Writer, stream string, all []mirror.Omission) {
	nothing, some := 0, &mirror.Result{Stream: stream}
	for _, o := range all {
		if o.Reason == mirror.NothingOfIt {
			nothing++
			continue
		}
		some.LeftOut = append(some.LeftOut, o)
	}
	printLeftOut(w, some)
	if nothing > 0 {
		printLine(w, "oxbow: %s: left out: %s of which the tree has nothing; filters, as the tree was made with, select the others", stream, counted(nothing, "version"))
	}
}
