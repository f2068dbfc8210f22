package streams

import (
	"fmt"
	"slices"
	"strings"
)

// A Profile says whose rules metadata must meet. Every profile includes the
// rules of the format.
type Profile string

const (
	Legacy Profile = "legacy" // MAAS 2.9 to 3.7, which read with python simplestreams
	V38    Profile = "3.8"    // MAAS 3.8, which has a client and models of its own
	All    Profile = "all"    // both
	Plain  Profile = "plain"  // the format alone
)

// ParseProfile returns the profile of that name.
func ParseProfile(s string) (Profile, error) {
	if p := Profile(s); p == Legacy || p == V38 || p == All || p == Plain {
		return p, nil
	}
	return "", fmt.Errorf("unknown profile %q: want legacy, 3.8, all or plain", s)
}

// includes reports whether rules of profile q hold for p.
func (p Profile) includes(q Profile) bool { return q == Plain || p == All || p == q }

// A Finding is a rule that metadata breaks.
type Finding struct {
	Profile   Profile // whose rule: Legacy, V38 or Plain
	ContentID string  // of the list or index entry, empty for the index itself
	Pedigree  Pedigree
	Problem   string // what is wrong and who minds
	Fatal     bool   // the client refuses the whole source because of it
}

// String returns the place and the problem in one line.
func (f Finding) String() string {
	parts := []string{"index", f.Pedigree.String(), f.Problem}
	if f.ContentID != "" {
		parts[0] = f.ContentID
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// Lint returns the rules of profile p that the index and its lists break: at
// most one finding a profile for each list, product, version and item, in the
// order of the documents. x may be nil.
func Lint(x *Index, lists []*Products, p Profile) []Finding {
	found := lintIndex(x, lists, p)
	for _, l := range lists {
		found = append(found, l.lint(p)...)
	}
	return found
}

func (l *Products) lint(profile Profile) []Finding {
	c := newChecker(l, profile)
	found := c.findings(listRules, place{list: l})
	for _, p := range l.Products {
		at := c.place(p)
		found = append(found, c.productFindings(at)...)
		for _, v := range p.Versions {
			found = append(found, c.versionFindings(at, v)...)
		}
	}
	return found
}

// A place is what a rule looks at: a part of a list with all that is above it.
type place struct {
	list    *Products
	product *Product
	version *Version
	item    *Item
	shape   shape // what MAAS 3.8 takes the product for
}

func (at place) pedigree() (p Pedigree) {
	if at.product != nil {
		p.Product = at.product.Name
	}
	if at.version != nil {
		p.Version = at.version.Name
	}
	if at.item != nil {
		p.Item = at.item.Name
	}
	return p
}

// A rule looks at one place and says what is wrong there, "" if nothing is.
type rule struct {
	profile Profile
	fatal   bool
	problem func(place) string
}

// A checker applies the rules of a profile to one list.
type checker struct {
	list    *Products
	profile Profile
	shape   shape // what MAAS 3.8 takes the list for
}

func newChecker(l *Products, p Profile) *checker {
	c := &checker{list: l, profile: p}
	if p.includes(V38) {
		c.shape = l.shape()
	}
	return c
}

func (c *checker) place(p *Product) place {
	at := place{list: c.list, product: p}
	if c.profile.includes(V38) {
		at.shape = c.list.productShape(p, c.shape)
	}
	return at
}

// findings applies rules to one place: the first broken rule of each profile.
func (c *checker) findings(rules []rule, at place) (found []Finding) {
	for _, r := range rules {
		if !c.profile.includes(r.profile) || slices.ContainsFunc(found, func(f Finding) bool { return f.Profile == r.profile }) {
			continue
		}
		if problem := r.problem(at); problem != "" {
			found = append(found, Finding{r.profile, c.list.ContentID, at.pedigree(), problem, r.fatal})
		}
	}
	return found
}

// productFindings applies the rules of products, and that of lists of one
// shape first.
func (c *checker) productFindings(at place) []Finding {
	if c.profile.includes(V38) && at.shape != c.shape {
		return []Finding{c.misplaced(at)}
	}
	return c.findings(productRules, at)
}

// versionFindings applies the rules of versions and items to v and its items.
func (c *checker) versionFindings(at place, v *Version) []Finding {
	at.version = v
	found := c.findings(versionRules, at)
	for _, it := range v.Items {
		at.item = it
		found = append(found, c.findings(itemRules, at)...)
	}
	return found
}
