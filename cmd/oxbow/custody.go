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
}

// showCustody prints who vouches for what a snapshot publishes. What nobody vouches for is an error.
func showCustody(c *cli.Context, files *cache.Files, s cache.Snapshot, man *cache.Manifest) error {
	stream, err := mirror.ReadStream(files, s.Stream)
	if err != nil {
		return err
	}
	custody, err := mirror.TraceCustody(files, man, stream, time.Now())
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, custodyView{s.ID.String(), custody})
	} else {
		err = printCustody(c, s, custody)
	}
	if err == nil && len(custody.Faults) > 0 {
		err = fmt.Errorf("%w: the custody of snapshot %.12s has %s", mirror.ErrVerification, s.ID, counted(len(custody.Faults), "fault"))
	}
	return err
}

// printCustody prints each document with the versions that it vouches for.
func printCustody(c *cli.Context, s cache.Snapshot, custody *mirror.Custody) error {
	w := c.App.Writer
	vouchers := custody.Vouchers()
	for _, doc := range vouchers {
		printLine(w, "%s %s", doc.Kind, doc.Path)
		head := newTable(w)
		head.row("  sha256", doc.Digest)
		head.row("  updated", doc.Updated)
		head.row("  signed", signedText(doc))
		if err := head.flush(); err != nil {
			return err
		}
		versions := newTable(w)
		for _, p := range productsOf(custody, doc) {
			versions.row("  "+p.Name, strings.Join(p.Versions, " "))
		}
		if err := versions.flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, fault := range custody.Faults {
		printLine(w, "fault: %s", fault)
	}
	return printLine(w, "%s: snapshot %.12s has %s, vouched for by %s of upstream's: %s", custody.Stream, s.ID,
		counted(len(custody.Versions), "version"), counted(len(vouchers), "document"), counted(len(custody.Faults), "fault"))
}

// productsOf returns what a document vouches for.
func productsOf(custody *mirror.Custody, doc *mirror.Voucher) (products []mirror.PlannedProduct) {
	for _, v := range custody.Versions {
		if v.Document != doc {
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
	return text
}
