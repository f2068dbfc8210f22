package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/typo"
	"oxbow/mirror"
)

// checkNames refuses arguments that cannot be streams' names.
func checkNames(c *cli.Context) error {
	for _, arg := range c.Args().Slice() {
		if err := checkName(c, arg); err != nil {
			return err
		}
	}
	return nil
}

func checkName(c *cli.Context, arg string) error {
	switch {
	case strings.Contains(arg, "://"):
		return usagef(c, "%q is not a stream's name; a URL stands first, with filters behind it, in `mirror sync`", arg)
	case strings.ContainsAny(arg, "=~"):
		return usagef(c, "filter %s: filters go with a URL", arg)
	case strings.Contains(arg, "/"):
		return usagef(c, "%q is neither a stream's name nor a URL; did you mean https://%s?", arg, strings.TrimLeft(arg, "/"))
	case !mirror.ValidName(arg):
		return usagef(c, "%q is neither a stream's name nor a URL: %s", arg, mirror.NameRule)
	}
	return nil
}

// streamNames returns the wanted streams, or all of them where none is named, and
// an error about those that cannot be read. It returns none where a wanted one is
// not there.
func streamNames(f *cache.Files, wanted []string) ([]string, error) {
	all, unreadable := mirror.Streams(f)
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	if len(wanted) == 0 {
		if len(all) == 0 && unreadable == nil {
			return nil, &hinted{errors.New("the store has no stream"), "`oxbow mirror sync URL` defines one, and `oxbow bundle import` brings one"}
		}
		return names, unreadable
	}
	unknown := []error{unreadable}
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			unknown = append(unknown, &mirror.NoStreamError{Name: name})
		}
	}
	if len(unknown) > 1 {
		return nil, whichStreams(f, errors.Join(unknown...))
	}
	return wanted, nil
}

// whichStreams gives an error about a name that no stream has a hint: those that there are, and the one that was meant.
func whichStreams(f *cache.Files, err error) error {
	e, ok := errors.AsType[*mirror.NoStreamError](err)
	if _, said := errors.AsType[*hinted](err); !ok || said {
		return err
	}
	if names, failed := f.Streams(); failed == nil && len(names) > 0 {
		return &hinted{err, streamsHint(names, e.Name)}
	}
	return err
}

// maxStreams bounds the streams that a hint names.
const maxStreams = 10

func streamsHint(names []string, word string) string {
	meant := ""
	if near := typo.Nearest(word, names); near != "" {
		meant = fmt.Sprintf("did you mean %s? ", near)
	}
	if len(names) > maxStreams {
		return meant + "`oxbow mirror list` prints those that there are"
	}
	return meant + "`oxbow mirror list` prints those that there are: " + strings.Join(names, ", ")
}
