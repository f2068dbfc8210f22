package main

import (
	"io"
	"log/slog"

	"github.com/urfave/cli/v2"

	"oxbow/cmd/oxbow/internal/site"
)

// commands returns every command, each with the flags that all of them take.
func commands() []*cli.Command {
	all := []*cli.Command{
		serveCommand(),
		{Name: "mirror", Usage: "keep streams like their upstreams", Subcommands: []*cli.Command{
			mirrorSyncCommand(), mirrorListCommand(), mirrorStatusCommand(), mirrorDropCommand(), importTreeCommand(), exportTreeCommand(),
		}},
		{Name: "snapshot", Usage: "what was published", Subcommands: []*cli.Command{
			snapshotListCommand(), snapshotShowCommand(), snapshotDiffCommand(), snapshotRollbackCommand(), snapshotHoldCommand(), snapshotPinCommand(), snapshotUnpinCommand(),
		}},
		{Name: "store", Usage: "look after what is on disk", Subcommands: []*cli.Command{
			storeCheckCommand(), storeSweepCommand(), storeStatsCommand(), storeRebuildCommand(),
		}},
		bundleCommand(),
		{Name: "key", Usage: "the key that signs what this site publishes", Subcommands: []*cli.Command{
			keyShowCommand(), keyExportCommand(), keyGenerateCommand(), keyImportCommand(),
		}},
		{Name: "config", Usage: "what the configuration file says", Subcommands: []*cli.Command{
			configCheckCommand(), configShowCommand(), configInitCommand(),
		}},
		lintCommand(),
		demoCommand(),
		completionCommand(),
		versionCommand(),
	}
	for _, c := range leaves(all) {
		finish(c)
	}
	for _, c := range all {
		c.HideHelpCommand = true
	}
	return all
}

// finish gives a command what all of them have.
func finish(c *cli.Command) {
	if lookupFlag(c.Flags, "store") == nil {
		c.Flags = append(c.Flags, &cli.StringFlag{Name: "store", Usage: "keep the store in `DIR` (default: as the configuration says, or " + site.DefaultStore + ")", EnvVars: []string{"OXBOW_STORE"}})
	}
	c.Flags = append(c.Flags,
		&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE` (default: " + site.DefaultFile + ", if it is there)", EnvVars: []string{"OXBOW_CONFIG"}},
		&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn, error (default: info for serve, warn elsewhere)", EnvVars: []string{"OXBOW_LOG_LEVEL"}},
		&cli.StringFlag{Name: "log-format", Usage: "write the log as `FORMAT`: text, json (default: text on a terminal, json elsewhere)", EnvVars: []string{"OXBOW_LOG_FORMAT"}},
	)
	for _, f := range c.Flags {
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true // "(default: false)" at each of them
		}
	}
	c.HideHelpCommand = true
	c.Before = func(ctx *cli.Context) error {
		_, err := logger(ctx, io.Discard, slog.LevelInfo)
		return err
	}
	c.OnUsageError = func(ctx *cli.Context, err error, _ bool) error { return usagef(ctx, "%v", err) }
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

// noArgs refuses arguments, so that a forgotten dash is not ignored.
func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return usagef(c, "unexpected argument %q", c.Args().First())
	}
	return nil
}

// logger returns the log that the flags ask for, written to w.
func logger(c *cli.Context, w io.Writer, level slog.Level) (*slog.Logger, error) {
	if s := c.String("log-level"); s != "" {
		// slog's own parser takes offsets such as info+3, which no help text names.
		levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
		l, ok := levels[s]
		if !ok {
			return nil, usagef(c, "unknown log level %q; there is debug, info, warn, error", s)
		}
		level = l
	}
	o := &slog.HandlerOptions{Level: level}
	format := c.String("log-format")
	if format == "" {
		format = "json"
		if onTerminal(w) {
			format = "text"
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	default:
		return nil, usagef(c, "unknown log format %q; there is text, json", format)
	}
}
