package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
)

func configCheckCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "prove the configuration file, and the files that it names", ArgsUsage: "[FILE]",
		Flags: []cli.Flag{jsonFlag()}, Action: configCheck,
	}
}

func configShowCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "print the configuration with the defaults filled in",
		Flags: []cli.Flag{jsonFlag()}, Action: configShow,
	}
}

func configInitCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "print a configuration file to begin with",
		Description: "Every key is explained: oxbow config init | sudo tee " + site.DefaultFile, Action: configInit,
	}
}

// loadSite reads the configuration file that --config or the environment names,
// which must be there, or else the one at the usual place, if there is any.
func loadSite(c *cli.Context) (*site.Site, error) {
	if c.IsSet("config") {
		file := c.String("config")
		if file == "" {
			return nil, usagef(c, "the configuration file has no name; give one with --config or OXBOW_CONFIG, or neither")
		}
		return site.Read(file)
	}
	return siteIfThere(site.DefaultFile)
}

// siteIfThere reads a configuration file that need not exist. One that cannot be
// read is no file that is absent.
func siteIfThere(file string) (*site.Site, error) {
	s, err := site.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) { // a dangling link is there
			return &site.Site{}, nil
		}
	}
	return s, err
}

// checked is what `config check --json` prints.
type checked struct {
	File     string          `json:"file"` // "": there is none
	OK       bool            `json:"ok"`
	Streams  int             `json:"streams"`
	Warnings []string        `json:"warnings"`
	Errors   []configProblem `json:"errors"`
}

type configProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // 0: the file as a whole
	Column  int    `json:"column"` // in characters
	Key     string `json:"key"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

func configCheck(c *cli.Context) error {
	load := loadSite
	switch c.NArg() {
	case 0:
	case 1:
		load = func(*cli.Context) (*site.Site, error) { return site.Read(c.Args().First()) }
	default:
		return usagef(c, "unexpected argument %q", c.Args().Get(1))
	}
	s, err := load(c)
	if err == nil {
		s.Warnings = append(s.Warnings, siteIdleHolds(c, s)...)
	}
	if c.Bool("json") {
		return errors.Join(printJSON(c.App.Writer, checkedSite(s, err)), err)
	}
	if err != nil {
		return err
	}
	printWarnings(c, s)
	if s.File == "" {
		return printLine(c.App.Writer, "%s: there is none, and none is needed", site.DefaultFile)
	}
	return printLine(c.App.Writer, "%s: ok, %s", s.File, counted(len(s.Streams), "stream"))
}

// siteIdleHolds warns of holds of the configuration that match nothing, as far as there is a store to look at.
func siteIdleHolds(c *cli.Context, s *site.Site) (warnings []string) {
	dir := storeOf(s)
	if c.IsSet("store") {
		dir = c.String("store")
	}
	files, err := cache.OpenFiles(dir)
	if err != nil {
		return nil // there is none, or it is somebody else's
	}
	defer files.Close()
	for _, stream := range s.Streams {
		for _, warning := range idleHolds(files, stream.Name, stream.Hold) {
			warnings = append(warnings, fmt.Sprintf("stream %s: %s", stream.Name, warning))
		}
	}
	return warnings
}

// checkedSite returns what reading a configuration came to.
func checkedSite(s *site.Site, err error) checked {
	v := checked{Warnings: []string{}, Errors: []configProblem{}}
	if err == nil {
		v.File, v.OK, v.Streams, v.Warnings = s.File, true, len(s.Streams), append(v.Warnings, s.Warnings...)
		return v
	}
	all, several := errors.AsType[site.Errors](err)
	if one, ok := errors.AsType[*site.Error](err); ok && !several {
		all = site.Errors{one}
	}
	for _, e := range all {
		v.File = e.File
		v.Errors = append(v.Errors, configProblem{e.File, e.Line, e.Column, e.Key, e.Problem, e.Remedy})
	}
	return v
}

func printWarnings(c *cli.Context, s *site.Site) {
	for _, w := range s.Warnings {
		printLine(c.App.ErrWriter, "oxbow: warning: %s", w)
	}
}

func configShow(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	s, err := loadSite(c)
	if err != nil {
		return err
	}
	printWarnings(c, s)
	if c.Bool("json") {
		return printJSON(c.App.Writer, s.Effective())
	}
	_, err = c.App.Writer.Write(s.Render())
	return err
}

func configInit(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s", site.Example())
	return err
}
