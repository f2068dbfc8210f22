package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"oxbow/cache"
	"oxbow/mirror"
)

// custodyView is what `snapshot show --custody --json` prints.
type custodyView struct {
	Snapshot string `json:"snapshot"`
	*mirror.Custody
	Came *mirror.Coming `json:"came,omitempty"` // by a bundle
}

// showCustody prints who vouches for what a snapshot publishes. What nobody vouches for is an error.
func showCustody(c *cli.Context, files *cache.Files, s cache.Snapshot, man *cache.Manifest) error {
	stream, err := mirror.ReadStream(files, s.Stream)
	if err != nil {
		return err
	}
	keyring, err := keyringFlag(c)
	if err != nil {
		return err
	}
	if keyring != nil {
		stream = mirror.Stream{Name: stream.Name, Keyring: keyring}
	}
	custody, err := mirror.TraceCustody(files, man, stream, time.Now())
	if err != nil {
		return err
	}
	came, err := mirror.ReadComing(files, s)
	if err != nil {
		custody.Faults = append(custody.Faults, err.Error())
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, custodyView{s.ID.String(), custody, came})
	} else {
		err = printCustody(c, s, custody, came)
	}
	if err == nil && len(custody.Faults) > 0 {
		err = fmt.Errorf("%w: the custody of snapshot %.12s has %s", mirror.ErrVerification, s.ID, counted(len(custody.Faults), "fault"))
	}
	return err
}

// A chain is a document with where it comes from; nil: nothing says that.
type chain struct {
	doc    *mirror.Voucher
	origin *mirror.Origin
}

// chainsOf returns every chain that vouches for something, once.
func chainsOf(custody *mirror.Custody) (all []chain) {
	for _, v := range custody.Versions {
		if c := (chain{v.Document, v.Origin}); c.doc != nil && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// printCustody prints each document with where it comes from and the versions that it vouches for, and then how the snapshot came, if
// by a bundle.
func printCustody(c *cli.Context, s cache.Snapshot, custody *mirror.Custody, came *mirror.Coming) error {
	w := c.App.Writer
	for _, of := range chainsOf(custody) {
		printLine(w, "%s %s", of.doc.Kind, of.doc.Path)
		head := newTable(w)
		head.row("  sha256", of.doc.Digest)
		head.row("  updated", of.doc.Updated)
		head.row("  signed", signedText(of.doc))
		originRows(head, of.origin, "  ")
		if err := head.flush(); err != nil {
			return err
		}
		versions := newTable(w)
		for _, p := range productsOf(custody, of) {
			versions.row("  "+p.Name, strings.Join(p.Versions, " "))
		}
		if err := versions.flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if came != nil {
		t := newTable(w)
		handoverRows(t, came.Handovers, "", "")
		t.row("came", fmt.Sprintf("by a bundle, %s", stamp(came.Time)))
		if err := t.flush(); err != nil {
			return err
		}
	}
	for _, fault := range custody.Faults {
		printLine(w, "fault: %s", fault)
	}
	return printLine(w, "%s: snapshot %.12s has %s, vouched for by %s of upstream's: %s", custody.Stream, s.ID,
		counted(len(custody.Versions), "version"), counted(len(custody.Vouchers()), "document"), counted(len(custody.Faults), "fault"))
}

// originRows adds to a table where a document comes from, the first link first.
func originRows(t table, o *mirror.Origin, indent string) {
	if o == nil {
		return
	}
	whose := "that came with it"
	if o.Given {
		whose = "that was given"
	}
	t.row(indent+"origin", fmt.Sprintf("%s, sha256 %.12s: %s, by a key %s", o.Path, o.Digest, signedText(&o.Voucher), whose))
	for _, h := range o.HandedOn {
		known := "a key that came with it"
		if h.Known {
			known = "a key that is trusted here"
		}
		handoverRows(t, h.Handovers, indent, fmt.Sprintf(": %s, by %s", h.Path, known))
	}
}

// handoverRows adds to a table which sites had a snapshot, and what there is to say of the last one.
func handoverRows(t table, handovers []*mirror.HandoverView, indent, last string) {
	for i, h := range handovers {
		by, more := h.By, ""
		if !h.Proven {
			by = "its key is not here"
		}
		if i == len(handovers)-1 {
			more = last
		} else if h.Snapshot != handovers[i+1].Snapshot {
			more = fmt.Sprintf(": as snapshot %.12s, to which the next one rolled back", h.Snapshot)
		}
		t.row(indent+"handed over", fmt.Sprintf("by %s (%s), which had it since %s, with %s%s", h.Site, by, stamp(h.Time), h.MadeBy, more))
	}
}

// productsOf returns what a chain vouches for.
func productsOf(custody *mirror.Custody, of chain) (products []mirror.PlannedProduct) {
	for _, v := range custody.Versions {
		if (chain{v.Document, v.Origin}) != of {
			continue
		}
		i := slices.IndexFunc(products, func(p mirror.PlannedProduct) bool { return p.Name == v.Product })
		if i < 0 {
			i, products = len(products), append(products, mirror.PlannedProduct{Name: v.Product})
		}
		products[i].Versions = append(products[i].Versions, v.Version)
	}
	return products
}

func signedText(doc *mirror.Voucher) string {
	if doc.Signed == nil && doc.Foreign {
		return "by a key that is not in the keyring, as what it comes from is"
	}
	if doc.Signed == nil {
		return "unsigned, or not verified: the stream allows that"
	}
	text := fmt.Sprintf("%s by %s (%s)", stamp(doc.Signed.Date), doc.Signed.Fingerprint, doc.Signed.UserID)
	if doc.Apart != "" {
		text += ", in " + doc.Apart
	}
	if doc.Signed.Expired {
		text += ", whose key has expired since"
	}
	if doc.Foreign {
		text += ", whose key is not in the keyring, as that of the origin is"
	}
	return text
}
