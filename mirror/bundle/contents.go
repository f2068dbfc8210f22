package bundle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"oxbow/cache"
)

const (
	format = "oxbow bundle 1"

	// MaxVolumes bounds the volumes of a bundle.
	MaxVolumes = 10000

	// maxContents bounds the text of a table of contents in bytes: some hundred thousand members.
	maxContents = 48 << 20

	// maxMember bounds a member in bytes.
	maxMember = 1 << 42

	// maxShared bounds the members in bytes that are in every volume, together: a reader may hold them all. The whole of
	// images.maas.io has a few megabytes.
	maxShared = 256 << 20
)

// Contents is the table of contents of a bundle.
type Contents struct {
	MadeBy    string    // the program, such as "oxbow 1.2.0"
	Created   time.Time // of the newest snapshot, in whole seconds
	Site      string    // fingerprint of the key that signs, upper-case hex
	Snapshots []Snapshot
	Needs     []Need
	Volumes   int
	Members   []Member // those that are in every volume, then those of each volume
}

// A Snapshot is one that a bundle brings.
type Snapshot struct {
	Stream string
	ID     cache.Digest
	Since  cache.Digest // what has to be there already; zero: nothing
}

// A Need is a blob that a bundle's snapshots name and that has to be there already.
type Need struct {
	Digest cache.Digest
	Size   int64
}

// ErrContents is in the chain of every error about the text of a table of contents.
var ErrContents = errors.New("malformed table of contents")

// ID returns the bundle's id.
func (c *Contents) ID() cache.Digest { return cache.Sum(c.Encode()) }

// Volume returns what a volume has, in its order, but for contents.asc.
func (c *Contents) Volume(n int) (members []Member) {
	for _, m := range c.Members {
		if m.Volume == 0 || m.Volume == n {
			members = append(members, m)
		}
	}
	return members
}

// Files returns the members below files/, and their bytes.
func (c *Contents) Files() (n int, bytes int64) {
	for _, m := range c.Members {
		if strings.HasPrefix(m.Path, filesDir) {
			n++
			bytes += m.Size
		}
	}
	return n, bytes
}

// Encode returns the text.
func (c *Contents) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n# made by %s\n# created %s\n# site %s\n", format, c.MadeBy, c.Created.UTC().Format(time.RFC3339), c.Site)
	for _, s := range c.Snapshots {
		since := "nothing"
		if !s.Since.IsZero() {
			since = s.Since.String()
		}
		fmt.Fprintf(&b, "# snapshot %s %v since %s\n", s.Stream, s.ID, since)
	}
	for _, n := range c.Needs {
		fmt.Fprintf(&b, "# needs %v %d\n", n.Digest, n.Size)
	}
	fmt.Fprintf(&b, "# volumes %d\n# in every volume\n", c.Volumes)
	volume := 0
	for _, m := range c.Members {
		for volume < m.Volume {
			volume++
			fmt.Fprintf(&b, "# in volume %d\n", volume)
		}
		fmt.Fprintf(&b, "# %d\n%v  %s\n", m.Size, m.Digest, m.Path)
	}
	return b.Bytes()
}

// Parse accepts only what [Contents.Encode] returns of contents that make sense.
func Parse(text []byte) (*Contents, error) {
	if len(text) > maxContents {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrContents, maxContents)
	}
	p := &parser{lines: bufio.NewScanner(bytes.NewReader(text)), c: &Contents{}}
	p.lines.Buffer(nil, 8<<10)
	p.contents()
	if p.err == nil && p.more {
		p.fail("nothing should follow")
	}
	if p.err == nil {
		p.err = p.c.check()
	}
	if p.err == nil && !bytes.Equal(p.c.Encode(), text) {
		p.err = errors.New("it is not as it would be written")
	}
	if p.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContents, p.err)
	}
	return p.c, nil
}

// A parser reads a table of contents line by line. After an error it reads nothing.
type parser struct {
	lines *bufio.Scanner
	n     int
	line  string // the next one
	more  bool   // there is a next one
	err   error
	c     *Contents
}

func (p *parser) fail(problem string) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %s", p.n, problem)
	}
}

// next goes on to the next line.
func (p *parser) next() {
	p.more = p.lines.Scan()
	p.line = p.lines.Text()
	p.n++
	if err := p.lines.Err(); err != nil {
		p.fail(err.Error())
	}
}

// is reports whether the next line begins with prefix, and returns the rest.
func (p *parser) is(prefix string) (rest string, ok bool) {
	if p.err != nil || !p.more {
		return "", false
	}
	return strings.CutPrefix(p.line, prefix)
}

// want is is for a line that has to be there, and goes on.
func (p *parser) want(prefix string) string {
	rest, ok := p.is(prefix)
	if !ok {
		p.fail("want " + strconv.Quote(prefix))
		return ""
	}
	p.next()
	return rest
}

func (p *parser) contents() {
	p.next()
	if p.want("# "+format) != "" {
		p.fail("unknown version")
	}
	p.c.MadeBy = p.want("# made by ")
	var err error
	if p.c.Created, err = time.Parse(time.RFC3339, p.want("# created ")); err != nil {
		p.fail("no time")
	}
	p.c.Created = p.c.Created.UTC()
	p.c.Site = p.want("# site ")
	for rest, ok := p.is("# snapshot "); ok; rest, ok = p.is("# snapshot ") {
		p.snapshot(rest)
		p.next()
	}
	for rest, ok := p.is("# needs "); ok; rest, ok = p.is("# needs ") {
		digest, size, _ := strings.Cut(rest, " ")
		p.c.Needs = append(p.c.Needs, Need{p.digest(digest), p.size(size)})
		p.next()
	}
	p.c.Volumes = int(p.size(p.want("# volumes ")))
	if p.want("# in every volume") != "" {
		p.fail("no section")
	}
	p.members(0)
	for n := 1; p.err == nil && n <= min(p.c.Volumes, MaxVolumes); n++ {
		if p.want(fmt.Sprintf("# in volume %d", n)) != "" {
			p.fail("no section")
		}
		p.members(n)
	}
}

func (p *parser) members(volume int) {
	for rest, ok := p.is("# "); ok && !strings.HasPrefix(rest, "in "); rest, ok = p.is("# ") {
		size := p.size(rest)
		p.next()
		digest, path, _ := strings.Cut(p.want(""), "  ")
		p.c.Members = append(p.c.Members, Member{path, p.digest(digest), size, volume})
	}
}

func (p *parser) snapshot(text string) {
	words := strings.Split(text, " ")
	if len(words) != 4 || words[2] != "since" {
		p.fail("want a stream, an id, and since what")
		return
	}
	s := Snapshot{Stream: words[0], ID: p.digest(words[1])}
	if words[3] != "nothing" {
		s.Since = p.digest(words[3])
	}
	p.c.Snapshots = append(p.c.Snapshots, s)
}

func (p *parser) digest(s string) cache.Digest {
	d, err := cache.ParseDigest(s)
	if err != nil {
		p.fail(err.Error())
	}
	return d
}

func (p *parser) size(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > maxMember {
		p.fail(fmt.Sprintf("malformed size %.40q", s))
		return 0
	}
	return n
}

// check reports what makes no sense: names that no bundle has, twice the same, files that no snapshot can have.
func (c *Contents) check() error {
	if c.Volumes < 1 || c.Volumes > MaxVolumes {
		return fmt.Errorf("%d volumes are not 1 to %d", c.Volumes, MaxVolumes)
	}
	streams := map[string]cache.Digest{}
	for _, s := range c.Snapshots {
		if !isName(s.Stream) || !streams[s.Stream].IsZero() {
			return fmt.Errorf("stream %.100q is malformed, or there twice", s.Stream)
		}
		streams[s.Stream] = s.ID
	}
	if len(streams) == 0 {
		return errors.New("it brings no snapshot")
	}
	seen := make(map[string]bool, len(c.Members))
	first := map[int]string{} // the first member of each volume
	shared := int64(0)
	for i, m := range c.Members {
		if first[m.Volume] == "" {
			first[m.Volume] = m.Path
		}
		if m.Volume == 0 {
			shared += min(m.Size, maxShared+1)
		}
		if shared > maxShared {
			return fmt.Errorf("what is in every volume has more than %d bytes", maxShared)
		}
		if seen[m.Path] {
			return fmt.Errorf("%s is there twice", m.Path)
		}
		seen[m.Path] = true
		if (i == 0) != (m.Path == siteFile) {
			return errors.New(siteFile + " has to come first")
		}
		if err := c.checkMember(m, streams); err != nil {
			return err
		}
	}
	for n := 1; n <= c.Volumes; n++ {
		if first[n] != VolumePath(n) {
			return fmt.Errorf("volume %d does not begin with %s", n, VolumePath(n))
		}
	}
	for _, s := range c.Snapshots {
		if !seen[SnapshotPath(s.Stream, s.ID)] {
			return fmt.Errorf("the manifest of snapshot %v is not in it", s.ID)
		}
	}
	return nil
}

// checkMember reports a member with a name that it cannot have, or in a volume where it cannot be.
func (c *Contents) checkMember(m Member, streams map[string]cache.Digest) error {
	ok := false
	switch m.Kind() {
	case KindFile:
		ok = m.Path == FilePath(m.Digest) && m.Volume > 0
	case KindVolume:
		ok = m.Path == VolumePath(m.Volume)
	case KindDocument:
		ok = m.Path == DocumentPath(m.Content()) && m.Volume == 0
	case KindSnapshot:
		stream, _ := m.Stream()
		ok = m.Volume == 0 && streams[stream] == m.Content() && m.Path == SnapshotPath(stream, m.Content())
	case KindHandover, KindKeys, KindStream:
		stream, _ := m.Stream()
		ok = m.Volume == 0 && m.Size <= MaxSmall && (m.Path == siteFile || !streams[stream].IsZero())
	}
	if !ok {
		return fmt.Errorf("%.200q is no member that a bundle has in its place", m.Path)
	}
	return nil
}

// isName accepts the names that streams may have.
func isName(s string) bool {
	return s != "" && len(s) <= 100 && s[0] != '.' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}
