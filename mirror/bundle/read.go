package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"oxbow/cache"
	"oxbow/streams"
)

var (
	// ErrForeign: the bundle is signed by a key that is not trusted.
	ErrForeign = errors.New("signed by a key that is not trusted here")

	// ErrDamaged: the volume is not what its table of contents says. Carry it again.
	ErrDamaged = errors.New("the volume is damaged")

	// ErrNotBundle: it is something else.
	ErrNotBundle = errors.New("this is no oxbow bundle")
)

// A Reader reads a volume from its beginning to its end.
type Reader struct {
	Contents *Contents
	Signed   []byte           // contents.asc, byte for byte
	Keyring  []byte           // the site's, as it came
	Signer   *streams.Signed  // who signed, and when
	Site     *streams.Keyring // Keyring

	tr      *tar.Reader
	members []Member // that are still to come
	number  int      // of the volume; 0 as long as that is not known
	current *proving // of the member that was read last; nil: none
}

// Trust decides about the key that signed a table of contents: by its fingerprint, given the keyring that came with it. It returns
// the keyring to verify by, which should not be the one that came unless somebody vouches for that.
type Trust func(site *streams.Keyring) (*streams.Keyring, error)

// AnySite is the [Trust] of who takes whatever key came with a volume: who signed is told, and what that is worth judged elsewhere.
func AnySite(site *streams.Keyring) (*streams.Keyring, error) { return site, nil }

// NewReader begins to read a volume. Nothing in it is believed before its table of contents is verified by what trust returns.
func NewReader(r io.Reader, trust Trust, now time.Time) (*Reader, error) {
	b := &Reader{tr: tar.NewReader(r)}
	var err error
	if b.Keyring, err = b.small(siteFile, MaxSmall); err != nil {
		return nil, err
	}
	if b.Site, err = streams.ReadKeyring(b.Keyring); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, siteFile, err)
	}
	if b.Signed, err = b.small(contentsFile, streams.MaxDocument); err != nil {
		return nil, err
	}
	ring, err := trust(b.Site)
	if err != nil {
		return nil, err
	}
	if b.Signer, err = ring.Verify(b.Signed, now); err != nil {
		if errors.Is(err, streams.ErrUnknownKey) || errors.Is(err, streams.ErrKeyExpired) || errors.Is(err, streams.ErrKeyRevoked) {
			return nil, fmt.Errorf("%w: %w", ErrForeign, err)
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, contentsFile, err)
	}
	if b.Contents, err = Parse(b.Signer.Text); err != nil {
		return nil, err
	}
	if b.Contents.Site != b.Signer.Fingerprint {
		return nil, fmt.Errorf("%w: it says that %s signed it, and %s did", ErrContents, b.Contents.Site, b.Signer.Fingerprint)
	}
	for _, m := range b.Contents.Members {
		if m.Volume == 0 {
			b.members = append(b.members, m)
		}
	}
	if first := b.members[0]; first.Size != int64(len(b.Keyring)) || first.Digest != cache.Sum(b.Keyring) {
		return nil, fmt.Errorf("%w: %s is not what the table of contents says", ErrDamaged, siteFile)
	}
	b.members = b.members[1:]
	return b, nil
}

// small reads a member that has to come next and is not in a table of contents yet.
func (b *Reader) small(name string, limit int64) ([]byte, error) {
	h, err := b.header()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: it ends before %s: %w", ErrDamaged, name, unexpected(err))
	}
	if err != nil || h.Name != name {
		return nil, fmt.Errorf("%w: it does not begin with %s and %s", ErrNotBundle, siteFile, contentsFile)
	}
	if h.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, more than %d", ErrDamaged, name, h.Size, limit)
	}
	data, err := io.ReadAll(b.tr)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return data, nil
}

// header reads the header of the next member, which has to be a plain file.
func (b *Reader) header() (*tar.Header, error) {
	h, err := b.tr.Next()
	if err != nil {
		return nil, err
	}
	if h.Typeflag != tar.TypeReg || h.Linkname != "" {
		return nil, fmt.Errorf("%w: %.200q is no plain file", ErrDamaged, h.Name)
	}
	for key := range h.PAXRecords {
		if key != "size" {
			return nil, fmt.Errorf("%w: %.200q has a pax record %.40q", ErrDamaged, h.Name, key)
		}
	}
	return h, nil
}

// Number returns which volume this is; 0 as long as that was not read.
func (b *Reader) Number() int { return b.number }

// Next returns the next member and its bytes. What the table of contents says of it is proven at the end of them, by an error in place
// of io.EOF; what is not read is proven by the next call, unless Skip was called. At the end of the volume the error is io.EOF.
func (b *Reader) Next() (Member, io.Reader, error) {
	if b.current != nil {
		if _, err := io.Copy(io.Discard, b.current); err != nil {
			return Member{}, nil, err
		}
		b.current = nil
	}
	h, err := b.header()
	if err == io.EOF {
		return Member{}, nil, b.end()
	}
	if errors.Is(err, ErrDamaged) {
		return Member{}, nil, err
	}
	if err != nil {
		return Member{}, nil, fmt.Errorf("%w: %w", ErrDamaged, unexpected(err))
	}
	if b.number == 0 && len(b.members) == 0 {
		b.begin(h.Name)
	}
	if len(b.members) == 0 {
		return Member{}, nil, fmt.Errorf("%w: it has %.200q, which its table of contents does not have there", ErrDamaged, h.Name)
	}
	m := b.members[0]
	if h.Name != m.Path || h.Size != m.Size {
		return Member{}, nil, fmt.Errorf("%w: it has %.200q of %d bytes where its table of contents has %s of %d", ErrDamaged, h.Name, h.Size, m.Path, m.Size)
	}
	b.members = b.members[1:]
	b.current = &proving{m: m, r: b.tr, h: sha256.New()}
	return m, b.current, nil
}

// begin takes down which volume this is.
func (b *Reader) begin(name string) {
	for n := 1; n <= b.Contents.Volumes; n++ {
		if name == VolumePath(n) {
			b.number = n
		}
	}
	for _, m := range b.Contents.Members {
		if m.Volume == b.number && b.number > 0 {
			b.members = append(b.members, m)
		}
	}
}

// end is io.EOF if nothing is missing.
func (b *Reader) end() error {
	if b.number > 0 && len(b.members) == 0 {
		return io.EOF
	}
	next := volumesDir
	if len(b.members) > 0 {
		next = b.members[0].Path
	}
	return fmt.Errorf("%w: it ends before %s", ErrDamaged, next)
}

// Skip has the rest of the current member passed over unread, and unproven: a file that can seek is not read.
func (b *Reader) Skip() { b.current = nil }

// Proven says that the caller proves the current member itself, which Next then does not.
func (b *Reader) Proven() {
	if b.current != nil {
		b.current.h = nil
	}
}

// unexpected is err, but for an end that should not be there yet.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// proving reads a member, and proves it at its end.
type proving struct {
	m   Member
	r   io.Reader
	h   hash.Hash // nil: the caller proves it
	n   int64
	err error // at the end
}

func (p *proving) Read(buf []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.r.Read(buf)
	p.n += int64(n)
	if p.h != nil {
		p.h.Write(buf[:n])
	}
	switch {
	case err == io.EOF && p.n < p.m.Size:
		err = fmt.Errorf("%w: %s ends after %d of %d bytes", ErrDamaged, p.m.Path, p.n, p.m.Size)
	case err == io.EOF && p.h != nil:
		if got := cache.Digest(p.h.Sum(nil)); got != p.m.Digest {
			err = fmt.Errorf("%w: %s: want sha256 %v, got %v", ErrDamaged, p.m.Path, p.m.Digest, got)
		}
	case err != nil && err != io.EOF:
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, p.m.Path, unexpected(err))
	}
	p.err = err
	return n, err
}

// Decompress returns the document that a member is, of up to limit bytes. Its digest is the one in its name.
func Decompress(m Member, r io.Reader, limit int64) ([]byte, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)+1<<20), zstd.WithDecoderMaxWindow(32<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var data bytes.Buffer
	n, err := io.Copy(&data, io.LimitReader(z, limit+1))
	switch {
	case errors.Is(err, ErrDamaged):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, m.Path, err)
	case n > limit:
		return nil, fmt.Errorf("%w: %s has more than %d bytes when it is decompressed", ErrDamaged, m.Path, limit)
	}
	if got := cache.Sum(data.Bytes()); got != m.Content() {
		return nil, fmt.Errorf("%w: %s has the content %v", ErrDamaged, m.Path, got)
	}
	return data.Bytes(), nil
}

// Whole returns how many members of a volume of the bundle with that id are whole at the beginning of r, contents.asc included: what
// an export that was interrupted has written. Of the zeros behind the last some may be missing. It proves each of them, and not who
// signed. The error says that r begins otherwise; a file that ends within its table of contents has no member, and no error.
func Whole(r io.Reader, id cache.Digest) (int, error) {
	b, err := NewReader(r, AnySite, time.Now())
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if got := b.Contents.ID(); got != id {
		return 0, fmt.Errorf("it is of bundle %v", got)
	}
	for n := 2; ; n++ {
		_, data, err := b.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, data)
		}
		if err != nil {
			return n, nil
		}
	}
}
