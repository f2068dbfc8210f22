package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"oxbow/mirror"
)

// aboutSigner says whose signature over a bundle counts.
const aboutSigner = "It needs no store. Without --trust-fingerprint the key counts that comes with the bundle: compare its fingerprint with\n" +
	"what `oxbow key show` prints at the site that made it. Without --keyring, upstream's keys that come with it count too."

func inspectFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "trust-fingerprint", Usage: "want the key `FPR` to have signed the bundle"},
		&cli.StringFlag{Name: "keyring", Usage: "want keys of `FILE` to have signed upstream's documents, such as Canonical's"},
		jsonFlag(),
	}
}

func bundleInspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "print what a bundle has, and who vouches for it", ArgsUsage: "FILE...|DIR|-",
		Description: "Metadata is verified; files are passed over. " + aboutSigner,
		Flags:       inspectFlags(), Action: func(c *cli.Context) error { return inspectBundle(c, false) },
	}
}

func bundleVerifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "prove every byte of a bundle, up to upstream's signatures", ArgsUsage: "FILE...|DIR|-",
		Description: aboutSigner,
		Flags:       inspectFlags(), Action: func(c *cli.Context) error { return inspectBundle(c, true) },
	}
}

func inspectBundle(c *cli.Context, files bool) error {
	in, err := readBundleInput(c)
	if err != nil {
		return err
	}
	defer closeAll(in.volumes)
	o := mirror.InspectOptions{Files: files, TrustFingerprint: in.trust, Keyring: in.keyring}
	all, err := mirror.InspectBundles(c.Context, volumesOf(c.Context, in.volumes), o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, all)
	}
	faults, missing := 0, 0
	for _, i := range all {
		faults, missing = faults+len(i.Faults), missing+len(i.Missing())
		if !c.Bool("json") && err == nil {
			err = printInspection(c.App.Writer, i)
		}
	}
	switch {
	case err != nil:
		return err
	case faults > 0:
		return fmt.Errorf("%w: %s", mirror.ErrVerification, counted(faults, "fault"))
	case files && missing > 0:
		return fmt.Errorf("%w: what was read is proven, and the bundle has %s that could not be read", errPartial, counted(missing, "volume"))
	case files && !c.Bool("json"):
		return printLine(c.App.Writer, "proven, to the last byte: 0 faults")
	}
	return nil
}

// printInspection prints the custody chain, the first link first, and what was read.
func printInspection(w io.Writer, i *mirror.Inspection) error {
	for _, s := range i.Streams {
		printInspected(w, s)
	}
	t := newTable(w)
	t.row("bundle", i.Bundle)
	t.row("made by", fmt.Sprintf("%s, of snapshots up to %s", i.MadeBy, stamp(i.Created)))
	known := "the key that came with it: compare"
	if i.Trusted {
		known = "as asked for"
	}
	t.row("signed by", fmt.Sprintf("%s (%s), %s", i.Site.Fingerprint, i.Site.UserID, known))
	if i.Needs.Files > 0 && len(i.Missing()) == 0 && !slices.ContainsFunc(i.Read, func(v mirror.InspectedVolume) bool { return v.Files > 0 }) {
		t.row("brings", "no file: it is what vouches for those of the snapshot")
	}
	if i.Needs.Files > 0 {
		t.row("needs", fmt.Sprintf("%s, %s, that have to be there already", counted(i.Needs.Files, "file"), iec(i.Needs.Bytes)))
	}
	for _, v := range i.Read {
		proven := "not looked at"
		if v.Proven {
			proven = "proven"
		}
		t.row("volume", fmt.Sprintf("%d of %d: %s, %s, %s: %s", v.Volume, i.Volumes, counted(v.Files, "file"), iec(v.Bytes), proven, v.Name))
	}
	if missing := i.Missing(); len(missing) > 0 {
		t.row("not read", fmt.Sprintf("volume %s", strings.Trim(fmt.Sprint(missing), "[]")))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, f := range i.Faults {
		printLine(w, "fault: %s", f)
	}
	return nil
}

func printInspected(w io.Writer, s *mirror.InspectedStream) {
	t := newTable(w)
	t.row("stream", s.Stream)
	t.row("snapshot", fmt.Sprintf("%s, %s, made by %s", s.Snapshot, stamp(s.Created), s.Reason))
	if s.Since != "" {
		t.row("continues", s.Since)
	}
	products, versions := countLists(s.Lists)
	t.row("has", fmt.Sprintf("%s, %s, %s, %s", counted(products, "product"), counted(versions, "version"), counted(s.Files, "file"), iec(s.Bytes)))
	if s.Custody != nil {
		for _, of := range chainsOf(s.Custody) {
			originRows(t, of.origin, "")
			whose := "that came with it"
			if s.Given && !of.doc.Foreign {
				whose = "that was given"
			}
			t.row("upstream", fmt.Sprintf("%s: %s, by a key %s", of.doc.Path, signedText(of.doc), whose))
		}
	}
	handoverRows(t, s.Handovers, "", "")
	_ = t.flush() // the next line has the error
	for _, l := range s.Lists {
		for _, p := range l.Products {
			printLine(w, "  %s %s", p.Name, strings.Join(p.Versions, " "))
		}
	}
	fmt.Fprintln(w)
}
