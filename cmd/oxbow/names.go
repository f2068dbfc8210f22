package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

// checkNames refuses arguments that cannot be streams' names.
func checkNames(c *cli.Context) error {
	for _, arg := range c.Args().Slice() {
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
	}
	return nil
}

// streamNames returns the streams that the arguments name, or all of them, and
// an error about those that cannot be read. It returns none where an argument is
// the name of no stream.
func streamNames(c *cli.Context, f *cache.Files) ([]string, error) {
	all, unreadable := mirror.Streams(f)
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	if !c.Args().Present() {
		if len(all) == 0 && unreadable == nil {
			return nil, &hinted{errors.New("the store has no stream"), "`oxbow mirror sync URL` defines one"}
		}
		return names, unreadable
	}
	unknown := []error{unreadable}
	for _, arg := range c.Args().Slice() {
		if !slices.Contains(names, arg) {
			unknown = append(unknown, fmt.Errorf("%w: %s", mirror.ErrNoStream, arg))
		}
	}
	if len(unknown) > 1 {
		return nil, errors.Join(unknown...)
	}
	return c.Args().Slice(), nil
}
