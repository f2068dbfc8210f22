package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

// commandLine is what others are told of a process that has the store: its command
// line, which must not show them the password of a URL.
func commandLine(args []string) string {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = withoutUser(arg)
	}
	return strings.Join(shown, " ")
}

// withoutUser returns a word with the user and password of the URL in it, if any,
// left out. Of a malformed URL everything before the last @ goes.
func withoutUser(word string) string {
	scheme, rest, ok := strings.Cut(word, "://")
	if !ok {
		return word
	}
	authority := rest
	if _, err := url.Parse(word); err == nil {
		authority, _, _ = strings.Cut(strings.NewReplacer("?", "/", "#", "/").Replace(rest), "/")
	}
	return scheme + "://" + rest[strings.LastIndex(authority, "@")+1:]
}

// openFiles opens the store for reading, which works beside a process that has it.
func openFiles(c *cli.Context) (*cache.Files, error) {
	p, err := placeOf(c)
	if err != nil {
		return nil, err
	}
	files, err := cache.OpenFiles(p.dir)
	if errors.Is(err, cache.ErrNoStore) && len(p.site.Streams) > 0 {
		return nil, fmt.Errorf("%w in %s yet: `oxbow serve` or `oxbow mirror sync` makes it, and fetches what %s wants", cache.ErrNoStore, p.dir, p.site.File)
	}
	return files, noStore(p.dir, err)
}

// noStore says in one line what to do where there is no store.
func noStore(dir string, err error) error {
	if errors.Is(err, cache.ErrNoStore) {
		return fmt.Errorf("%w in %s: `oxbow mirror sync URL` makes one, and --store names another", cache.ErrNoStore, dir)
	}
	return err
}
