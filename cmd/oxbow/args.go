package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cmd/oxbow/internal/typo"
)

// arrange returns args, a command line with the program's name first, in the
// only order that cli/v2 reads right: commands, flags, "--", arguments. As it
// comes, cli/v2 takes what follows the first argument for arguments too, so
// that `mirror sync stable --dry-run` would sync.
//
// Flags may stand anywhere, also before the command. A "--" ends them. A value
// follows its flag as the next word or after "="; as the next word it cannot
// begin with "--", because `--name --dry-run` is a forgotten name.
func arrange(commands []*cli.Command, args []string) ([]string, error) {
	a := arrangement{level: commands, all: commands, path: args[:min(1, len(args)):min(1, len(args))]}
	for words := args[len(a.path):]; len(words) > 0; {
		n, err := a.take(words)
		if err != nil {
			return nil, err
		}
		words = words[n:]
	}
	return a.line()
}

type arrangement struct {
	all   []*cli.Command
	level []*cli.Command // where the next command is looked up; nil behind the last
	path  []string
	leaf  *cli.Command // the last command found, if any

	flags []flagWord
	args  []string
	help  bool
	ended bool // "--" was seen
}

type flagWord struct{ name, text string }

// take reads the first of words, or the first two, and says how many it took.
func (a *arrangement) take(words []string) (int, error) {
	word := words[0]
	switch {
	case a.ended || word == "-" || !strings.HasPrefix(word, "-"):
		return 1, a.plain(word)
	case word == "--":
		a.ended = true
		return 1, nil
	}
	name, value, hasValue := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
	if name == "help" || name == "h" {
		a.help = true
		return 1, nil
	}
	if name == "version" && a.leaf == nil {
		return 1, a.plain(name)
	}
	f := lookupFlag(a.known(), name)
	switch {
	case f == nil:
		return 0, a.unknownFlag(word, name)
	case hasValue:
		a.flags = append(a.flags, flagWord{name, "--" + name + "=" + value})
		return 1, a.checkValue(f, name, value)
	case !f.TakesValue():
		a.flags = append(a.flags, flagWord{name, "--" + name})
		return 1, nil
	case len(words) == 1 || strings.HasPrefix(words[1], "--"):
		return 0, a.usage("flag --%s needs a value", name)
	}
	a.flags = append(a.flags, flagWord{name, "--" + name + "=" + words[1]})
	return 2, a.checkValue(f, name, words[1])
}

// checkValue refuses what cli/v2 would refuse in words of its own.
func (a *arrangement) checkValue(f cli.DocGenerationFlag, name, value string) error {
	switch f.(type) {
	case *cli.IntFlag:
		if _, err := strconv.ParseInt(value, 0, strconv.IntSize); err != nil {
			return a.usage("--%s: %q is not a number", name, value)
		}
	case *cli.BoolFlag:
		if _, err := strconv.ParseBool(value); err != nil {
			return a.usage("--%s: %q is neither true nor false", name, value)
		}
	}
	return nil
}

// plain takes a word that is no flag: the next command, or an argument.
func (a *arrangement) plain(word string) error {
	if a.level == nil {
		a.args = append(a.args, word)
		return nil
	}
	if a.leaf == nil && word == "help" {
		a.help = true
		return nil
	}
	for _, c := range a.level {
		if c.HasName(word) {
			a.path = append(a.path, c.Name)
			a.leaf, a.level = c, c.Subcommands
			return nil
		}
	}
	if full := pathsTo(a.all, word); a.leaf == nil && len(full) > 0 {
		return a.usage("unknown command %q; did you mean %s?", word, strings.Join(full, " or "))
	}
	return a.usage("unknown command %q; there is %s", word, names(a.level))
}

// known returns the flags that may come next: those of the command, or, while
// that is not known yet, those of all that it may be.
func (a *arrangement) known() []cli.Flag {
	if a.level == nil {
		return a.leaf.Flags
	}
	var flags []cli.Flag
	for _, c := range leaves(a.level) {
		flags = append(flags, c.Flags...)
	}
	return flags
}

// line renders the arrangement; what is wrong with the line as a whole is
// found here.
func (a *arrangement) line() ([]string, error) {
	switch {
	case a.help:
		return append(a.path, "--help"), nil
	case a.level != nil:
		return nil, a.usage("missing command; there is %s", names(a.level))
	}
	line := a.path
	for _, f := range a.flags {
		if lookupFlag(a.leaf.Flags, f.name) == nil { // it stood before the command
			return nil, a.unknownFlag("--"+f.name, f.name)
		}
		line = append(line, f.text)
	}
	return append(append(line, "--"), a.args...), nil
}

func (a *arrangement) unknownFlag(word, name string) error {
	var known []string
	for _, f := range a.known() {
		known = append(known, f.Names()[0])
	}
	if meant := typo.Nearest(name, known); meant != "" {
		return a.usage("unknown flag %s; did you mean --%s?", word, meant)
	}
	return a.usage("unknown flag %s", word)
}

func (a *arrangement) usage(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...), strings.Join(append([]string{"oxbow"}, a.path[min(1, len(a.path)):]...), " ")}
}

func lookupFlag(flags []cli.Flag, name string) cli.DocGenerationFlag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f.(cli.DocGenerationFlag)
			}
		}
	}
	return nil
}

// leaves returns the commands of a tree that have no commands below them.
func leaves(commands []*cli.Command) []*cli.Command {
	var all []*cli.Command
	for _, c := range commands {
		if len(c.Subcommands) == 0 {
			all = append(all, c)
		}
		all = append(all, leaves(c.Subcommands)...)
	}
	return all
}

// pathsTo returns the whole words of the commands below others that are called name.
func pathsTo(commands []*cli.Command, name string) []string {
	var all []string
	for _, c := range commands {
		for _, below := range c.Subcommands {
			if below.Name == name {
				all = append(all, "`oxbow "+c.Name+" "+name+"`")
			}
		}
	}
	return all
}

func names(commands []*cli.Command) string {
	var all []string
	for _, c := range commands {
		all = append(all, c.Name)
	}
	return strings.Join(all, ", ")
}
