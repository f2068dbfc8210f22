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
	return files, noStore(p.dir, err)
}

// noStore says in one line what to do where there is no store.
func noStore(dir string, err error) error {
	if errors.Is(err, cache.ErrNoStore) {
		return fmt.Errorf("%w in %s: `oxbow mirror sync URL` makes one, and --store names another", cache.ErrNoStore, dir)
	}
	return err
}
