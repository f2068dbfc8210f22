package mirror

import (
	"slices"
	"time"

	"oxbow/cache"
)

// Words. A document of upstream's that names what is published vouches for it. Where upstream is a site like this one, a custody volume
// of that site says which document of its own upstream vouches there, and is one link of a chain; the document that the first upstream
// signed is the origin. In each bundle, and so in each custody volume, the sites that had the snapshot sign a handover, one after the
// other: these say by whom it came, and not what it is.

// A Custody says of all that a snapshot publishes which document of upstream's vouches for it, and who signed that. The documents
// are in the snapshot, byte for byte: so it can be traced where no network is, and when upstream is long gone.
//
// Where upstream is a site like this one, its custody volume may be in the snapshot too: then the chain goes on, from its document to
// that of its own upstream, and so to the first.
type Custody struct {
	Stream   string           `json:"stream"`
	Versions []VouchedVersion `json:"versions"`            // in the order of the content ids, and within a list in its own
	HandedOn []*HandedOn      `json:"handed_on,omitempty"` // the links of the chains, that of the first site first
	Faults   []string         `json:"faults"`              // what nothing vouches for, chains that break, and what cannot be read: a line each
}

// A VouchedVersion is a version that a snapshot publishes, in whole or in part.
type VouchedVersion struct {
	ContentID string   `json:"content_id"`
	Product   string   `json:"product"`
	Version   string   `json:"version"`
	Files     int      `json:"files"`            // that are published of it, here or to be pulled through
	Document  *Voucher `json:"document"`         // nil: none vouches for all of these, as a fault says
	Origin    *Origin  `json:"origin,omitempty"` // where the document comes from in turn; nil: nothing here says that
}

// A Voucher is a document of upstream's that names what is published, with the same sizes and sums.
type Voucher struct {
	Kind    cache.Kind `json:"kind"` // upstream: it was read for this snapshot; evidence: for an older one
	Path    string     `json:"path"` // in the manifest
	Digest  string     `json:"digest"`
	Updated string     `json:"updated"`         // as it says itself
	Signed  *Signature `json:"signed"`          // nil: nobody did, or it was not asked, as the stream allows
	Apart   string     `json:"apart,omitempty"` // path of the signature in the manifest; empty: it is part of the document

	// Foreign: who signed it does not count by the keyring that was asked for. What it comes from is signed by one who does.
	Foreign bool `json:"foreign,omitempty"`
}

// An Origin is the document at the beginning of a chain, of the upstream of the site that had the snapshot first.
type Origin struct {
	Voucher              // its paths are those in the manifest of that site
	Given    bool        `json:"upstream_keys_given"` // the key that signed it is in the reader's keyring; otherwise it came along
	Through  []string    `json:"through"`             // digests of the custody volumes by which it came, that of the first site first
	HandedOn []*HandedOn `json:"-"`                   // what these say of themselves, in the same order
}

// A HandedOn is what a custody volume says of itself: which site handed its snapshot on.
type HandedOn struct {
	Path      string          `json:"path"` // in the manifest; of one within another one in that one's
	Digest    string          `json:"digest"`
	Stream    string          `json:"stream"` // at that site, as the others
	Snapshot  string          `json:"snapshot"`
	Created   time.Time       `json:"created"`
	Signed    Signature       `json:"signed"`
	Known     bool            `json:"known"` // the key is one of the reader's; otherwise it came along
	Handovers []*HandoverView `json:"handovers"`
}

// Vouchers returns every document that vouches for something, once.
func (c *Custody) Vouchers() (all []*Voucher) {
	for _, v := range c.Versions {
		if v.Document != nil && !slices.Contains(all, v.Document) {
			all = append(all, v.Document)
		}
	}
	return all
}

// TraceCustody finds the voucher of everything that a snapshot publishes. It reads documents, and files of which upstream gives no
// SHA-256; it needs no lock, and nothing of upstream. Whose signatures count, and whether any are asked for, is what s says now: a
// signature at any place of the chain will do. What nothing vouches for is a fault and no error.
func TraceCustody(f *cache.Files, man *cache.Manifest, s Stream, now time.Time) (*Custody, error) {
	by, err := countedHere(f, man.Stream, s)
	if err != nil {
		return nil, err
	}
	return traceCustody(f, man, by, now)
}
