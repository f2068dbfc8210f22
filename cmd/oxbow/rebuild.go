package main

import (
	"log/slog"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func storeRebuildCommand() *cli.Command {
	return &cli.Command{
		Name:  "rebuild",
		Usage: "make the index anew from the files, which are the truth",
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return withStore(c, c.App.ErrWriter, slog.LevelWarn, cache.Open, func(s *cache.Store, _ *slog.Logger) error {
				return s.Rebuild(c.Context)
			})
		},
	}
}
