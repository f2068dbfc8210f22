package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/mirror"
)

func mirrorListCommand() *cli.Command {
	return &cli.Command{Name: "list", Usage: "print the streams and what is wanted of them", Flags: []cli.Flag{jsonFlag()}, Action: mirrorList}
}

func mirrorList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	files, err := openFiles(c)
	if err != nil {
		return err
	}
	defer files.Close()
	all, err := mirror.Streams(files)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, append([]mirror.Stream{}, all...))
	}
	t := newTable(c.App.Writer, "STREAM", "UPSTREAM", "PATH", "SELECT", "MAX")
	for _, s := range all {
		wanted, newest := "everything", "all"
		if len(s.Select) > 0 {
			wanted = strings.Join(s.Select, " or ")
		}
		if s.MaxVersions > 0 {
			newest = strconv.Itoa(s.MaxVersions)
		}
		t.row(s.Name, strings.Join(s.Upstream, " "), strings.Join(append([]string{s.Path}, s.Also...), " "), wanted, newest)
	}
	return t.flush()
}
