package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

func lintCommand() *cli.Command {
	return &cli.Command{
		Name:      "lint",
		Usage:     "say which MAAS versions would take a tree, and why others would not",
		ArgsUsage: "STREAM | DIR | URL",
		Description: "Reads the metadata that a stream publishes, or that is in a directory or at a URL, and applies the\n" +
			"rules of its clients. It proves neither files nor signatures. A directory has a slash in its name: ./tree",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "maas", Usage: "by the rules of `VERSIONS`: legacy (2.9 to 3.7), 3.8 or all (default: the stream's own; else all for a MAAS stream)"},
			jsonFlag(),
		},
		Action: lint,
	}
}

// lintView is what `lint --json` prints.
type lintView struct {
	Kind      mirror.Kind     `json:"kind"`
	Profile   streams.Profile `json:"maas"` // plain: of no MAAS stream
	Indexes   int             `json:"indexes"`
	Lists     int             `json:"lists"`
	RefusedBy []string        `json:"refused_by"` // clients that refuse the whole tree
	Findings  []findingView   `json:"findings"`
}

type findingView struct {
	Clients   string       `json:"clients"` // whose rule
	Fatal     bool         `json:"fatal"`   // they refuse the whole tree because of it
	Index     streams.Path `json:"index"`   // that leads there
	ContentID string       `json:"content_id,omitempty"`
	Product   string       `json:"product,omitempty"`
	Version   string       `json:"version,omitempty"`
	Item      string       `json:"item,omitempty"`
	Problem   string       `json:"problem"`
}

// clientsOf names those whose rules a profile holds.
var clientsOf = map[streams.Profile]string{
	streams.Legacy: "MAAS 2.9 to 3.7",
	streams.V38:    "MAAS 3.8",
	streams.Plain:  "every client",
}

func lint(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef(c, "want one stream, directory or URL")
	}
	profile := streams.Profile("")
	if c.IsSet("maas") {
		var err error
		if profile, err = streams.ParseProfile(c.String("maas")); err != nil || profile == streams.Plain {
			return usagef(c, "--maas is %q; it is legacy, 3.8 or all", c.String("maas"))
		}
	}
	read, usual, done, err := lintInput(c)
	if err != nil {
		return err
	}
	defer done()
	if profile == "" {
		profile = usual
	}
	v, err := mirror.Lint(c.Context, read, profile)
	if err != nil {
		return fmt.Errorf("cannot judge %s: %w", c.Args().First(), err)
	}
	return printVerdict(c, v)
}

// lintInput returns what the argument names, and the profile that goes with it, if one
// does.
func lintInput(c *cli.Context) (read mirror.Documents, usual streams.Profile, done func(), err error) {
	arg := c.Args().First()
	switch {
	case strings.Contains(arg, "://"):
		s, err := mirror.NewStream(arg)
		if err != nil {
			return nil, "", nil, &usageError{err.Error(), c.Command.HelpName}
		}
		client := upstream.NewClient(&upstream.Options{UserAgent: "oxbow/" + programVersion()})
		return mirror.UpstreamDocuments(client, s.Upstream[0]), "", client.Close, nil
	case strings.ContainsRune(arg, os.PathSeparator) || arg == "." || arg == "..":
		root, err := os.OpenRoot(arg)
		if err != nil {
			return nil, "", nil, err
		}
		return documentsBelow(root), "", func() { root.Close() }, nil
	}
	return lintStream(c, arg)
}

func lintStream(c *cli.Context, name string) (read mirror.Documents, usual streams.Profile, done func(), err error) {
	if err := checkNames(c); err != nil {
		return nil, "", nil, err
	}
	files, err := openFiles(c)
	if err != nil {
		return nil, "", nil, directoryMeant(name, err)
	}
	read, usual, err = publishedBy(files, name)
	if err != nil {
		files.Close()
		return nil, "", nil, directoryMeant(name, err)
	}
	return read, usual, func() { files.Close() }, nil
}

// directoryMeant adds to the error about a stream that there is a directory of that name.
func directoryMeant(name string, err error) error {
	if info, failed := os.Stat(name); failed == nil && info.IsDir() {
		return &hinted{err, "the directory is ./" + name}
	}
	return err
}

func publishedBy(files *cache.Files, name string) (mirror.Documents, streams.Profile, error) {
	s, err := mirror.ReadStream(files, name)
	if err != nil {
		return nil, "", err
	}
	read, err := mirror.PublishedDocuments(files, name)
	if errors.Is(err, cache.ErrNoSnapshot) {
		err = nothingYet(name)
	}
	return read, s.Profile, err
}

// documentsBelow reads the tree in a directory. What is no file is not opened: a pipe waits for who writes to it.
func documentsBelow(root *os.Root) mirror.Documents {
	return func(_ context.Context, p streams.Path) ([]byte, error) {
		if info, err := root.Stat(string(p)); err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("cannot read %s: it is not a file", p)
		}
		f, err := root.Open(string(p))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAll(f, f.Name(), streams.MaxDocument)
	}
}

// printVerdict prints what was found. A tree that a client refuses is an error.
func printVerdict(c *cli.Context, v *mirror.Verdict) error {
	refusing := []string{}
	for _, p := range v.RefusedBy() {
		refusing = append(refusing, clientsOf[p])
	}
	if err := printFindings(c, v, refusing); err != nil || len(refusing) == 0 {
		return err
	}
	return fmt.Errorf("%w: refused by %s", mirror.ErrVerification, strings.Join(refusing, " and "))
}

func printFindings(c *cli.Context, v *mirror.Verdict, refusing []string) error {
	view := lintView{v.Kind, v.Profile, v.Indexes, v.Lists, refusing, []findingView{}}
	fatal := 0
	for _, f := range v.Findings {
		view.Findings = append(view.Findings, findingView{clientsOf[f.Profile], f.Fatal, f.Index, f.ContentID,
			f.Pedigree.Product, f.Pedigree.Version, f.Pedigree.Item, f.Problem})
		if f.Fatal {
			fatal++
		}
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, view)
	}
	for _, f := range v.Findings {
		weight := "note"
		if f.Fatal {
			weight = "refused by " + clientsOf[f.Profile]
		}
		if err := printLine(c.App.Writer, "%s: %s: %v", weight, f.Index, f.Finding); err != nil {
			return err
		}
	}
	return printLine(c.App.Writer, "read %s by the rules of %s: %s to refuse the tree, %s",
		counted(v.Indexes+v.Lists, "document"), rules(v.Profile), counted(fatal, "reason"), counted(len(v.Findings)-fatal, "note"))
}

func rules(p streams.Profile) string {
	switch p {
	case streams.All:
		return clientsOf[streams.Legacy] + " and " + clientsOf[streams.V38]
	case streams.Plain:
		return "the format"
	}
	return clientsOf[p]
}
