package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

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
		return fmt.Errorf("%w in %s: `oxbow mirror sync URL` or `oxbow bundle import` makes one, and --store names another", cache.ErrNoStore, dir)
	}
	return err
}
