package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/mirror"
	"oxbow/streams"
)

func mirrorListCommand() *cli.Command {
	return &cli.Command{Name: "list", Usage: "print the streams and what is wanted of them", Flags: []cli.Flag{jsonFlag()}, Action: mirrorList}
}

// definitionView is what `mirror list --json` prints of a stream: every key,
// whether it is set or not.
type definitionView struct {
	Name          string          `json:"name"`
	Upstream      []string        `json:"upstream"`
	Index         streams.Path    `json:"index"`   // "": the signed one
	Keyring       []string        `json:"keyring"` // fingerprints; none: Ubuntu's keys
	AllowUnsigned bool            `json:"allow_unsigned"`
	Path          string          `json:"path"`
	Also          []string        `json:"also"`
	Kind          mirror.Kind     `json:"kind"` // "": as upstream's metadata says
	Profile       streams.Profile `json:"maas"` // "": all
	Select        []string        `json:"select"`
	NoBootloaders bool            `json:"no_bootloaders"`
	MaxVersions   int             `json:"max_versions"` // 0: all
	Limit         int64           `json:"limit"`        // bytes a second; 0: none
}

func viewDefinition(s mirror.Stream) definitionView {
	return definitionView{s.Name, upstreams(s), s.Index, fingerprints(s), s.AllowUnsigned, s.Path, append([]string{}, s.Also...),
		s.Kind, s.Profile, append([]string{}, s.Select...), s.NoBootloaders, s.MaxVersions, s.Limit}
}

// upstreams returns the URLs of s without user and password.
func upstreams(s mirror.Stream) []string {
	all := make([]string, len(s.Upstream))
	for i, u := range s.Upstream {
		all[i] = withoutUser(u)
	}
	return all
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
	all, unreadable := mirror.Streams(files)
	if c.Bool("json") {
		views := []definitionView{}
		for _, s := range all {
			views = append(views, viewDefinition(s))
		}
		return errors.Join(printJSON(c.App.Writer, views), unreadable)
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
		t.row(s.Name, strings.Join(upstreams(s), " "), strings.Join(append([]string{s.Path}, s.Also...), " "), wanted, newest)
	}
	return errors.Join(t.flush(), unreadable)
}
