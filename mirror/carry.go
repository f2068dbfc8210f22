package mirror

import (
	"slices"

	"oxbow/streams"
)

// carry lays the published versions into l that stay. Each needs the signed
// document that listed it; these are noted in carried.
func (p *planner) carry(l *streams.Products) {
	before := p.prev.list(l.ContentID)
	if before == nil {
		return
	}
	wanted := map[*list]*streams.Products{} // of each voucher, since the selection may have changed
	for _, prod := range before.Products {
		if slices.Contains(p.s.Dropped, prod.Name) && !p.offered[prod.Name] {
			continue
		}
		for _, v := range prod.Versions {
			id := versionID{l.ContentID, prod.Name, v.Name}
			if _, gone := p.lost[id]; gone || l.Version(id.product, id.version) != nil || !p.stays(l, id) {
				continue
			}
			voucher := p.prev.voucher(id, p.believed)
			if voucher == nil {
				p.lost[id] = id.omission("no document of upstream's is left that lists it and is signed with a key of the keyring")
				continue
			}
			if wanted[voucher] == nil {
				wanted[voucher] = voucher.products.Choose(p.choice(voucher.products))
			}
			if still := wanted[voucher].Version(id.product, id.version); still != nil {
				l.AddVersion(wanted[voucher].Product(id.product), still)
				p.carried[id] = voucher
			}
		}
	}
}

// believed reports whether a document of before counts, by who is trusted now: it may have been accepted when less was asked.
func (p *planner) believed(doc document) bool {
	good, known := p.belief[doc.digest]
	if !known {
		_, err := p.trust.signature(doc.bytes, nil, p.m.now())
		good = err == nil
		p.belief[doc.digest] = good
	}
	return good
}

// stays reports whether a published version stays that is not in l: because its
// product vanished upstream, because upstream's version of that name is broken, or
// in place of one that is newer than all there are and is broken or held back.
func (p *planner) stays(l *streams.Products, id versionID) bool {
	if _, broken := p.broken[id]; broken || !p.offered[id.product] {
		return true
	}
	newest := ""
	if prod := l.Product(id.product); prod != nil {
		for _, v := range prod.Versions {
			if p.carried[versionID{id.contentID, id.product, v.Name}] == nil {
				newest = max(newest, v.Name)
			}
		}
	}
	missing := func(other versionID) bool {
		return other.contentID == id.contentID && other.product == id.product && other.version > newest
	}
	for other := range p.broken {
		if missing(other) {
			return true
		}
	}
	for other := range p.heldBack {
		if missing(other) {
			return true
		}
	}
	return false
}

// addVanishedLists keeps the published lists that upstream's index no longer names.
func (p *planner) addVanishedLists(plan *Plan) {
	for _, before := range p.prev.lists {
		if slices.ContainsFunc(p.c.lists, func(li list) bool { return li.products.ContentID == before.ContentID }) {
			continue
		}
		i := slices.IndexFunc(p.prev.evidence, func(li list) bool { return li.products.ContentID == before.ContentID })
		if i < 0 {
			continue
		}
		li := p.prev.evidence[i]
		p.addList(plan, p.prev.entry(before.ContentID, li.path), li.products.Choose(nothingChosen))
	}
}

// nothingChosen leaves a list without products.
var nothingChosen = streams.Choice{Skip: func(streams.Pedigree) bool { return true }}

// evidenceFor returns the older documents that vouch for carried versions of
// the planned lists.
func (p *planner) evidenceFor(plan *Plan) (evidence []document) {
	for id := range plan.versions() {
		voucher := p.carried[id]
		if voucher == nil || slices.ContainsFunc(p.c.lists, func(li list) bool { return li.digest == voucher.digest }) {
			continue
		}
		if !slices.ContainsFunc(evidence, func(doc document) bool { return doc.digest == voucher.digest }) {
			evidence = append(evidence, voucher.document)
		}
	}
	return evidence
}
