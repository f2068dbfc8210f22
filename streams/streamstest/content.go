package streamstest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync"
)

// A File is what upstream has at a path. Items declare the size and sums of its
// good content; Broken says how upstream fails to keep that promise.
type File struct {
	Path string
	// Size in bytes of the content, which is made from Seed, or Path if Seed is
	// empty. Files of the same seed and size have the same content.
	Size int64
	Seed string
	// Text, if not nil, is the content instead.
	Text   []byte
	Broken Breakage

	mu   sync.Mutex // guards what follows
	of   noise      // the content that sums are of
	sums map[string]string
}

// Breakage is a way in which upstream's file differs from what items declare.
type Breakage int

const (
	Whole     Breakage = iota
	Absent             // listed, but 404
	WrongHash          // another content of the same size
	Flipped            // one bit in the middle is wrong
	Short              // the last byte is missing
	Long               // there is a byte too many
)

// String returns the name of the constant.
func (b Breakage) String() string {
	names := []string{"Whole", "Absent", "WrongHash", "Flipped", "Short", "Long"}
	if b >= 0 && int(b) < len(names) {
		return names[b]
	}
	return fmt.Sprintf("Breakage(%d)", int(b))
}

// NewFile returns a file of size bytes that no compressor makes smaller, the
// same for the same path and size in every run.
func NewFile(path string, size int64) *File { return &File{Path: path, Size: size} }

// NewText returns a file with the given content.
func NewText(path, text string) *File { return &File{Path: path, Text: []byte(text)} }

// Length returns the size of the good content in bytes.
func (f *File) Length() int64 {
	if f.Text != nil {
		return int64(len(f.Text))
	}
	return f.Size
}

// Open returns the good content.
func (f *File) Open() io.ReadSeeker { return io.NewSectionReader(f.good(), 0, f.Length()) }

// Bytes returns the good content. It is for small files.
func (f *File) Bytes() []byte {
	b, err := io.ReadAll(f.Open())
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return b
}

// Sum returns a digest of the good content in lower-case hex; kind is "md5",
// "sha256" or "sha512". It is computed once as long as the content is the same.
func (f *File) Sum(kind string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.noise(); f.Text != nil || f.of != now {
		f.of, f.sums = now, make(map[string]string)
	}
	if f.sums[kind] == "" {
		h := newHash(kind)
		if _, err := io.Copy(h, f.Open()); err != nil {
			panic("internal error: " + err.Error())
		}
		f.sums[kind] = hex.EncodeToString(h.Sum(nil))
	}
	return f.sums[kind]
}

func newHash(kind string) hash.Hash {
	switch kind {
	case "md5":
		return md5.New()
	case "sha256":
		return sha256.New()
	case "sha512":
		return sha512.New()
	}
	panic(fmt.Sprintf("streamstest: no digest %q", kind))
}

func (f *File) clone() *File {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &File{Path: f.Path, Size: f.Size, Seed: f.Seed, Text: f.Text, Broken: f.Broken, of: f.of, sums: f.sums}
}

func (f *File) good() io.ReaderAt {
	if f.Text != nil {
		return bytes.NewReader(f.Text)
	}
	return f.noise()
}

// served returns the content that upstream gives away, and its size.
func (f *File) served() (io.ReaderAt, int64) {
	content, size := f.good(), f.Length()
	switch f.Broken {
	case WrongHash:
		return newNoise("wrong "+f.Path, size), size
	case Flipped:
		return flipped{content, size / 2}, size
	case Short:
		return content, max(size-1, 0)
	case Long:
		return longer{content, size}, size + 1
	}
	return content, size
}

func (f *File) noise() noise {
	if f.Seed != "" {
		return newNoise(f.Seed, f.Size)
	}
	return newNoise(f.Path, f.Size)
}

// noise is size bytes of random content, computed where it is read: the word at
// 8*i is SplitMix64 after i steps from the seed.
type noise struct {
	seed uint64
	size int64
}

func newNoise(seed string, size int64) noise {
	sum := sha256.Sum256([]byte(seed))
	return noise{binary.LittleEndian.Uint64(sum[:]), size}
}

// ReadAt implements [io.ReaderAt].
func (n noise) ReadAt(p []byte, off int64) (int, error) {
	if off >= n.size {
		return 0, io.EOF
	}
	var err error
	if rest := n.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	for i := 0; i < len(p); {
		word := n.word(uint64(off) / 8)
		if skip := int(off % 8); skip != 0 || len(p)-i < 8 {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], word)
			k := copy(p[i:], b[skip:])
			i, off = i+k, off+int64(k)
			continue
		}
		binary.LittleEndian.PutUint64(p[i:], word)
		i, off = i+8, off+8
	}
	return len(p), err
}

func (n noise) word(i uint64) uint64 {
	z := n.seed + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// flipped is content with the byte at one offset inverted.
type flipped struct {
	io.ReaderAt
	at int64
}

func (f flipped) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.ReaderAt.ReadAt(p, off)
	if f.at >= off && f.at < off+int64(n) {
		p[f.at-off] ^= 0xff
	}
	return n, err
}

// longer is content of size bytes with zeroes after it.
type longer struct {
	io.ReaderAt
	size int64
}

func (l longer) ReadAt(p []byte, off int64) (int, error) {
	var n int
	if off < l.size {
		var err error
		if n, err = l.ReaderAt.ReadAt(p[:min(int64(len(p)), l.size-off)], off); err != nil && err != io.EOF {
			return n, err
		}
	}
	clear(p[n:])
	return len(p), nil
}
