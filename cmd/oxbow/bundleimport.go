package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

func bundleImportCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "take in volumes of bundles, and publish what is whole by then", ArgsUsage: "FILE...|DIR|-",
		Description: "Volumes come in any order, over days: nothing is published before all of a bundle is here and proven.\n" +
			"What came is kept for sixty days; `oxbow mirror status` says what is missing.\n" +
			"Whose bundles are trusted, `oxbow key import` says, or --trust-fingerprint the first time.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "trust-fingerprint", Usage: "trust the key `FPR` that comes with the bundle, as `oxbow key show` prints it at the site that made it"},
			&cli.StringFlag{Name: "keyring", Usage: "want everything to be vouched for by a document that a key of `FILE` signed, such as Canonical's"},
			&cli.BoolFlag{Name: "allow-older", Usage: "accept what is older than what is here"},
			&cli.StringFlag{Name: "abandon", Usage: "import nothing: give up bundle `ID`, of which the rest will not come"},
			jsonFlag(),
		},
		Action: bundleImport,
	}
}

func bundleImport(c *cli.Context) error {
	if c.IsSet("abandon") {
		return bundleAbandon(c)
	}
	in, err := readBundleInput(c)
	if err != nil {
		return err
	}
	defer closeAll(in.volumes)
	w := &importBundleWork{Trust: in.trust, Keyring: in.keyring, AllowOlder: c.Bool("allow-older"), JSON: c.Bool("json")}
	for _, v := range in.volumes {
		w.Names, w.files = append(w.Names, v.Name()), append(w.files, v)
	}
	return perform(c, w, cache.Create)
}

// bundleAbandon gives up a bundle.
func bundleAbandon(c *cli.Context) error {
	for _, name := range []string{"trust-fingerprint", "keyring", "allow-older"} {
		if c.IsSet(name) {
			return usagef(c, "--abandon imports nothing: leave --%s out", name)
		}
	}
	if err := noArgs(c); err != nil {
		return err
	}
	if c.String("abandon") == "" { // from a variable that is not set: a certain bundle is meant
		return usagef(c, "--abandon: the id of the bundle is empty; `oxbow mirror status` prints those that there are")
	}
	return perform(c, &importBundleWork{Abandon: c.String("abandon"), JSON: c.Bool("json")}, cache.Open)
}

// An importBundleWork takes in volumes, or gives up what came of a bundle.
type importBundleWork struct {
	Names      []string // of the files
	Trust      string
	Keyring    []byte
	AllowOlder bool
	Abandon    string // the id of a bundle, or its beginning; empty: none
	JSON       bool

	handed // the volumes
}

func (w *importBundleWork) wants() int { return len(w.Names) }

// importView is what `bundle import --json` prints.
type importView struct {
	Volumes []mirror.Taken         `json:"volumes"`
	Bundles []*mirror.BundleResult `json:"bundles"`
}

func (w *importBundleWork) do(ctx context.Context, o *owner, out *screen) error {
	if w.Abandon != "" {
		return w.abandon(o, out)
	}
	v := importView{Volumes: []mirror.Taken{}, Bundles: []*mirror.BundleResult{}}
	volumes := volumesOf(ctx, w.files)
	for i, name := range w.Names {
		volumes[i].Name = name
	}
	results, err := o.mirror.Import(ctx, volumes, mirror.ImportOptions{TrustFingerprint: w.Trust, Keyring: w.Keyring, AllowOlder: w.AllowOlder, Taken: func(t mirror.Taken) {
		v.Volumes = append(v.Volumes, t)
		if !w.JSON {
			printLine(out.stdout, "volume %d of %d of bundle %.12s: took in %s, %s: %s", t.Volume, t.Of, t.Bundle, counted(t.Files, "file"), iec(t.Bytes), t.Name)
		}
	}})
	v.Bundles = append(v.Bundles, results...)
	for _, r := range results {
		o.log.Info("bundle", "bundle", r.Bundle, "site", r.Site, "volumes", r.Volumes, "missing", len(r.Missing), "published", len(r.Published))
	}
	if w.JSON {
		if failed := printJSON(out.stdout, v); failed != nil {
			return failed
		}
	} else {
		for _, r := range results {
			showBundle(out, r)
		}
	}
	if err != nil {
		return err
	}
	if _, err := mirror.SiteKey(o.store.Files()); errors.Is(err, cache.ErrMiss) && slices.ContainsFunc(results, func(r *mirror.BundleResult) bool { return len(r.Published) > 0 }) {
		printLine(out.stderr, "oxbow: this site has no key, and so no chain of custody for sites that sync from it, or bundles: `oxbow key generate` makes one")
	}
	return v.verdict()
}

// showBundle prints what became of a bundle.
func showBundle(out *screen, r *mirror.BundleResult) {
	for stream, id := range r.Published {
		printLine(out.stdout, "%s: published snapshot %.12s, by bundle %.12s of %s", stream, id, r.Bundle, stamp(r.Created))
	}
	for stream, id := range r.There {
		back := ""
		if now := r.Current[stream]; now != "" {
			back = fmt.Sprintf(", and %.12s is current: `oxbow snapshot rollback %s %[3]s` publishes it again", now, stream, id[:12])
		}
		printLine(out.stdout, "%s: snapshot %.12s came before%s", stream, id, back)
	}
	for _, m := range r.Missing {
		printLine(out.stdout, "bundle %.12s: volume %d of %d is missing, with %s, %s", r.Bundle, m.Volume, r.Volumes, counted(m.Files, "file"), iec(m.Bytes))
	}
}

// verdict is the error of an import that leaves something to come.
func (v *importView) verdict() error {
	for _, r := range v.Bundles {
		if !r.Whole() {
			return fmt.Errorf("%w: bundle %.12s is not whole yet: nothing of it is published before %s", errPartial, r.Bundle, counted(len(r.Missing), "more volume"))
		}
	}
	return nil
}

// abandonedView is what `bundle import --abandon --json` prints.
type abandonedView struct {
	Abandoned *mirror.UnfinishedBundle `json:"abandoned"`
}

func (w *importBundleWork) abandon(o *owner, out *screen) error {
	b, err := o.mirror.AbandonBundle(w.Abandon)
	switch {
	case errors.Is(err, mirror.ErrNoBundle):
		return &hinted{err, "`oxbow mirror status` prints those that there are"}
	case err != nil:
		return err
	case w.JSON:
		return printJSON(out.stdout, abandonedView{b})
	}
	return printLine(out.stdout, "bundle %.12s: given up; `oxbow store sweep` removes what came of it", b.Bundle)
}
