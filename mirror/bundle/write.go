package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"oxbow/cache"
)

// Compress returns a document as a member has it. The same bytes give the same.
func Compress(data []byte) []byte {
	return encoder.EncodeAll(data, nil)
}

var encoder = func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		panic(err) // of options that are constant
	}
	return e
}()

// A Volume is one volume to be written.
type Volume struct {
	contents *Contents
	signed   []byte // contents.asc
	members  []Member
}

// NewVolume returns volume n of a bundle, of which signed is the clearsigned table of contents.
func NewVolume(c *Contents, signed []byte, n int) *Volume {
	v := &Volume{contents: c, signed: signed}
	v.members = slices.Insert(c.Volume(n), 1, Member{Path: contentsFile, Digest: cache.Sum(signed), Size: int64(len(signed))})
	return v
}

// Size returns the bytes of the volume.
func (v *Volume) Size() int64 {
	n := int64(1024) // two empty blocks are the end
	for _, m := range v.members {
		n += m.size()
	}
	return n
}

// Offset returns where the ith member begins; behind the last it is where the end begins.
func (v *Volume) Offset(i int) (n int64) {
	for _, m := range v.members[:i] {
		n += m.size()
	}
	return n
}

// Members returns the number of members.
func (v *Volume) Members() int { return len(v.members) }

// Write writes the volume from its ith member on. Contents come from open, but for what the package itself makes; one that is not
// what the table of contents says is an error, and what is written so far is of use up to the member before.
func (v *Volume) Write(ctx context.Context, w io.Writer, i int, open func(Member) (io.ReadCloser, error)) error {
	tw := tar.NewWriter(w)
	buf := make([]byte, 1<<20)
	for _, m := range v.members[i:] {
		if err := v.write(ctx, tw, m, open, buf); err != nil {
			return fmt.Errorf("cannot write %s: %w", m.Path, err)
		}
	}
	return tw.Close()
}

func (v *Volume) write(ctx context.Context, tw *tar.Writer, m Member, open func(Member) (io.ReadCloser, error), buf []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: m.Path, Size: m.Size, Mode: 0o444, ModTime: v.contents.Created, Format: tar.FormatUSTAR}
	if m.Size > ustarMax {
		h.Format = tar.FormatPAX
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	r, err := v.open(m, open)
	if err != nil {
		return err
	}
	defer r.Close()
	h256 := sha256.New()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf)
		h256.Write(buf[:n])
		if _, err := tw.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil { // it is shorter
		return err
	}
	if got := cache.Digest(h256.Sum(nil)); got != m.Digest {
		return fmt.Errorf("%w: want sha256 %v, got %v", cache.ErrCorrupt, m.Digest, got)
	}
	return nil
}

func (v *Volume) open(m Member, open func(Member) (io.ReadCloser, error)) (io.ReadCloser, error) {
	if m.Path == contentsFile {
		return io.NopCloser(bytes.NewReader(v.signed)), nil
	}
	if m.Kind() == KindVolume {
		return io.NopCloser(strings.NewReader(volumeText(m.Volume))), nil
	}
	return open(m)
}

// volumeText is what the member says that tells which volume it is in.
func volumeText(n int) string { return fmt.Sprintf("%d\n", n) }

// VolumeMember returns the member that says which volume it is in.
func VolumeMember(n int) Member {
	text := volumeText(n)
	return Member{Path: VolumePath(n), Digest: cache.Sum([]byte(text)), Size: int64(len(text)), Volume: n}
}
