package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams"
)

func mirrorSyncCommand() *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "make streams what their upstreams have now",
		ArgsUsage: "[STREAM... | URL [FILTER...]]",
		Description: "Without arguments every stream of the store is synced. A URL defines a stream as it goes.\n" +
			"FILTER is sstream-mirror's: arch=amd64, 'release~(jammy|noble)', !=, !~. An item has to pass all of\n" +
			"them; none selects everything. The boot loaders that MAAS always asks for come with any selection.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "print what a sync would publish and fetch, and change nothing"},
			jsonFlag(),
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

// streamFlags are the flags that describe a new stream.
var streamFlags = [...]string{"max", "keyring", "allow-unsigned", "name", "path"}

func mirrorSync(c *cli.Context) error {
	if n := c.Int("workers"); n < 1 {
		return usagef(c, "--workers is %d; it is 1 or more", n)
	}
	out := newConsole(c.App.ErrWriter)
	if strings.Contains(c.Args().First(), "://") {
		s, err := newStream(c)
		if err != nil {
			return err
		}
		return syncNew(c, out, s)
	}
	for _, name := range streamFlags {
		if c.IsSet(name) {
			return usagef(c, "--%s describes a new stream: it goes with a URL", name)
		}
	}
	return withMirror(c, out, slog.LevelWarn, cache.Open, func(m *mirror.Mirror, s *cache.Store, _ *slog.Logger) error {
		names, err := streamNames(c, s.Files())
		if err != nil {
			return err
		}
		if c.Bool("dry-run") {
			return planAll(c, names, m.Plan)
		}
		return syncAll(c, m, out, names)
	})
}

// streamNames returns the streams that the arguments name, or all of them.
func streamNames(c *cli.Context, f *cache.Files) ([]string, error) {
	if c.Args().Present() {
		return c.Args().Slice(), nil
	}
	all, err := mirror.Streams(f)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &hinted{errors.New("the store has no stream"), "`oxbow mirror sync URL` defines one"}
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names, nil
}

// maxKeyring bounds the file of a keyring in bytes.
const maxKeyring = 4 << 20

// newStream returns the stream that the URL, the filters and the flags describe.
func newStream(c *cli.Context) (mirror.Stream, error) {
	s, err := mirror.NewStream(c.Args().First())
	if err != nil {
		return s, &usageError{err.Error(), c.Command.HelpName}
	}
	if c.IsSet("name") {
		s.Name = c.String("name")
	}
	if c.IsSet("path") {
		s.Path, s.Also = "/"+strings.Trim(c.String("path"), "/")+"/", nil
	}
	if file := c.String("keyring"); file != "" {
		if s.Keyring, err = readInput(file, maxKeyring); err != nil {
			return s, err
		}
	}
	s.AllowUnsigned = c.Bool("allow-unsigned")
	s.MaxVersions = c.Int("max")
	var selection streams.Selection
	for _, arg := range c.Args().Tail() {
		filters, err := parseFilters(arg)
		if err != nil {
			return s, &usageError{err.Error(), c.Command.HelpName}
		}
		selection = append(selection, filters...)
	}
	if len(selection) > 0 {
		s.Select = []string{selection.String()}
	}
	if err := s.Validate(); err != nil {
		return s, &usageError{err.Error(), c.Command.HelpName}
	}
	return s, nil
}

// parseFilters reads an argument: one filter, whose value may have spaces, or
// several in one word of the shell.
func parseFilters(arg string) (streams.Selection, error) {
	if several, err := streams.ParseSelection(arg); err == nil {
		return several, nil
	}
	f, err := streams.ParseFilter(arg)
	return streams.Selection{f}, err
}

func syncNew(c *cli.Context, out *console, s mirror.Stream) error {
	if c.Bool("dry-run") {
		return planNew(c, out, s)
	}
	return withMirror(c, out, slog.LevelWarn, cache.Create, func(m *mirror.Mirror, _ *cache.Store, _ *slog.Logger) error {
		if err := m.Define(s); err != nil {
			return err
		}
		return syncAll(c, m, out, []string{s.Name})
	})
}

func syncOptions(c *cli.Context) mirror.SyncOptions {
	return mirror.SyncOptions{AllowOlder: c.Bool("allow-older"), Workers: c.Int("workers")}
}

// syncAll syncs one stream after the other. A stream that fails does not keep
// the others from being synced.
func syncAll(c *cli.Context, m *mirror.Mirror, out *console, names []string) error {
	o := syncOptions(c)
	o.Progress = out.progress
	defer out.end()
	var failed []error
	partial := false
	results := []*mirror.Result{}
	for _, name := range names {
		res, err := m.Sync(c.Context, name, o)
		out.end()
		if err != nil && c.Context.Err() != nil {
			return &hinted{context.Cause(c.Context), "what was done is kept; the same command goes on from there"}
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("cannot sync %s: %w", name, err))
			continue
		}
		results = append(results, res)
		partial = partial || len(res.LeftOut) > 0
		for _, w := range res.Warnings {
			fmt.Fprintf(out, "oxbow: %s: warning: %s\n", name, w)
		}
		for _, o := range res.LeftOut {
			fmt.Fprintf(out, "oxbow: %s: left out: %s\n", name, o)
		}
		if !c.Bool("json") {
			printResult(c.App.Writer, res)
		}
	}
	if c.Bool("json") {
		failed = append(failed, printJSON(c.App.Writer, results))
	}
	if err := errors.Join(failed...); err != nil || !partial {
		return err
	}
	return errPartial
}

func printResult(w io.Writer, r *mirror.Result) {
	if !r.Changed {
		fmt.Fprintf(w, "%s: nothing new, snapshot %.12s stays\n", r.Stream, r.Snapshot)
		return
	}
	fmt.Fprintf(w, "%s: published snapshot %.12s: %s, %s, %s; fetched %s, %s\n", r.Stream, r.Snapshot,
		counted(r.Products, "product"), counted(r.Versions, "version"), counted(r.Items, "item"), counted(r.Fetched.Files, "file"), iec(r.Fetched.Bytes))
}
