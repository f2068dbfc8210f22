package mirror_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/upstream"
)

// Trees that other people made are mirrored byte for byte.
func TestSyncExamples(t *testing.T) {
	const examples = "../../shared/streams/simplestreams-examples"
	if _, err := os.Stat(examples); err != nil {
		t.Skip("the example trees are not here:", err)
	}
	for _, tree := range []struct {
		name  string
		items int
	}{{"minimal", 2}, {"foocloud", 18}} {
		name := tree.name
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(examples, name)
			upstream := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer upstream.Close()
			store := newStore(t, filepath.Join(t.TempDir(), "store"), -1)
			defer endStore(t, store)
			m := mirror.New(mirror.Options{Store: store, Client: newClient(t)})

			s, err := mirror.NewStream(upstream.URL + "/")
			if err != nil {
				t.Fatal(err)
			}
			s.Name, s.Path, s.AllowUnsigned = name, "/"+name+"/", true
			if err := m.Define(s); err != nil {
				t.Fatal(err)
			}
			res, err := m.Sync(t.Context(), name, mirror.SyncOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !res.Changed || len(res.LeftOut) > 0 {
				t.Errorf("sync: %+v", res)
			}

			man, err := store.Manifest(name, current(t, store, name))
			if err != nil {
				t.Fatal(err)
			}
			items := 0
			for _, e := range man.Entries {
				if e.Kind != cache.KindItem {
					continue
				}
				items++
				want, err := os.ReadFile(filepath.Join(dir, e.Path))
				if err != nil {
					t.Fatal(err)
				}
				if got := readPath(t, store, name, e.Path); !bytes.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", e.Path, got, want)
				}
			}
			if items != tree.items || res.Items < items {
				t.Errorf("%d files published, upstream lists %d", items, tree.items)
			}
		})
	}
}

// newStore returns an empty store in dir, or where there is one already that.
func newStore(t *testing.T, dir string, reserve int64) *cache.Store {
	t.Helper()
	s, err := cache.Create(dir, &cache.Options{Reserve: reserve, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// endStore checks a store deeply and closes it.
func endStore(t *testing.T, s *cache.Store) {
	t.Helper()
	report, err := s.Check(context.Background(), cache.CheckOptions{Deep: true})
	if err != nil {
		t.Error(err)
	} else if err := report.Err(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// current returns the id of a stream's current snapshot.
func current(t *testing.T, s *cache.Store, stream string) cache.Digest {
	t.Helper()
	snap, err := s.Current(stream)
	if err != nil {
		t.Fatal(err)
	}
	return snap.ID
}

// newClient returns a client that loses no time.
func newClient(t *testing.T) *upstream.Client {
	c := upstream.NewClient(&upstream.Options{Attempts: 2})
	t.Cleanup(c.Close)
	return c
}

// provePath returns the size and the SHA-256 of what is published under a path, as they are on disk.
func provePath(t *testing.T, s *cache.Store, stream, path string) (size int64, sum []byte) {
	t.Helper()
	found, err := s.Find(stream, cache.Published, path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return 0, nil
	}
	file, err := s.Files().Blob(found.Entry.Digest)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer file.Close()
	h := sha256.New()
	if size, err = io.Copy(h, file); err != nil {
		t.Error(err)
	}
	return size, h.Sum(nil)
}

// readPath returns what a client of the stream gets under path.
func readPath(t *testing.T, s *cache.Store, stream, path string) []byte {
	t.Helper()
	found, err := s.Find(stream, cache.Published, path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return nil
	}
	data, err := s.Files().ReadFile(found.Entry.Digest, 64<<20)
	if err != nil {
		t.Error(err)
	}
	return data
}
