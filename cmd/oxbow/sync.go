package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func mirrorSyncCommand() *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "make streams what their upstreams have now",
		ArgsUsage: "[STREAM... | URL [FILTER...]]",
		Description: "Without arguments every stream of the store is synced that is not offline. A URL defines a stream as it goes.\n" +
			"FILTER is sstream-mirror's: arch=amd64, 'release~(jammy|noble)', !=, !~. An item has to pass all of\n" +
			"them; none selects everything. The boot loaders that MAAS always asks for come with any selection.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what a sync would publish and fetch, and change nothing"},
			jsonFlag(), detachFlag(),
			&cli.BoolFlag{Name: "allow-older", Usage: "accept metadata older than what was accepted before"},
			&cli.IntFlag{Name: "workers", Usage: "fetch up to `N` files at once", Value: 8},
			&cli.IntFlag{Name: "max", Usage: "with a URL: keep the `N` newest versions of a product; 0 keeps all that upstream lists"},
			&cli.StringFlag{Name: "keyring", Usage: "with a URL: the `FILE` of the public keys that upstream signs with (default: Ubuntu's for cloud images)"},
			&cli.BoolFlag{Name: "allow-unsigned", Usage: "with a URL: accept metadata that nobody signed"},
			&cli.StringFlag{Name: "name", Usage: "with a URL: the stream's `NAME` (default: from the URL)"},
			&cli.StringFlag{Name: "path", Usage: "with a URL: serve the stream under `PREFIX` (default: the URL's path)"},
		},
		Action: mirrorSync,
	}
}

func mirrorSync(c *cli.Context) error {
	if n := c.Int("workers"); n < 1 {
		return usagef(c, "--workers is %d; it is 1 or more", n)
	}
	w := &syncWork{DryRun: c.Bool("dry-run"), JSON: c.Bool("json"), AllowOlder: c.Bool("allow-older"), Workers: c.Int("workers")}
	if strings.Contains(c.Args().First(), "://") {
		s, err := newStream(c)
		if err != nil {
			return err
		}
		w.Stream = &s
		return syncOrPlan(c, w, cache.Create)
	}
	for _, name := range streamFlags {
		if c.IsSet(name) {
			return usagef(c, "--%s describes a new stream: it goes with a URL", name)
		}
	}
	if err := checkNames(c); err != nil {
		return err
	}
	w.Names = c.Args().Slice()
	p, err := placeOf(c)
	if err != nil {
		return err
	}
	return syncOrPlan(c, w, p.opening())
}

// syncOrPlan performs w; a dry run makes no store.
func syncOrPlan(c *cli.Context, w *syncWork, open opening) error {
	if w.DryRun {
		return dryRun(c, w, w.Stream != nil, c.App.Writer)
	}
	return perform(c, w, open)
}

// syncWork is what `mirror sync` asks for.
type syncWork struct {
	Stream     *mirror.Stream // defined as it goes, and synced; nil: the streams of that name
	Names      []string       // none: every stream
	DryRun     bool
	JSON       bool
	AllowOlder bool
	Workers    int
}

func (w *syncWork) do(ctx context.Context, o *owner, out *screen) error {
	if w.Stream != nil {
		return w.doNew(ctx, o.mirror, out)
	}
	names, unreadable := streamNames(o.store.Files(), w.Names)
	if len(names) == 0 {
		return unreadable
	}
	if len(w.Names) == 0 {
		names = leaveOffline(o.mirror, out, names)
	}
	if w.DryRun {
		return errors.Join(w.planAll(ctx, out, names, o.mirror.Plan), unreadable)
	}
	return errors.Join(w.syncAll(ctx, out, names, o.mirror.Sync), unreadable)
}

// leaveOffline returns the streams without those of which the upstream must not be
// asked, and says so.
func leaveOffline(m *mirror.Mirror, out *screen, names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		s, err := m.Stream(name)
		if err != nil || !s.Offline {
			return false
		}
		printLine(out.stderr, "oxbow: %s: left as it is: `offline: true` of the stream says so", name)
		return true
	})
}

func (w *syncWork) options() mirror.SyncOptions {
	return mirror.SyncOptions{AllowOlder: w.AllowOlder, Workers: w.Workers, Wait: true}
}

type syncer func(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.Result, error)

// streamError is what --json prints of a stream that fails, in place of its
// result.
type streamError struct {
	Stream string `json:"stream"`
	Error  string `json:"error"`
}

// syncAll syncs one stream after the other. A stream that fails does not keep
// the others from being synced.
func (w *syncWork) syncAll(ctx context.Context, out *screen, names []string, sync syncer) error {
	o := w.options()
	o.Progress = func(p mirror.Progress) { out.progress(&p) }
	var failed []error
	partial := false
	results := []any{} // of *mirror.Result and streamError
	for _, name := range names {
		res, err := sync(ctx, name, o)
		out.progress(nil)
		if err != nil && ctx.Err() != nil {
			failed = append(failed, &hinted{context.Cause(ctx), "what was done is kept; the same command goes on from there"})
			break
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("cannot sync %s: %w", name, err))
			results = append(results, streamError{name, err.Error()})
			continue
		}
		results = append(results, res)
		partial = partial || len(res.LeftOut) > 0
		for _, warning := range res.Warnings {
			printLine(out.stderr, "oxbow: %s: warning: %s", name, warning)
		}
		printLeftOut(out.stderr, res)
		if !w.JSON {
			printResult(out.stdout, res)
		}
	}
	if w.JSON {
		failed = append(failed, printJSON(out.stdout, results))
	}
	if err := errors.Join(failed...); err != nil || !partial {
		return err
	}
	return errPartial
}

// printLeftOut prints a line for each version that is left out; --json says the
// rest.
func printLeftOut(w io.Writer, r *mirror.Result) {
	seen := map[string]bool{}
	for _, o := range r.LeftOut {
		version := o.Product + " " + o.Version
		if !seen[version] {
			seen[version] = true
			printLine(w, "oxbow: %s: left out: %s: %s", r.Stream, version, short(o.Reason))
		}
	}
}

func printResult(w io.Writer, r *mirror.Result) {
	if r.Held {
		fmt.Fprintf(w, "%s: held by a rollback, snapshot %.12s stays\n", r.Stream, r.Snapshot)
		return
	}
	if !r.Changed {
		fmt.Fprintf(w, "%s: nothing new, snapshot %.12s stays\n", r.Stream, r.Snapshot)
		return
	}
	fmt.Fprintf(w, "%s: published snapshot %.12s: %s, %s, %s%s; fetched %s, %s\n", r.Stream, r.Snapshot,
		counted(r.Products, "product"), counted(r.Versions, "version"), counted(r.Items, "item"), knownText(r.Known), counted(r.Fetched.Files, "file"), iec(r.Fetched.Bytes))
}

// knownText says how many further files clients are told of.
func knownText(n int) string {
	if n == 0 {
		return ""
	}
	return " and " + counted(n, "further file") + " on demand"
}
