package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes oxbow's command lines",
		ArgsUsage: "bash|zsh|fish",
		Description: "bash: source <(oxbow completion bash)\n" +
			"zsh:  source <(oxbow completion zsh)\n" +
			"fish: oxbow completion fish | source",
		Action: completion,
	}
}

func completion(c *cli.Context) (err error) {
	var script string
	switch shell := c.Args().First(); {
	case c.NArg() != 1:
		return usagef(c, "want one shell: bash, zsh or fish")
	case shell == "bash":
		script = bashCompletion(c.App.Commands)
	case shell == "zsh":
		script = "autoload -U +X bashcompinit && bashcompinit\n" + bashCompletion(c.App.Commands)
	case shell == "fish":
		if script, err = c.App.ToFishCompletion(); err != nil {
			return err
		}
		script += fishArguments
	default:
		return usagef(c, "no completion for %q; there is bash, zsh and fish", shell)
	}
	_, err = fmt.Fprint(c.App.Writer, script)
	return err
}

// streamList prints the names of the streams, for completion.
const streamList = "oxbow mirror list 2>/dev/null | tail -n +2 | cut -d ' ' -f 1"

const fishArguments = `
complete -c oxbow -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'
complete -c oxbow -n '__fish_seen_subcommand_from mirror; and __fish_seen_subcommand_from sync status drop' -f -a '(` + streamList + `)'
complete -c oxbow -n '__fish_seen_subcommand_from snapshot; and __fish_seen_subcommand_from list show diff rollback hold pin' -f -a '(` + streamList + `)'
`

// bashCompletion returns a function that follows the words of a command line
// down the tree of commands and offers what may come next, or, behind a
// command, its flags and what its arguments may be. Where nothing is offered, bash
// completes file names.
func bashCompletion(commands []*cli.Command) string {
	var paths, offers strings.Builder
	var walk func(path string, level []*cli.Command)
	walk = func(path string, level []*cli.Command) {
		var next []string
		for _, c := range level {
			next = append(next, c.Name)
			fmt.Fprintf(&paths, "    %q) path=%q ;;\n", path+" "+c.Name, path+" "+c.Name)
			if len(c.Subcommands) > 0 {
				walk(path+" "+c.Name, c.Subcommands)
				continue
			}
			fmt.Fprintf(&offers, "  %q) words=%q ;;\n", path+" "+c.Name, strings.Join(flagNames(c), " "))
		}
		fmt.Fprintf(&offers, "  %q) words=%q ;;\n", path, strings.Join(next, " "))
	}
	walk("oxbow", commands)
	return fmt.Sprintf(`_oxbow() {
  local path=oxbow words word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
%s    esac
  done
  case "$path" in
%s  esac
  [[ ${COMP_WORDS[COMP_CWORD]} == -* ]] || case "$path" in
  "oxbow mirror sync" | "oxbow mirror status" | "oxbow mirror drop") words=$(%[3]s) ;;
  "oxbow snapshot list" | "oxbow snapshot show" | "oxbow snapshot diff" | "oxbow snapshot rollback" | "oxbow snapshot hold" | "oxbow snapshot pin") words=$(%[3]s) ;;
  "oxbow completion") words="bash zsh fish" ;;
  "oxbow key import" | "oxbow config check") words="" ;;
  esac
  case "${COMP_WORDS[COMP_CWORD-1]}" in
  --log-level) words="debug info warn error" ;;
  --log-format) words="text json" ;;
  --type) words="ed25519 rsa4096" ;;
  --config | --keyring | --store) words="" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _oxbow oxbow
`, &paths, &offers, streamList)
}

func flagNames(c *cli.Command) []string {
	var all []string
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				all = append(all, "--"+n)
			}
		}
	}
	return all
}
