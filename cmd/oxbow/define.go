package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
)

// streamFlags are the flags that describe a new stream.
var streamFlags = [...]string{"max", "keyring", "allow-unsigned", "name", "path"}

// newStream returns the stream that the URL, the filters and the flags describe.
func newStream(c *cli.Context) (mirror.Stream, error) {
	s, err := mirror.NewStream(c.Args().First())
	if err != nil {
		return s, &usageError{err.Error(), c.Command.HelpName}
	}
	return described(c, s)
}

// described returns s as the filters and the flags describe it.
func described(c *cli.Context, s mirror.Stream) (_ mirror.Stream, err error) {
	if c.IsSet("name") {
		s.Name = c.String("name")
	}
	if c.IsSet("path") {
		s.Path, s.Also = "/"+strings.Trim(c.String("path"), "/")+"/", nil
	}
	keyring, err := keyringFlag(c)
	if err != nil {
		return s, err
	}
	if keyring != nil {
		s.Keyring = keyring
	}
	s.AllowUnsigned = c.Bool("allow-unsigned")
	s.MaxVersions = c.Int("max")
	selection, err := filterArgs(c)
	if err != nil {
		return s, err
	}
	if len(selection) > 0 {
		s.Select = []string{selection.String()}
	}
	if err := s.Validate(); err != nil {
		return s, &usageError{err.Error(), c.Command.HelpName}
	}
	return s, nil
}

// filterArgs reads the arguments behind the first, all of which are filters.
func filterArgs(c *cli.Context) (all streams.Selection, err error) {
	for _, arg := range c.Args().Tail() {
		filters, err := parseFilters(arg)
		if err != nil {
			return nil, &usageError{err.Error(), c.Command.HelpName}
		}
		all = append(all, filters...)
	}
	return all, nil
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

// doNew defines a stream, or defines it anew, and syncs it.
func (w *syncWork) doNew(ctx context.Context, m *mirror.Mirror, out *screen) error {
	s := *w.Stream
	changed := printChanges(out.stderr, m, s)
	if w.DryRun {
		return w.planAll(ctx, out, []string{s.Name}, func(ctx context.Context, _ string, o mirror.SyncOptions) (*mirror.Plan, error) {
			return m.PlanNew(ctx, s, o)
		})
	}
	err := w.syncAll(ctx, out, []string{s.Name}, func(ctx context.Context, _ string, o mirror.SyncOptions) (*mirror.Result, error) {
		return m.SyncNew(ctx, s, o)
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	switch now, lost := m.Stream(s.Name); {
	case errors.Is(lost, mirror.ErrNoStream) && errors.Is(err, upstream.ErrUpstream):
		return &hinted{err, "the stream was not recorded; the same command tries again"}
	case errors.Is(lost, mirror.ErrNoStream):
		return &hinted{err, "the stream was not recorded"}
	case changed && lost == nil && len(changes(now, s)) > 0:
		return &hinted{err, "the stream keeps the definition that it had"}
	}
	return err
}

// printChanges prints what s changes in the definition of a stream that is
// there, a line each, and reports whether there is anything.
func printChanges(w io.Writer, m *mirror.Mirror, s mirror.Stream) bool {
	old, err := m.Stream(s.Name)
	if err != nil { // a new one, or one that SyncNew and PlanNew will complain of
		return false
	}
	all := changes(old, s)
	for _, line := range all {
		printLine(w, "%s: %s", s.Name, line)
	}
	return len(all) > 0
}

// changes describes what differs between two definitions of a stream, as far as
// a command line can change it.
func changes(before, after mirror.Stream) []string {
	var all []string
	for _, part := range []struct {
		name string
		text func(mirror.Stream) string
	}{
		{"selection", selectionText},
		{"advertised", func(s mirror.Stream) string { return string(cmp.Or(s.Advertise, mirror.AdvertiseSelected)) }},
		{"keyring", keyringText},
		{"unsigned metadata", func(s mirror.Stream) string {
			if s.AllowUnsigned {
				return "accepted"
			}
			return "refused"
		}},
		{"path", func(s mirror.Stream) string { return strings.Join(append([]string{s.Path}, s.Also...), " ") }},
		{"index", func(s mirror.Stream) string {
			if s.Index == "" {
				return "the signed one"
			}
			return string(s.Index)
		}},
	} {
		if was, is := part.text(before), part.text(after); was != is {
			all = append(all, fmt.Sprintf("%s was %s; now %s", part.name, was, is))
		}
	}
	return all
}

func selectionText(s mirror.Stream) string {
	text := "everything"
	if s.Advertise == mirror.AdvertiseAll {
		text = "nothing"
	}
	if len(s.Select) > 0 {
		text = `"` + strings.Join(s.Select, `" or "`) + `"`
	}
	if s.MaxVersions == 0 {
		return text + ", all versions"
	}
	return text + ", " + counted(s.MaxVersions, "version")
}

func keyringText(s mirror.Stream) string {
	all := fingerprints(s)
	if len(all) == 0 {
		return "Ubuntu's"
	}
	return strings.Join(all, " ")
}

// fingerprints returns those of the stream's own keyring; none: it uses Ubuntu's.
func fingerprints(s mirror.Stream) []string {
	all := []string{}
	if ring, err := streams.ReadKeyring(s.Keyring); err == nil {
		for _, k := range ring.Keys() {
			all = append(all, k.Fingerprint)
		}
	}
	return all
}
