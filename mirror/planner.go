package mirror

import (
	"fmt"
	"maps"
	"slices"

	"oxbow/cache"
	"oxbow/streams"
)

// notifications is the datatype of lists that are no images: what MAAS up to
// 3.7 shows its users about new releases of itself.
const notifications = "release-notifications"

// A planner makes plans from one catalog: the first with all that is wanted,
// each further one without what turned out to be broken, in place of which the
// published versions of the product stay.
type planner struct {
	m          *Mirror
	s          Stream
	trust      trust
	c          *catalog
	prev       *published
	lease      *cache.Lease // covers what the plans count on
	selections streams.Selections
	hold       streams.Selections
	offered    map[string]bool    // every product of which upstream offers a version
	heldBack   map[versionID]bool // of these versions those that are held back
	idle       []string           // warnings of selections that match nothing
	directory  *directory         // nil unless all of upstream's is advertised

	broken map[versionID]Omission // upstream's versions that cannot be published
	lost   map[versionID]Omission // published versions that cannot stay

	carried map[versionID]*list   // of the plan being made: who vouches for what stays
	belief  map[cache.Digest]bool // whether documents of before count now
}

func (m *Mirror) planner(s Stream, c *catalog, lease *cache.Lease) (*planner, error) {
	prev, err := m.published(s.Name)
	if err != nil {
		return nil, err
	}
	p := &planner{m: m, s: s, c: c, prev: prev, lease: lease, offered: map[string]bool{}, heldBack: map[versionID]bool{},
		broken: map[versionID]Omission{}, lost: map[versionID]Omission{}, belief: map[cache.Digest]bool{}}
	if p.trust, err = s.trust(); err != nil {
		return nil, err
	}
	if p.selections, err = parseSelections(s.Select); err != nil {
		return nil, err
	}
	if p.hold, err = parseSelections(s.Hold); err != nil {
		return nil, err
	}
	for _, li := range c.lists {
		for _, prod := range li.products.Products {
			if len(prod.Versions) > 0 {
				p.offered[prod.Name] = true
			}
		}
	}
	p.idle = slices.Concat(p.idleSelections(), p.holdBack(), p.idleDrops())
	if s.all() {
		p.directory = c.directory()
	}
	return p, nil
}

// idleSelections returns a warning for each of several selections that matches
// nothing of upstream's: a slip of the pen, that the others hide. Of one alone the sync
// fails, unless there is something to publish all the same.
func (p *planner) idleSelections() (warnings []string) {
	if len(p.selections) < 2 && !p.s.all() {
		return nil
	}
	for _, sel := range p.selections {
		if !slices.ContainsFunc(p.c.lists, func(li list) bool {
			return len(li.products.Choose(streams.Choice{Selections: streams.Selections{sel}}).Products) > 0
		}) {
			warnings = append(warnings, fmt.Sprintf("the selection %q matches nothing of upstream's", sel))
		}
	}
	return warnings
}

// idleDrops returns a warning for each product that was dropped and that upstream has.
func (p *planner) idleDrops() (warnings []string) {
	for _, product := range p.s.Dropped {
		if p.offered[product] {
			warnings = append(warnings, fmt.Sprintf("%s was to be dropped and stays, since upstream has it: leave it out by the selection, or hold it back", product))
		}
	}
	return warnings
}

// holdBack finds the versions of upstream's that are held back. It returns a warning for each hold that matches none of them any
// more, or did not from the first.
func (p *planner) holdBack() (warnings []string) {
	for _, sel := range p.hold {
		idle := true
		for _, li := range p.c.lists {
			for _, id := range heldIn(li.products, sel) {
				p.heldBack[id], idle = true, false
			}
		}
		if idle {
			warnings = append(warnings, fmt.Sprintf("the hold %q matches nothing of upstream's", sel))
		}
	}
	return warnings
}

// lostToHolds returns a warning for each product of one of upstream's lists of which nothing is left to publish because of holds.
func (p *planner) lostToHolds(l *streams.Products, planned []*streams.Products) (warnings []string) {
	if len(p.hold) == 0 {
		return nil
	}
	c := p.choice(l)
	c.Hold = nil
	for _, prod := range l.Choose(c).Products {
		left := slices.ContainsFunc(planned, func(li *streams.Products) bool { return li.Product(prod.Name) != nil })
		held := slices.ContainsFunc(prod.Versions, func(v *streams.Version) bool { return p.heldBack[versionID{l.ContentID, prod.Name, v.Name}] })
		if held && !left {
			warnings = append(warnings, fmt.Sprintf("%s is not published: upstream has no version of it that is not held back, and none of before is left", prod.Name))
		}
	}
	return warnings
}

// plan returns a plan without anything that is broken.
func (p *planner) plan() *Plan {
	for {
		plan := p.draft()
		clash, found := plan.addFiles(p)
		if !found {
			return plan
		}
		p.leaveOut(clash, "another version has another content under one of its paths or sums")
	}
}

// planOf is plan, for a sync from a tree if t is not nil.
func (p *planner) planOf(t *Tree) *Plan {
	if t == nil {
		return p.plan()
	}
	plan := p.planFrom(t)
	if p.s.all() {
		plan.addAhead(p, t)
	}
	return plan
}

// draft is a plan whose files are not known yet.
func (p *planner) draft() *Plan {
	plan := &Plan{Stream: p.s.Name, Upstream: shown(p.c.base), base: p.c.base, profile: p.profile(), Warnings: slices.Concat(p.c.warnings, p.idle)}
	p.carried = map[versionID]*list{}
	if p.s.all() {
		p.addSelected(plan)
	} else {
		p.addLists(plan)
	}
	plan.LeftOut = slices.SortedFunc(maps.Values(p.broken), Omission.compare)
	plan.LeftOut = append(plan.LeftOut, slices.SortedFunc(maps.Values(p.lost), Omission.compare)...)
	plan.count()
	return plan
}

// addLists adds what is wanted of upstream's lists, and what stays from before.
func (p *planner) addLists(plan *Plan) {
	for _, li := range p.c.lists {
		if !unwanted(li.products, plan.profile) {
			before := len(plan.lists)
			p.addList(plan, li.entry, p.choose(li.products))
			plan.Warnings = append(plan.Warnings, p.lostToHolds(li.products, plan.lists[before:])...)
		}
	}
	p.addVanishedLists(plan)
	plan.evidence = p.evidenceFor(plan)
}

// addSelected adds what is to be here of a stream that advertises all of upstream's.
// What clients make of its metadata is upstream's business, and nothing stays from
// before that it does not name.
func (p *planner) addSelected(plan *Plan) {
	plan.Warnings = append(plan.Warnings, p.directory.warnings...)
	if len(p.selections) == 0 {
		return
	}
	for _, li := range p.c.lists {
		if li.products.DataType == notifications { // whose files no client asks for
			continue
		}
		if chosen := p.served(li.products); len(chosen.Products) > 0 {
			plan.entries = append(plan.entries, li.entry)
			plan.lists = append(plan.lists, chosen)
		}
	}
}

// served returns what is wanted of a list, without versions of which a path stands for
// the content of another one.
func (p *planner) served(l *streams.Products) *streams.Products {
	for {
		chosen := p.newest(p.choose(l))
		before := len(p.broken)
		for _, prod := range chosen.Products {
			for _, v := range prod.Versions {
				if p.directory.serves(v) {
					continue
				}
				id := versionID{l.ContentID, prod.Name, v.Name}
				o := id.omission("a newer version has another content under one of its paths")
				o.refused = true
				p.broken[id] = o
			}
		}
		if len(p.broken) == before {
			return chosen
		}
	}
}

// leaveOut notes that a version cannot be published, for the next plan.
func (p *planner) leaveOut(id versionID, reason string) {
	if p.carried[id] != nil {
		p.lost[id] = id.omission(reason)
	} else {
		p.broken[id] = id.omission(reason)
	}
}

func (p *planner) maas() bool { return p.s.maas(p.c.index) }

func (p *planner) profile() streams.Profile { return p.s.profile(p.c.index) }

// maas reports whether what the index leads to is for MAAS.
func (s Stream) maas(x *streams.Index) bool {
	return s.Kind == KindMAAS || s.Kind == "" && x.MAAS()
}

// profile says whose rules the metadata that the index leads to has to meet.
func (s Stream) profile(x *streams.Index) streams.Profile {
	switch {
	case !s.maas(x):
		return streams.Plain
	case s.Profile == "":
		return streams.All
	}
	return s.Profile
}

// choose returns what is wanted of one of upstream's lists.
func (p *planner) choose(l *streams.Products) *streams.Products {
	c := p.choice(l)
	c.Skip = func(at streams.Pedigree) bool {
		_, broken := p.broken[versionID{l.ContentID, at.Product, at.Version}]
		return broken
	}
	return l.Choose(c)
}

// empty returns ErrNothing for a plan that is not to be published: one without
// anything that the selections ask for, boot loaders that come with each of them
// aside, or of an upstream that has no files.
func (p *planner) empty(plan *Plan) error {
	switch {
	case p.s.all() && len(p.directory.names) == 0:
		return fmt.Errorf("%w: upstream's metadata names no file", ErrNothing)
	case p.s.all() || p.selected(plan):
		return nil
	case len(plan.LeftOut) > 0:
		return fmt.Errorf("%w: none of the selected versions could be published; the first: %s", ErrNothing, plan.LeftOut[0])
	}
	if len(p.heldBack) > 0 {
		return fmt.Errorf("%w: the selection matches none of upstream's products, or what it matches is held back", ErrNothing)
	}
	return fmt.Errorf("%w: the selection matches none of upstream's products", ErrNothing)
}

func (p *planner) selected(plan *Plan) bool {
	for _, l := range plan.lists {
		for _, prod := range l.Products {
			for _, v := range prod.Versions {
				if slices.ContainsFunc(v.Items, func(it *streams.Item) bool { return p.selections.Matches(l, prod, v, it) }) {
					return true
				}
			}
		}
	}
	return false
}

func (p *planner) choice(l *streams.Products) streams.Choice {
	if l.DataType == notifications {
		return streams.Choice{} // MAAS wants every one, whatever is selected
	}
	return streams.Choice{Selections: p.selections, Hold: p.hold, Bootloaders: p.maas() && !p.s.NoBootloaders}
}

// unwanted reports whether l is a list of release notifications that the
// profile does without: MAAS 3.8 refuses an index that names one.
func unwanted(l *streams.Products, p streams.Profile) bool {
	return l.DataType == notifications && (p == streams.All || p == streams.V38)
}

// addList adds a list to the plan: of the chosen versions those that the
// profile's clients take, those that stay from before, and of all these the
// newest.
func (p *planner) addList(plan *Plan, e *streams.Entry, chosen *streams.Products) {
	conforming, findings := conform(chosen, plan.profile)
	p.refuse(p.newest(conforming), chosen, conforming, findings)
	p.carry(conforming)
	conforming, findings = conform(conforming, plan.profile)
	for _, f := range findings {
		plan.Warnings = append(plan.Warnings, f.String())
	}
	conforming = p.newest(conforming)
	if len(conforming.Products) == 0 {
		return
	}
	plan.entries = append(plan.entries, e)
	plan.lists = append(plan.lists, conforming)
}

// conform is Conform, but for a list that is empty, before or after: that is no
// fault here.
func conform(l *streams.Products, profile streams.Profile) (*streams.Products, []streams.Finding) {
	if len(l.Products) == 0 {
		return l, nil
	}
	conforming, findings := l.Conform(profile)
	if conforming == nil {
		return l.Choose(nothingChosen), findings
	}
	return conforming, findings
}

// newest returns the list with as many versions of each product as are kept.
func (p *planner) newest(l *streams.Products) *streams.Products {
	if p.s.MaxVersions == 0 {
		return l
	}
	return l.Choose(streams.Choice{MaxVersions: p.s.MaxVersions})
}

// refuse marks the chosen versions as broken that the profile's clients would
// refuse, unless newer ones would have taken their place anyway.
func (p *planner) refuse(kept, chosen, conforming *streams.Products, findings []streams.Finding) {
	for _, prod := range chosen.Products {
		for _, v := range prod.Versions {
			if conforming.Version(prod.Name, v.Name) != nil || p.outdated(kept.Product(prod.Name), v.Name) {
				continue
			}
			id := versionID{chosen.ContentID, prod.Name, v.Name}
			o := id.omission(whyRefused(id, findings))
			o.refused = true
			p.broken[id] = o
		}
	}
}

// outdated reports whether there are versions enough that are newer.
func (p *planner) outdated(kept *streams.Product, version string) bool {
	return p.s.MaxVersions > 0 && kept != nil && len(kept.Versions) == p.s.MaxVersions &&
		!slices.ContainsFunc(kept.Versions, func(v *streams.Version) bool { return v.Name <= version })
}

// whyRefused says why a version does not conform, by the finding nearest to it.
func whyRefused(id versionID, findings []streams.Finding) string {
	var best *streams.Finding
	for i, f := range findings {
		about := (f.Pedigree.Product == "" || f.Pedigree.Product == id.product) && (f.Pedigree.Version == "" || f.Pedigree.Version == id.version)
		if about && (best == nil || len(f.Pedigree.Version) > len(best.Pedigree.Version)) {
			best = &findings[i]
		}
	}
	if best == nil {
		return "MAAS would refuse it"
	}
	return fmt.Sprintf("MAAS %s would refuse it: %s", best.Profile, best.Problem)
}
