package cache

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"testing"
)

func benchStore(b *testing.B) *Store {
	b.Helper()
	s, err := Create(filepath.Join(b.TempDir(), "store"), &Options{Reserve: -1, Ballast: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// A sync of a tree of 8,000 tiny items: the time is that of all of them.
func BenchmarkTinyBlobs(b *testing.B) {
	const count = 8000
	blobs := make([][]byte, count)
	wants := make([]Want, count)
	for b.Loop() {
		b.StopTimer()
		for i := range blobs {
			blobs[i] = fmt.Appendf(nil, "item %d of 8000", i)
			wants[i] = wantOf(blobs[i])
		}
		s := benchStore(b)
		b.StartTimer()
		for i, data := range blobs {
			in, err := s.Begin(b.Context(), wants[i])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := in.WriteAt(data, 0); err != nil {
				b.Fatal(err)
			}
			if _, err := in.Commit(b.Context()); err != nil {
				b.Fatal(err)
			}
			in.Close()
		}
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

const benchSize = 1 << 30

// One large image from one connection, to the disk and proven.
func BenchmarkLargeBlob(b *testing.B) {
	chunk := content(1, 1<<20)
	h := sha256.New()
	for range benchSize / len(chunk) {
		h.Write(chunk)
	}
	w := Want{Size: benchSize, SHA256: Digest(h.Sum(nil))}
	for _, piece := range []int{32 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("pieces of %s", sizeText(int64(piece))), func(b *testing.B) {
			b.SetBytes(benchSize)
			for b.Loop() {
				b.StopTimer()
				s := benchStore(b)
				b.StartTimer()
				in, err := s.Begin(b.Context(), w)
				if err != nil {
					b.Fatal(err)
				}
				for off := 0; off < benchSize; off += piece {
					if _, err := in.WriteAt(chunk[off%len(chunk):][:piece], int64(off)); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := in.Commit(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What the hashing of it costs alone.
func BenchmarkPlainSHA256(b *testing.B) {
	chunk := content(1, 1<<20)
	b.SetBytes(benchSize)
	for b.Loop() {
		h := sha256.New()
		for range benchSize / len(chunk) {
			h.Write(chunk)
		}
		h.Sum(nil)
	}
}
