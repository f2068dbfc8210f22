package mirror

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"oxbow/cache"
	"oxbow/streams"
)

// A Plan says what a sync is going to publish and what it has to fetch for
// that. It is made from upstream's verified metadata, the stream's definition
// and what the store holds; making one changes nothing.
type Plan struct {
	Stream     string        `json:"stream"`
	Upstream   string        `json:"upstream"` // the source whose metadata was read
	NothingNew bool          `json:"nothing_new"`
	Products   int           `json:"products"`
	Versions   int           `json:"versions"`
	Items      int           `json:"items"`
	Kept       Amount        `json:"kept"`  // files that the store has
	Fetch      Amount        `json:"fetch"` // files to be fetched
	LeftOut    []Omission    `json:"left_out,omitempty"`
	Warnings   []string      `json:"warnings,omitempty"`
	Lists      []PlannedList `json:"lists,omitempty"`

	profile  streams.Profile
	entries  []*streams.Entry // of the lists, in the same order
	lists    []*streams.Products
	evidence []list // older documents that vouch for carried versions
	carried  map[pedigree]bool
	files    []*file // distinct contents, largest first
	byPath   map[streams.Path]*file
}

// An Amount counts distinct files.
type Amount struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (a *Amount) add(n int64) { a.Files++; a.Bytes += n }

// A PlannedList names the versions of one list that are going to be published.
type PlannedList struct {
	ContentID string           `json:"content_id"`
	Products  []PlannedProduct `json:"products"`
}

type PlannedProduct struct {
	Name     string   `json:"name"`
	Versions []string `json:"versions"`
}

// An Omission is something selected that is not published, and why.
type Omission struct {
	ContentID string `json:"content_id"`
	Product   string `json:"product,omitempty"`
	Version   string `json:"version,omitempty"`
	Item      string `json:"item,omitempty"`
	Reason    string `json:"reason"`
}

func (o Omission) String() string {
	return fmt.Sprintf("%s %s: %s", o.ContentID, streams.Pedigree{Product: o.Product, Version: o.Version, Item: o.Item}, o.Reason)
}

// pedigree names a version within the whole stream.
type pedigree struct{ contentID, product, version string }

// A file is one distinct content that the published metadata will name.
type file struct {
	key    string // contentKey
	want   cache.Want
	digest cache.Digest // zero until known
	have   bool
	paths  []streams.Path
	users  []pedigree // the versions that need it
}

// contentKey names a content by the strongest sum that upstream gives.
func contentKey(it *streams.Item) string {
	switch {
	case it.SHA256 != nil:
		return "sha256-" + hex.EncodeToString(it.SHA256)
	case it.SHA512 != nil:
		return "sha512-" + hex.EncodeToString(it.SHA512)
	}
	return fmt.Sprintf("md5-%x-%d", it.MD5, it.Size)
}

func wanted(it *streams.Item) cache.Want {
	w := cache.Want{Size: it.Size, SHA512: it.SHA512, MD5: it.MD5}
	copy(w.SHA256[:], it.SHA256)
	return w
}

// notifications is the datatype of lists that are no images: what MAAS up to
// 3.7 shows its users about new releases of itself.
const notifications = "release-notifications"

// planner makes a plan. Broken versions are left out, and the previously
// published ones of their product stay.
type planner struct {
	m          *Mirror
	s          Stream
	c          *catalog
	prev       *published
	broken     map[pedigree]Omission // upstream's versions that cannot be had
	lost       map[pedigree]Omission // published versions that cannot be had any more
	selections streams.Selections
	offered    map[string]bool // every product that upstream lists
}

func (p *planner) plan() (*Plan, error) {
	var err error
	if p.selections, err = p.s.selections(); err != nil {
		return nil, err
	}
	p.offered = map[string]bool{}
	for _, li := range p.c.lists {
		for _, prod := range li.l.Products {
			p.offered[prod.Name] = true
		}
	}
	plan := &Plan{Stream: p.s.Name, Upstream: p.c.source, profile: p.profile(), carried: map[pedigree]bool{}, Warnings: slices.Clone(p.c.warnings)}
	for _, li := range p.c.lists {
		p.addList(plan, li.entry, p.choose(li.l))
	}
	p.addVanishedLists(plan)
	for _, o := range p.broken {
		plan.LeftOut = append(plan.LeftOut, o)
	}
	for _, o := range p.lost {
		plan.LeftOut = append(plan.LeftOut, o)
	}
	slices.SortFunc(plan.LeftOut, func(a, b Omission) int { return cmp.Compare(a.String(), b.String()) })
	plan.count()
	clash, err := p.addFiles(plan)
	if err != nil {
		return nil, err
	}
	if clash != nil {
		p.leaveOut(plan, *clash, "it names another content for a path of an earlier product")
		return p.plan()
	}
	return plan, nil
}

// leaveOut notes that a version of plan cannot be had, for the next plan.
func (p *planner) leaveOut(plan *Plan, ped pedigree, reason string) {
	o := Omission{ContentID: ped.contentID, Product: ped.product, Version: ped.version, Reason: reason}
	if plan.carried[ped] {
		p.lost[ped] = o
	} else {
		p.broken[ped] = o
	}
}

func (p *planner) maas() bool {
	return p.s.Kind == KindMAAS || p.s.Kind == "" && p.c.x.MAAS()
}

func (p *planner) profile() streams.Profile {
	switch {
	case !p.maas():
		return streams.Plain
	case p.s.Profile == "":
		return streams.All
	}
	return p.s.Profile
}

// choose returns what is wanted of one of upstream's lists.
func (p *planner) choose(l *streams.Products) *streams.Products {
	c := p.choice()
	c.Skip = func(ped streams.Pedigree) bool {
		_, broken := p.broken[pedigree{l.ContentID, ped.Product, ped.Version}]
		return broken
	}
	if l.DataType == notifications {
		// MAAS up to 3.7 wants every notification, whatever is selected.
		c.Selections = nil
	}
	return l.Choose(c)
}

func (p *planner) choice() streams.Choice {
	return streams.Choice{Selections: p.selections, Bootloaders: p.maas() && !p.s.NoBootloaders}
}

// addList adds a list to the plan: the chosen versions and those that stay from
// before, without what the profile's clients would refuse, and of the rest the
// newest.
func (p *planner) addList(plan *Plan, e *streams.Entry, chosen *streams.Products) {
	p.carry(plan, chosen)
	if len(chosen.Products) == 0 || unwanted(chosen, plan.profile) {
		return
	}
	conforming, findings := chosen.Conform(plan.profile)
	if conforming != nil && p.s.MaxVersions > 0 {
		conforming = conforming.Choose(streams.Choice{MaxVersions: p.s.MaxVersions})
	}
	for _, f := range findings {
		if !p.outdated(conforming, f.Pedigree) {
			plan.Warnings = append(plan.Warnings, fmt.Sprintf("left out, since MAAS %s refuses it: %s %s: %s", f.Profile, f.ContentID, f.Pedigree, f.Problem))
		}
	}
	if conforming == nil {
		return
	}
	plan.entries = append(plan.entries, e)
	plan.lists = append(plan.lists, conforming)
}

// outdated reports whether a version would not be kept anyway: there are newer
// ones enough.
func (p *planner) outdated(kept *streams.Products, at streams.Pedigree) bool {
	if kept == nil || at.Version == "" || p.s.MaxVersions == 0 {
		return false
	}
	prod := kept.Product(at.Product)
	return prod != nil && len(prod.Versions) == p.s.MaxVersions &&
		!slices.ContainsFunc(prod.Versions, func(v *streams.Version) bool { return v.Name <= at.Version })
}

// unwanted reports whether l is a list of release notifications that the
// profile does without: MAAS 3.8 refuses an index that names one.
func unwanted(l *streams.Products, p streams.Profile) bool {
	return l.DataType == notifications && (p == streams.All || p == streams.V38)
}

// carry lays the previously published versions into chosen that stay: all of
// a product that vanished upstream, and those beside a version that is left
// out now. Each needs the signed document that once listed it.
func (p *planner) carry(plan *Plan, chosen *streams.Products) {
	before := p.prev.list(chosen.ContentID)
	if before == nil {
		return
	}
	for _, prod := range before.Products {
		if p.offered[prod.Name] && !p.anyBroken(chosen.ContentID, prod.Name) {
			continue
		}
		for _, v := range prod.Versions {
			ped := pedigree{chosen.ContentID, prod.Name, v.Name}
			if _, gone := p.lost[ped]; gone || chosen.Version(prod.Name, v.Name) != nil {
				continue
			}
			p.carryVersion(plan, chosen, ped)
		}
	}
}

func (p *planner) anyBroken(contentID, product string) bool {
	for ped := range p.broken {
		if ped.contentID == contentID && ped.product == product {
			return true
		}
	}
	return false
}

func (p *planner) carryVersion(plan *Plan, chosen *streams.Products, ped pedigree) {
	voucher := p.prev.voucher(ped.contentID, ped.product, ped.version)
	if voucher == nil {
		return
	}
	// The selection may have changed since.
	still := voucher.l.Choose(p.choice())
	v := still.Version(ped.product, ped.version)
	if v == nil {
		return
	}
	chosen.AddVersion(still.Product(ped.product), v)
	plan.carried[ped] = true
	if !p.current(voucher.document) && !slices.ContainsFunc(plan.evidence, func(li list) bool { return li.digest == voucher.digest }) {
		plan.evidence = append(plan.evidence, *voucher)
	}
}

// current reports whether doc is one of upstream's documents of this plan.
func (p *planner) current(doc document) bool {
	return slices.ContainsFunc(p.c.lists, func(li list) bool { return li.digest == doc.digest })
}

// addVanishedLists keeps the published lists that upstream's index no longer names.
func (p *planner) addVanishedLists(plan *Plan) {
	for _, before := range p.prev.lists {
		if slices.ContainsFunc(p.c.lists, func(li list) bool { return li.l.ContentID == before.ContentID }) {
			continue
		}
		for i := range p.prev.evidence {
			li := &p.prev.evidence[i]
			if li.l.ContentID != before.ContentID {
				continue
			}
			nothing := li.l.Choose(streams.Choice{Skip: func(streams.Pedigree) bool { return true }})
			p.addList(plan, p.prev.entry(before.ContentID, li.path), nothing)
			break
		}
	}
}

func (plan *Plan) count() {
	for _, l := range plan.lists {
		pl := PlannedList{ContentID: l.ContentID}
		for _, prod := range l.Products {
			pp := PlannedProduct{Name: prod.Name}
			for _, v := range prod.Versions {
				pp.Versions = append(pp.Versions, v.Name)
				plan.Items += len(v.Items)
			}
			plan.Products++
			plan.Versions += len(prod.Versions)
			pl.Products = append(pl.Products, pp)
		}
		plan.Lists = append(plan.Lists, pl)
	}
}

// addFiles finds the distinct contents of the planned lists, and which of them
// the store has. A version that claims a path for another content than an
// earlier one is returned: one path cannot serve both.
func (p *planner) addFiles(plan *Plan) (clash *pedigree, err error) {
	byKey := map[string]*file{}
	byPath := map[streams.Path]*file{}
	for ped, it := range plan.items() {
		f := byPath[it.Path]
		if f != nil && !f.agrees(it) {
			return &ped, nil
		}
		if f == nil {
			key := contentKey(it)
			if f = byKey[key]; f == nil {
				f = &file{want: wanted(it), key: key}
				if err := p.m.locate(f); err != nil {
					return nil, err
				}
				byKey[key] = f
				plan.files = append(plan.files, f)
			}
			byPath[it.Path] = f
			f.paths = append(f.paths, it.Path)
		}
		if n := len(f.users); n == 0 || f.users[n-1] != ped {
			f.users = append(f.users, ped)
		}
	}
	plan.byPath = byPath
	for _, f := range plan.files {
		if f.have {
			plan.Kept.add(f.want.Size)
		} else {
			plan.Fetch.add(f.want.Size)
		}
	}
	slices.SortStableFunc(plan.files, func(a, b *file) int { return cmp.Compare(b.want.Size, a.want.Size) })
	return nil, nil
}

// agrees reports whether it can be the same content as f.
func (f *file) agrees(it *streams.Item) bool {
	same := func(a, b []byte) bool { return a == nil || b == nil || bytes.Equal(a, b) }
	var sum []byte
	if f.want.SHA256 != (cache.Digest{}) {
		sum = f.want.SHA256[:]
	}
	return f.want.Size == it.Size && same(sum, it.SHA256) && same(f.want.SHA512, it.SHA512) && same(f.want.MD5, it.MD5)
}

// items yields every item that is a file, with the version it belongs to.
func (plan *Plan) items() func(yield func(pedigree, *streams.Item) bool) {
	return func(yield func(pedigree, *streams.Item) bool) {
		for _, l := range plan.lists {
			for _, prod := range l.Products {
				for _, v := range prod.Versions {
					for _, it := range v.Items {
						if it.Path != "" && !yield(pedigree{l.ContentID, prod.Name, v.Name}, it) {
							return
						}
					}
				}
			}
		}
	}
}

// locate finds out whether the store has the file. Which content a sum other
// than SHA-256 stands for is a fact of the index: when that is lost, the file
// is fetched again.
func (m *Mirror) locate(f *file) error {
	f.digest = f.want.SHA256
	if f.digest == (cache.Digest{}) {
		note, err := m.store.Note("sum " + f.key)
		if errors.Is(err, cache.ErrMiss) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.digest, err = cache.ParseDigest(string(note)); err != nil {
			return nil
		}
	}
	f.have = m.store.Has(f.digest)
	return nil
}
