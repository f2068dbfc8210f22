package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/proxy/control"
)

func exportTreeCommand() *cli.Command {
	return &cli.Command{
		Name: "export-tree", Usage: "write what is published as a plain tree, for another web server to serve", ArgsUsage: "STREAM|ID DIR",
		Description: "The tree is in DIR/ID, and DIR/current leads to it: that is what to serve. Files are hard links to the store's, which are\n" +
			"read-only, or copies where DIR is on another file system. The switch to a new tree is one step, files that left stay\n" +
			"fetchable for a day, and the tree before stays in DIR. Another run writes what is new.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "copy", Usage: "copy files, also where hard links are possible"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be written, and write nothing"},
			jsonFlag(),
		},
		Action: exportTree,
	}
}

// exportTreeView is what `mirror export-tree --json` prints.
type exportTreeView struct {
	DryRun bool   `json:"dry_run"`
	Dir    string `json:"dir"`
	*mirror.ExportedTree
}

func exportTree(c *cli.Context) error {
	if c.NArg() != 2 {
		return usagef(c, "want a stream, or the id of a snapshot, and the directory to write to")
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	snap, err := findSnapshot(files, c.Args().First())
	if err != nil {
		return err
	}
	v := exportTreeView{DryRun: c.Bool("dry-run"), Dir: c.Args().Get(1)}
	root, done, err := treeRoot(v.Dir, v.DryRun)
	if err != nil {
		return fmt.Errorf("cannot export a tree: %w", err)
	}
	defer done()
	release, err := leaseSnapshot(c, files, snap)
	if err != nil {
		return err
	}
	defer release()
	v.ExportedTree, err = mirror.ExportTree(c.Context, files, snap, root, mirror.TreeOptions{DryRun: v.DryRun, Copy: c.Bool("copy")})
	switch {
	case errors.Is(err, mirror.ErrForeign):
		return &hinted{err, "nothing was changed there"}
	case errors.Is(err, cache.ErrMiss), errors.Is(err, cache.ErrNoSnapshot):
		return &hinted{err, "a snapshot that is swept meanwhile cannot be exported: `oxbow snapshot pin` keeps one; and `oxbow store check` tells whether a file is lost"}
	case err != nil && c.Context.Err() != nil:
		return &hinted{context.Cause(c.Context), "what was written is kept; the same command goes on from there"}
	case errors.Is(err, fs.ErrPermission):
		return &hinted{err, "run it as a user who may read the store and write to " + v.Dir}
	case err != nil:
		return err
	case c.Bool("json"):
		return printJSON(c.App.Writer, v)
	}
	return v.print(c.App.Writer)
}

func (v *exportTreeView) print(w io.Writer) error {
	wrote, removed := "wrote", "removed"
	switch {
	case v.DryRun:
		wrote, removed = "would write", "would remove"
	case !v.Switched && v.Linked.Files+v.Copied.Files == 0:
		wrote = "has"
	}
	for _, name := range v.Removed {
		printLine(w, "%s the older tree %s", removed, filepath.Join(v.Dir, name))
	}
	return printLine(w, "%s: %s snapshot %.12s, %s, %s, as %s: %s linked, %s copied, %s; %s, %s, from before stay fetchable; serve %s", v.Stream, wrote, v.Snapshot,
		counted(v.Files.Files, "file"), iec(v.Files.Bytes), filepath.Join(v.Dir, v.Tree), counted(v.Linked.Files, "file"), counted(v.Copied.Files, "file"), iec(v.Copied.Bytes),
		counted(v.Before.Files, "file"), iec(v.Before.Bytes), filepath.Join(v.Dir, "current"))
}

// treeRoot opens the directory of a tree, which is made if its parent is there. A dry run of one that is not there goes by an empty
// one.
func treeRoot(dir string, dryRun bool) (root *os.Root, done func(), err error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() { // a pipe would wait for its other end
		return nil, nil, fmt.Errorf("%s is no directory", dir)
	}
	if errors.Is(err, fs.ErrNotExist) && dryRun {
		temp, err := os.MkdirTemp("", "oxbow-tree-")
		if err != nil {
			return nil, nil, err
		}
		root, err := os.OpenRoot(temp)
		if err != nil {
			return nil, nil, err
		}
		return root, func() { root.Close(); os.Remove(temp) }, nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, err
	}
	if root, err = os.OpenRoot(dir); err != nil {
		return nil, nil, err
	}
	return root, func() { root.Close() }, nil
}

// leaseSnapshot has the owner of the store keep the files of a snapshot until release is called, or this process is gone. The
// current one is kept in any case; and where nobody owns the store, nobody sweeps it but by another command.
func leaseSnapshot(c *cli.Context, files *cache.Files, snap cache.Snapshot) (release func(), err error) {
	now, err := files.Current(snap.Stream)
	if err != nil || now.ID == snap.ID {
		return func() {}, err
	}
	ctx, cancel := context.WithCancel(c.Context)
	asking := *c
	asking.Context = ctx
	leased, ended := newFirstWrite(), make(chan error, 1)
	go func() {
		ended <- ask(&asking, files.Dir(), &leaseWork{snap.Stream, snap.ID}, newConsole(c.App.ErrWriter), leased)
	}()
	release = func() {
		cancel()
		<-ended
	}
	select {
	case <-leased.given:
		return release, nil
	case err := <-ended:
		cancel()
		if errors.Is(err, control.ErrNobody) {
			return func() {}, nil
		}
		return nil, err
	}
}

// A firstWrite tells of the first write to it.
type firstWrite struct {
	once  sync.Once
	given chan struct{}
}

func newFirstWrite() *firstWrite { return &firstWrite{given: make(chan struct{})} }

func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.given) })
	return len(p), nil
}

// A leaseWork keeps the files of a snapshot for as long as the command runs that asked for it.
type leaseWork struct {
	Stream   string
	Snapshot cache.Digest
}

func (w *leaseWork) do(ctx context.Context, o *owner, out *screen) error {
	lease := o.store.Lease()
	defer lease.Release()
	man, err := o.store.Manifest(w.Stream, w.Snapshot)
	if err != nil {
		return err
	}
	for _, e := range man.Entries {
		lease.Add(e.Digest)
	}
	// It is kept still: so nothing was swept before the lease.
	kept, err := o.store.Files().Snapshots(w.Stream)
	if err != nil {
		return err
	}
	for _, s := range kept {
		if s.ID == w.Snapshot {
			printLine(out.stdout, "leased")
			<-ctx.Done()
			return nil
		}
	}
	return fmt.Errorf("%w: %.12s of stream %s is not kept any more", cache.ErrNoSnapshot, w.Snapshot, w.Stream)
}
