package main

import (
	"cmp"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/cmd/oxbow/internal/site"
)

// A place is a store, and the configuration that is in force there.
type place struct {
	dir  string     // of the store
	site *site.Site // the zero Site where there is none

	offline bool // no upstream is to be asked, whatever the configuration says
}

// placeOf finds out where a command works: flag before environment before file
// before default. The configuration at the usual place is not in force in another
// store than its own.
func placeOf(c *cli.Context) (place, error) {
	dir := c.String("store")
	if c.IsSet("store") && dir == "" {
		return place{}, usagef(c, "the store's directory is empty; give one with --store or OXBOW_STORE")
	}
	s, err := loadSite(c)
	switch elsewhere := c.IsSet("store") && !c.IsSet("config"); {
	case err != nil && elsewhere && !sameDir(dir, site.DefaultStore):
		return place{dir: dir, site: &site.Site{}}, nil // whatever it is about, it is not about that store
	case err != nil:
		return place{}, err
	case elsewhere && !sameDir(dir, storeOf(s)):
		return place{dir: dir, site: &site.Site{}}, nil
	case c.IsSet("store"):
		return place{dir: dir, site: s}, nil
	}
	return place{dir: storeOf(s), site: s}, nil
}

// opening returns how a sync opens the store: streams that the configuration wants
// make one where there is none.
func (p place) opening() opening {
	if len(p.site.Streams) > 0 {
		return cache.Create
	}
	return cache.Open
}

// storeOf returns the directory of the store that a configuration is about.
func storeOf(s *site.Site) string { return cmp.Or(s.Store.Path, site.DefaultStore) }

func sameDir(a, b string) bool {
	absolute, err := filepath.Abs(a)
	return err == nil && absolute == filepath.Clean(b)
}
