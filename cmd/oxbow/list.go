package main

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
	"oxbow/mirror"
	"oxbow/streams"
)

func mirrorListCommand() *cli.Command {
	return &cli.Command{Name: "list", Usage: "print the streams and what is wanted of them", Flags: []cli.Flag{jsonFlag()}, Action: mirrorList}
}

// definitionView is what `mirror list --json` prints of a stream: every key,
// whether it is set or not.
type definitionView struct {
	Name          string             `json:"name"`
	Upstream      []string           `json:"upstream"`
	Index         streams.Path       `json:"index"`   // "": the signed one
	Keyring       []string           `json:"keyring"` // fingerprints; none: Ubuntu's keys
	AllowUnsigned bool               `json:"allow_unsigned"`
	Path          string             `json:"path"`
	Also          []string           `json:"also"`
	Kind          mirror.Kind        `json:"kind"` // "": as upstream's metadata says
	Profile       streams.Profile    `json:"maas"` // "": all
	Select        []string           `json:"select"`
	Hold          []string           `json:"hold"` // without what is held back on the command line
	Advertise     mirror.Advertise   `json:"advertise"`
	Offline       bool               `json:"offline"`
	NoBootloaders bool               `json:"no_bootloaders"`
	MaxVersions   int                `json:"max_versions"` // 0: all
	Keep          site.EffectiveKeep `json:"keep"`
	Limit         int64              `json:"limit"`      // bytes a second; 0: none
	Configured    bool               `json:"configured"` // by the configuration file, not on the command line
	Schedule      string             `json:"schedule"`   // when it is synced by itself, in words
}

func viewDefinition(d definition) definitionView {
	s := d.Stream.Stream
	return definitionView{s.Name, upstreams(s), s.Index, fingerprints(s), s.AllowUnsigned, s.Path, append([]string{}, s.Also...),
		s.Kind, s.Profile, append([]string{}, s.Select...), append([]string{}, s.Hold...), cmp.Or(s.Advertise, mirror.AdvertiseSelected), s.Offline, s.NoBootloaders, s.MaxVersions, site.ViewKeep(s.Keep), s.Limit, d.configured, d.Schedule.String()}
}

// A definition is that of a stream, and where it comes from.
type definition struct {
	site.Stream
	configured bool
}

// definitions returns the streams of the configuration, recorded yet or not, and
// those that only the store has, by name; and an error about those that cannot be
// read.
func definitions(p place) ([]definition, error) {
	var all []definition
	for _, s := range p.site.Streams {
		all = append(all, definition{s, true})
	}
	files, err := cache.OpenFiles(p.dir)
	if errors.Is(err, cache.ErrNoStore) && len(all) > 0 {
		return all, nil // the first sync makes the store
	}
	if err != nil {
		return nil, noStore(p.dir, err)
	}
	defer files.Close()
	stored, unreadable := mirror.Streams(files)
	for _, s := range stored {
		if _, configured := p.site.Stream(s.Name); !configured {
			all = append(all, definition{site.Stream{Stream: s, Schedule: usualSchedule(s)}, false})
		}
	}
	slices.SortFunc(all, func(a, b definition) int { return strings.Compare(a.Name, b.Name) })
	return all, unreadable
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
	p, err := placeOf(c)
	if err != nil {
		return err
	}
	all, unreadable := definitions(p)
	if len(all) == 0 && unreadable != nil {
		return unreadable
	}
	if c.Bool("json") {
		views := []definitionView{}
		for _, d := range all {
			views = append(views, viewDefinition(d))
		}
		return errors.Join(printJSON(c.App.Writer, views), unreadable)
	}
	t := newTable(c.App.Writer, "STREAM", "UPSTREAM", "PATH", "SELECT", "ADVERTISE", "MAX", "SYNC", "DEFINED BY")
	for _, d := range all {
		wanted, newest, by, sync := "everything", "all", "command", d.Schedule.String()
		switch {
		case len(d.Select) > 0:
			wanted = strings.Join(d.Select, " or ")
		case d.Advertise == mirror.AdvertiseAll:
			wanted = "nothing"
		}
		if d.Offline {
			sync = "offline"
		}
		if d.MaxVersions > 0 {
			newest = strconv.Itoa(d.MaxVersions)
		}
		if d.configured {
			by = "configuration"
		}
		t.row(d.Name, cmp.Or(strings.Join(upstreams(d.Stream.Stream), " "), "-"), strings.Join(append([]string{d.Path}, d.Also...), " "), wanted, cmp.Or(d.Advertise, mirror.AdvertiseSelected), newest, sync, by)
	}
	return errors.Join(t.flush(), unreadable)
}
