package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"oxbow/cache"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// maxLinks bounds the custody volumes that are within each other.
const maxLinks = 8

// A level is what one site has of its upstream's: lists that may vouch, and the custody volumes that are about these. That of the
// snapshot which is traced is the first, and each volume has one of its own.
type level struct {
	tr         *tracing
	texts      texts
	within     *chainLink   // the volume; nil: it is the snapshot's
	along      trust        // the keys that came along, in a volume
	keyless    error        // why there are none
	candidates []*candidate // the best ones first
	links      []*chainLink
}

// A chainLink is a custody volume of a level.
type chainLink struct {
	*HandedOn
	volume *openedCustody
	about  map[cache.Digest]bool
	depth  int    // how many volumes it is within
	level  *level // nil: not looked into yet
}

// A candidate is a list of upstream's that may vouch.
type candidate struct {
	Voucher
	digest   cache.Digest
	products *streams.Products
	refused  error                      // why it does not by the keyring that was asked for
	foreign  error                      // why it does not by the keys that came along
	byPath   map[string][]*streams.Item // nil: not looked for yet
}

// counts says why it does not count; nil: it does. Strict: only the keyring counts that was asked for.
func (c *candidate) counts(strict bool) error {
	if c.refused == nil || strict {
		return c.refused
	}
	return c.foreign
}

// names returns the items of a path.
func (c *candidate) names(path string) []*streams.Item {
	if c.byPath == nil {
		c.byPath = map[string][]*streams.Item{}
		for _, it := range c.products.Items() {
			c.byPath[string(it.Path)] = append(c.byPath[string(it.Path)], it)
		}
	}
	return c.byPath[path]
}

// newLevel reads upstream's lists: signed ones come first, of these the ones of this snapshot, and of these clearsigned ones.
func (tr *tracing) newLevel(f texts, man *cache.Manifest, within *chainLink) *level {
	l := &level{tr: tr, texts: f, within: within}
	if within != nil {
		l.along, l.keyless = within.volume.upstreamTrust()
	}
	for _, e := range man.Entries {
		switch {
		case e.Kind != cache.KindUpstream && e.Kind != cache.KindEvidence || strings.HasSuffix(e.Path, ".gpg"):
		case l.tr.room < 0 && (within != nil || isCustody(e)): // which was said
		case isCustody(e):
			if err := l.addLink(e); err != nil {
				l.fault("%s: %v", e.Path, err)
			}
		default:
			c, err := l.readCandidate(man, e)
			if err != nil {
				l.fault("%v", err)
			} else if c != nil {
				l.candidates = append(l.candidates, c)
			}
		}
	}
	rank := func(c *candidate) (n int) {
		if c.counts(false) != nil || c.Signed == nil {
			n += 4
		}
		if c.Kind != cache.KindUpstream {
			n += 2
		}
		if c.Apart != "" {
			n++
		}
		return n
	}
	slices.SortStableFunc(l.candidates, func(a, b *candidate) int { return cmp.Compare(rank(a), rank(b)) })
	slices.SortStableFunc(l.links, func(a, b *chainLink) int { return b.Created.Compare(a.Created) })
	return l
}

// read returns a document. In a volume it has no more bytes than the manifest says.
func (l *level) read(e cache.Entry) ([]byte, error) {
	if l.within == nil {
		return readEntry(l.texts, e)
	}
	if e.Size > streams.MaxDocument {
		return nil, fmt.Errorf("cannot read %s: it has %d bytes, more than %d", e.Path, e.Size, streams.MaxDocument)
	}
	if err := l.tr.take(e); err != nil {
		return nil, err
	}
	return readEntry(bounded{l.texts, e.Size}, e)
}

// bounded are texts of up to a size.
type bounded struct {
	texts
	size int64
}

func (b bounded) ReadFile(d cache.Digest, limit int64) ([]byte, error) {
	return b.texts.ReadFile(d, min(limit, b.size))
}

// take takes the bytes of an entry off what may be read of custody volumes.
func (tr *tracing) take(e cache.Entry) error {
	if tr.room -= e.Size; tr.room < 0 {
		return fmt.Errorf("cannot read %s: custody volumes and what is in them have more than %d bytes", e.Path, maxCustodyText)
	}
	return nil
}

// readCandidate returns nil for an index: it gives no sums of lists, and so vouches for nothing.
func (l *level) readCandidate(man *cache.Manifest, e cache.Entry) (*candidate, error) {
	data, err := l.read(e)
	if err != nil {
		return nil, err
	}
	list, err := parseList(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", e.Path, err)
	}
	if list == nil {
		return nil, nil
	}
	c := &candidate{Voucher: Voucher{Kind: e.Kind, Path: e.Path, Digest: e.Digest.String(), Updated: list.Updated}, digest: e.Digest, products: list}
	var apart []byte
	i := slices.IndexFunc(man.Entries, func(sig cache.Entry) bool { return sig.Kind == e.Kind && sig.Path == e.Path+".gpg" })
	if i >= 0 && !streams.IsClearsigned(data) {
		if apart, err = l.read(man.Entries[i]); err != nil {
			return nil, err
		}
		c.Apart = man.Entries[i].Path
	}
	l.judge(c, data, apart)
	return c, nil
}

// judge finds out who signed a candidate, and whether that counts.
func (l *level) judge(c *candidate, data, apart []byte) {
	if l.within == nil {
		c.Signed, c.refused = l.tr.trust.signature(data, apart, l.tr.now)
		c.foreign, c.Foreign = c.refused, c.refused != nil
		if c.refused != nil && l.tr.along != nil {
			c.Signed, _ = trust{keyring: l.tr.along}.signature(data, apart, l.tr.now) // nil: by whom cannot be told
		}
		return
	}
	if asked := l.tr.trust.keyring; asked == nil {
		c.refused = streams.ErrUnknownKey
	} else if c.Signed, c.refused = (trust{keyring: asked}).signature(data, apart, l.tr.now); c.refused == nil {
		return
	}
	if c.foreign = l.keyless; c.foreign == nil {
		c.Signed, c.foreign = l.along.signature(data, apart, l.tr.now)
	}
}

// addLink opens a custody volume. Whoever signed it: that is told, and what it says of upstream is proven by itself.
func (l *level) addLink(e cache.Entry) error {
	k := &chainLink{}
	if l.within != nil {
		k.depth = l.within.depth + 1
	}
	if k.depth >= maxLinks {
		return fmt.Errorf("more than %d custody volumes are within each other", maxLinks)
	}
	if err := l.tr.take(e); err != nil {
		return err
	}
	data, err := readEntry(bounded{l.texts, e.Size}, e)
	if err != nil {
		return err
	}
	v, err := openCustody(data, &l.tr.room, bundle.AnySite, time.Time{})
	if err != nil {
		return err
	}
	k.volume, k.about = v, v.about()
	k.HandedOn = &HandedOn{Path: e.Path, Digest: e.Digest.String(), Stream: v.snapshot.Stream, Snapshot: v.snapshot.ID.String(), Created: v.manifest.Created,
		Signed: Signature{v.signer.Fingerprint, v.signer.SignedBy, v.signer.Created, v.expired(l.tr.now)}, Known: l.tr.known[v.signer.Fingerprint], Handovers: v.handovers}
	l.links = append(l.links, k)
	return nil
}

// below returns the level in a volume.
func (l *level) below(k *chainLink) *level {
	if k.level == nil {
		k.level = l.tr.newLevel(k.volume, k.volume.manifest, k)
	}
	return k.level
}

// vouch returns the document that vouches for a version, and where that comes from: the first one counts that covers says to be good
// for all of its published files. The error says why there is none, or, with one, where its chain breaks.
func (l *level) vouch(id versionID, covers func(*streams.Version) bool, strict bool) (*candidate, *Origin, error) {
	var refused error
	for _, c := range l.candidates {
		v := c.products.Version(id.product, id.version)
		if c.products.ContentID != id.contentID || v == nil || !covers(v) {
			continue
		}
		why := c.counts(strict)
		origin, err := l.origin(c, id, covers, why != nil)
		if why == nil || origin != nil {
			return c, origin, err
		}
		if refused == nil {
			refused = fmt.Errorf("%s lists it, which does not count: %w", c.Path, why)
		}
	}
	if refused == nil {
		refused = errors.New("no document of upstream's that is here lists it as it is published")
	}
	return nil, nil, refused
}

// origin follows a document to where it comes from; nil without an error: no custody volume is about it.
func (l *level) origin(c *candidate, id versionID, covers func(*streams.Version) bool, strict bool) (*Origin, error) {
	var broken error
	for _, k := range l.links {
		if !k.about[c.digest] {
			continue
		}
		first, origin, err := l.below(k).vouch(id, covers, strict)
		if err == nil {
			return l.tr.through(k, first, origin), nil
		}
		if broken == nil {
			broken = fmt.Errorf("%s, by which site %s handed it on, does not vouch for it: %w", k.Path, k.Signed.Fingerprint, err)
		}
	}
	return nil, broken
}

// through returns the origin that a document has by way of a volume: what is the origin there or, where there is none, the document
// that vouches there.
func (tr *tracing) through(k *chainLink, first *candidate, origin *Origin) *Origin {
	o := Origin{Voucher: first.Voucher, Given: tr.given && first.refused == nil}
	if origin != nil {
		o = *origin
	}
	o.Through, o.HandedOn = append(slices.Clone(o.Through), k.Digest), append(slices.Clone(o.HandedOn), k.HandedOn)
	key := o.Digest + " " + strings.Join(o.Through, " ")
	if tr.origins[key] == nil {
		tr.origins[key] = &o
	}
	return tr.origins[key]
}

// countsFor reports whether a document counts that names a path, by itself or by where it comes from.
func (l *level) countsFor(c *candidate, path string, fits func(*streams.Item) bool, strict bool) bool {
	if c.counts(strict) == nil {
		return true
	}
	return slices.ContainsFunc(l.links, func(k *chainLink) bool {
		return k.about[c.digest] && l.below(k).names(path, fits)
	})
}

// names reports whether a document that the keyring's keys signed, or that comes from such a one, names a path as it is published.
func (l *level) names(path string, fits func(*streams.Item) bool) bool {
	return slices.ContainsFunc(l.candidates, func(c *candidate) bool {
		return slices.ContainsFunc(c.names(path), fits) && l.countsFor(c, path, fits, true)
	})
}

// fault notes what is wrong, and within which volumes.
func (l *level) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if l.within != nil {
		text = "in " + l.within.Path + ": " + text
	}
	l.tr.fault("%s", text)
}
