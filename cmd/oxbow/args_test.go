package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestArrange(t *testing.T) {
	tests := []struct {
		summary string
		line    string
		want    string // as arranged, or
		err     string // the problem
	}{
		{summary: "nothing to do", line: "oxbow version", want: "oxbow version --"},
		{summary: "a flag behind the arguments", line: "oxbow mirror sync stable --dry-run", want: "oxbow mirror sync --dry-run -- stable"},
		{summary: "a flag between the arguments", line: "oxbow mirror sync a --dry-run b", want: "oxbow mirror sync --dry-run -- a b"},
		{summary: "a flag before the command", line: "oxbow --store /s mirror sync a", want: "oxbow mirror sync --store=/s -- a"},
		{summary: "a flag between group and command", line: "oxbow mirror --store=/s sync a", want: "oxbow mirror sync --store=/s -- a"},
		{summary: "the value of a flag is the next word", line: "oxbow mirror sync a --max 2 b", want: "oxbow mirror sync --max=2 -- a b"},
		{summary: "a value may look like a short flag", line: "oxbow mirror sync a --max -2", want: "oxbow mirror sync --max=-2 -- a"},
		{summary: "one dash is as good as two", line: "oxbow mirror sync a -max=2 -json", want: "oxbow mirror sync --max=2 --json -- a"},
		{summary: "an empty value", line: "oxbow store stats --store=", want: "oxbow store stats --store= --"},
		{summary: "a value with an equals sign", line: "oxbow store stats --store a=b", want: "oxbow store stats --store=a=b --"},
		{summary: "a boolean with a value", line: "oxbow mirror list --json=false", want: "oxbow mirror list --json=false --"},
		{summary: "a boolean takes no next word", line: "oxbow mirror sync --dry-run stable", want: "oxbow mirror sync --dry-run -- stable"},
		{summary: "filters are arguments", line: "oxbow mirror sync http://h/x arch!=amd64 release~(a|b) --max 1", want: "oxbow mirror sync --max=1 -- http://h/x arch!=amd64 release~(a|b)"},
		{summary: "two dashes end the flags", line: "oxbow mirror sync a -- --dry-run", want: "oxbow mirror sync -- a --dry-run"},
		{summary: "two dashes count once", line: "oxbow mirror sync -- -- x", want: "oxbow mirror sync -- -- x"},
		{summary: "one dash is an argument", line: "oxbow key import - --replace", want: "oxbow key import --replace -- -"},
		{summary: "a stream named like a command", line: "oxbow mirror sync sync help", want: "oxbow mirror sync -- sync help"},
		{summary: "the same flag twice, in order", line: "oxbow mirror sync --max 1 a --max 2", want: "oxbow mirror sync --max=1 --max=2 -- a"},
		{summary: "an unknown flag, in spite of help", line: "oxbow mirror sync stable --nothing-known=1 --help", err: "unknown flag --nothing-known=1"},
		{summary: "help", line: "oxbow mirror sync stable --max 1 --help", want: "oxbow mirror sync --help"},
		{summary: "short help", line: "oxbow -h", want: "oxbow --help"},
		{summary: "help of a group", line: "oxbow mirror --help", want: "oxbow mirror --help"},
		{summary: "help as a command", line: "oxbow help mirror sync", want: "oxbow mirror sync --help"},
		{summary: "version as a flag", line: "oxbow --version", want: "oxbow version --"},

		{summary: "unknown flag", line: "oxbow mirror sync stable --dry-rum", err: "unknown flag --dry-rum; did you mean --dry-run?"},
		{summary: "a flag of another command", line: "oxbow mirror list --dry-run", err: "unknown flag --dry-run"},
		{summary: "a flag of another command, before the command", line: "oxbow --dry-run mirror list", err: "unknown flag --dry-run"},
		{summary: "unknown flag before the command", line: "oxbow --stroe /s mirror list", err: "unknown flag --stroe; did you mean --store?"},
		{summary: "three dashes", line: "oxbow mirror list ---json", err: "unknown flag ---json; did you mean --json?"},
		{summary: "a flag without a name", line: "oxbow mirror list --=x", err: "unknown flag --=x"},
		{summary: "a misspelt short flag", line: "oxbow mirror sync --mux 1", err: "unknown flag --mux"},
		{summary: "no number", line: "oxbow mirror sync http://h/x --max many", err: `--max: "many" is not a number`},
		{summary: "no boolean", line: "oxbow mirror list --json=yes", err: `--json: "yes" is neither true nor false`},
		{summary: "no value at the end", line: "oxbow mirror sync stable --max", err: "flag --max needs a value"},
		{summary: "a flag instead of a value", line: "oxbow mirror sync http://h/x --name --dry-run", err: "flag --name needs a value"},
		{summary: "no command", line: "oxbow", err: "missing command; there is serve, mirror, snapshot, store, bundle, key, config, lint, demo, completion, version"},
		{summary: "half a command", line: "oxbow mirror", err: "missing command; there is sync, list, status, drop, import-tree, export-tree"},
		{summary: "unknown command", line: "oxbow sync", err: "unknown command \"sync\"; did you mean `oxbow mirror sync`?"},
		{summary: "unknown command of a group", line: "oxbow mirror snyc", err: `unknown command "snyc"; there is sync, list, status, drop, import-tree, export-tree`},
	}
	for _, test := range tests {
		t.Run(test.summary, func(t *testing.T) {
			args := strings.Fields(test.line)
			given := slices.Clone(args)
			line, err := arrange(commands(), args)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("%s: error %v, want %s", test.line, err, test.err)
				}
				if exitStatus(err) != exitUsage {
					t.Errorf("%s: status %d, want %d", test.line, exitStatus(err), exitUsage)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", test.line, err)
			}
			if diff := cmp.Diff(strings.Fields(test.want), line); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.line, diff)
			}
			if !slices.Equal(args, given) {
				t.Errorf("%s: the caller's words became %q", test.line, args)
			}
		})
	}
}

// Each flag, put at each place of a line, reaches its command with the same
// value.
func TestFlagsAnywhere(t *testing.T) {
	for _, c := range leaves(commands()) {
		for _, f := range c.Flags {
			name, words := f.Names()[0], []string{"--" + f.Names()[0]}
			if lookupFlag(c.Flags, name).TakesValue() {
				words = append(words, "7")
			}
			line := append(commandPath(commands(), c.Name, name), "first", "second")
			for at := 1; at <= len(line); at++ {
				given := slices.Insert(slices.Clone(line), at, words...)
				checkFlagArrives(t, given, c.Name, name)
			}
		}
	}
}

func checkFlagArrives(t *testing.T, line []string, command, flag string) {
	t.Helper()
	all := commands()
	reached := false
	for _, c := range leaves(all) {
		c.Before = nil // which looks at values
		c.Action = func(c *cli.Context) error {
			reached = true
			if c.Command.Name != command || !c.IsSet(flag) || !slices.Equal(c.Args().Slice(), []string{"first", "second"}) {
				t.Errorf("%q: %s runs with %v set, arguments %q", line, c.Command.Name, c.LocalFlagNames(), c.Args().Slice())
			}
			return nil
		}
	}
	arranged, err := arrange(all, line)
	if err != nil {
		t.Errorf("%q: %v", line, err)
		return
	}
	app := &cli.App{Name: "oxbow", Commands: all, HideHelpCommand: true}
	if err := app.Run(arranged); err != nil || !reached {
		t.Errorf("%q: error %v, command reached: %v", line, err, reached)
	}
}

// commandPath returns the words that name the command with that name and flag.
func commandPath(all []*cli.Command, name, flag string) []string {
	for _, c := range all {
		if c.Name == name && lookupFlag(c.Flags, flag) != nil {
			return []string{"oxbow", name}
		}
		if path := commandPath(c.Subcommands, name, flag); path != nil {
			return slices.Insert(path, 1, c.Name)
		}
	}
	return nil
}

// A word before the command is read by what all commands say about it, so they
// may not differ in whether a flag takes a value.
func TestFlagsMeanTheSameEverywhere(t *testing.T) {
	takes := map[string]bool{}
	for _, c := range leaves(commands()) {
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				value := lookupFlag(c.Flags, name).TakesValue()
				if before, ok := takes[name]; ok && before != value {
					t.Errorf("--%s takes a value in some commands and none in others, such as %s", name, c.Name)
				}
				takes[name] = value
			}
		}
	}
}

// Every command has the shared flags.
func TestSharedFlags(t *testing.T) {
	for _, c := range leaves(commands()) {
		for _, name := range []string{"store", "log-level", "log-format"} {
			if lookupFlag(c.Flags, name) == nil {
				t.Errorf("%s has no --%s", c.Name, name)
			}
		}
	}
}

func TestUsageErrorsSayWhereHelpIs(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if got := run(context.Background(), strings.Fields("oxbow mirror sync --max many http://h/x"), &stdout, &stderr); got != exitUsage {
		t.Errorf("status %d, want %d", got, exitUsage)
	}
	want := "oxbow: --max: \"many\" is not a number\noxbow: hint: see `oxbow mirror sync --help`\n"
	if diff := cmp.Diff(want, stderr.String()); diff != "" || stdout.Len() > 0 {
		t.Errorf("stdout %q, stderr (-want +got):\n%s", &stdout, diff)
	}
}
