package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
)

func bundleHaveCommand() *cli.Command {
	return &cli.Command{
		Name: "have", Usage: "print, signed, what is here: a receipt, and what the next bundle can do without",
		Description: "Give it to `oxbow bundle export --have FILE` at the site that makes bundles.",
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			return perform(c, &haveWork{}, cache.Open)
		},
	}
}

type haveWork struct{}

func (w *haveWork) do(_ context.Context, o *owner, out *screen) error {
	doc, err := o.mirror.Have("oxbow " + programVersion())
	if err == nil {
		_, err = out.stdout.Write(doc)
	}
	return err
}
