package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams"
)

// A volume that says something else than what is published is a fault, and one that is damaged; what it is not about is none.
func TestCustodyChainFaults(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	c := newDownstream(t, hand(t, near.store, near.m))
	c.mustSync()
	man := c.manifest()
	if c := c.trace(man); len(c.Faults) > 0 || len(c.Versions) != 2 || c.Versions[0].Origin == nil {
		t.Fatalf("%+v", c)
	}
	// A site whose upstream said otherwise: another sum for one file, under the same names, by documents of its own.
	liar := oneProduct()
	liar.Resize("noble/amd64/20250718/squashfs", 70000)
	lying := newSite(t, liar)
	lying.mustSync()
	replaced := func(by []byte) *cache.Manifest {
		d, err := c.store.Put(t.Context(), by)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.store.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		changed := *man
		changed.Entries = slices.Clone(man.Entries)
		for i, e := range changed.Entries {
			if strings.HasPrefix(e.Path, "custody/") {
				changed.Entries[i].Digest, changed.Entries[i].Size = d, int64(len(by))
			}
		}
		return &changed
	}
	good, err := c.store.Files().ReadFile(entryOf(man, "custody/").Digest, mirror.MaxCustody)
	if err != nil {
		t.Fatal(err)
	}
	for summary, test := range map[string]struct {
		volume []byte
		faults string
	}{
		"cut off":  {good[:len(good)/2], "the volume is damaged"},
		"no tar":   {bytes.Repeat([]byte("nothing"), 500), "this is no oxbow bundle"},
		"the same": {good, ""},
		"it lies":  {forged(t, near, lying), "by which site "},
	} {
		custody := c.trace(replaced(test.volume))
		if test.faults == "" {
			if len(custody.Faults) > 0 {
				t.Errorf("%s: faults %q", summary, custody.Faults)
			}
			continue
		}
		if len(custody.Faults) != 1 || !strings.Contains(custody.Faults[0], test.faults) {
			t.Errorf("%s: faults %q, want one with %s", summary, custody.Faults, test.faults)
		}
	}
}

func entryOf(man *cache.Manifest, prefix string) cache.Entry {
	i := slices.IndexFunc(man.Entries, func(e cache.Entry) bool { return strings.HasPrefix(e.Path, prefix) })
	return man.Entries[i]
}

// forged returns a custody volume about the documents of a site that has, as upstream's, the documents of another one. The site signs it.
func forged(t *testing.T, s, other *site) []byte {
	t.Helper()
	man := *s.manifest()
	man.Entries = slices.DeleteFunc(slices.Clone(man.Entries), func(e cache.Entry) bool { return e.Kind == cache.KindUpstream })
	for _, e := range other.manifest().Entries {
		if e.Kind != cache.KindUpstream {
			continue
		}
		data, err := other.store.Files().ReadFile(e.Digest, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Put(t.Context(), data); err != nil {
			t.Fatal(err)
		}
		man.Entries = append(man.Entries, e)
	}
	man.Parent = current(t, s.store, stable)
	if err := s.store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, err := s.store.Publish(t.Context(), &man)
	if err != nil {
		t.Fatal(err)
	}
	s.redefine(func(st *mirror.Stream) { st.Keyring = slices.Concat(st.Keyring, other.stream.Keyring) })
	v, err := mirror.NewCustodian(s.store.Files(), "oxbow test").Volume(t.Context(), stable, id)
	if err != nil {
		t.Fatal(err)
	}
	return v.Bytes
}

// A chain that is longer than anybody's breaks, and costs nothing more.
func TestCustodyChainIsBounded(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	s := near
	for n := 1; n <= 9; n++ {
		s = newDownstream(t, hand(t, s.store, s.m))
		res, err := s.sync()
		if err != nil || len(res.Warnings) > 0 {
			t.Fatalf("site %d: %+v, %v", n, res, err)
		}
		if n <= 8 {
			s.chained(n, noble)
		}
	}
	custody := s.trace(s.manifest())
	if len(custody.Faults) == 0 || !strings.Contains(strings.Join(custody.Faults, "\n"), "more than 8 custody volumes are within each other") {
		t.Errorf("nine sites: %q", custody.Faults)
	}
}

// However much is in a custody volume, no more is read of it than there is room for, and what is not read is a fault.
func TestCustodyRoom(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	c := newDownstream(t, hand(t, near.store, near.m))
	c.mustSync()
	d := newDownstream(t, hand(t, c.store, c.m))
	d.mustSync()
	man := d.manifest()
	whole := int64(0)
	for room := int64(1); whole == 0; room *= 2 {
		custody, err := mirror.TraceWithin(d.store.Files(), man, d.stream, room)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range custody.Versions {
			if chained := v.Origin != nil && len(v.Origin.HandedOn) == 2; chained != (len(custody.Faults) == 0) || v.Document == nil {
				t.Errorf("with room for %d bytes: %s is of %+v, and there are %d faults", room, v.Version, v.Origin, len(custody.Faults))
			}
		}
		if len(custody.Faults) == 0 {
			whole = room
		}
	}
	if size := entryOf(man, "custody/").Size; whole < size || whole > 1<<20 {
		t.Errorf("it takes room for %d bytes, where the volume has %d", whole, size)
	}
}

// What is within a custody volume takes no more room than its manifest says it does, and what is broken of it takes room too: else a
// small volume has hours of work in it.
func TestCustodyBombs(t *testing.T) {
	t.Parallel()
	f := newForger(t, oneProduct())
	c := newDownstream(t, hand(t, f.store, f.m))
	c.mustSync()
	man := c.manifest()
	bomb := f.put(make([]byte, 1<<20))
	forged := func(summary string, more ...cache.Entry) *cache.Manifest {
		lying := &cache.Manifest{Stream: stable, Created: time.Now().UTC().Truncate(time.Second), Reason: summary, Entries: f.with(func(e cache.Entry) cache.Entry { return e }, more...)}
		lying.Sort()
		id := cache.Sum(lying.Encode())
		file := filepath.Join(f.store.Files().Dir(), "snapshots", stable, id.String()) // a store does not publish what lies
		if err := errors.Join(f.store.Flush(t.Context()), os.WriteFile(file, lying.Encode(), 0o644)); err != nil {
			t.Fatal(err)
		}
		v, err := mirror.NewCustodian(f.store.Files(), "oxbow test").Volume(t.Context(), stable, id)
		err = errors.Join(err, os.Remove(file))
		if err != nil {
			t.Fatal(err)
		}
		changed := *man
		changed.Entries = slices.Clone(man.Entries)
		for i, e := range changed.Entries {
			if strings.HasPrefix(e.Path, "custody/") {
				if changed.Entries[i].Digest, err = c.store.Put(t.Context(), v.Bytes); err != nil {
					t.Fatal(err)
				}
				changed.Entries[i].Size = int64(len(v.Bytes))
			}
		}
		if err := c.store.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return &changed
	}
	custody := c.trace(forged("one that says it has a byte", cache.Entry{Kind: cache.KindEvidence, Digest: bomb, Size: 1, Path: "custody/1.tar"}))
	if len(custody.Faults) != 1 || !strings.Contains(custody.Faults[0], "has more than 1 bytes when it is decompressed") {
		t.Errorf("faults %q", custody.Faults)
	}

	broken := volumeWithManifest(t, f.key, make([]byte, 1<<20))
	d, err := c.store.Put(t.Context(), broken)
	if err == nil {
		err = c.store.Flush(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	many := *man
	many.Entries = slices.Clone(man.Entries)
	for n := range 100 {
		many.Entries = append(many.Entries, cache.Entry{Kind: cache.KindEvidence, Digest: d, Size: int64(len(broken)), Path: fmt.Sprintf("custody/%02d.tar", n)})
	}
	custody, err = mirror.TraceWithin(c.store.Files(), &many, c.stream, 5<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(custody.Faults) > 10 || !strings.Contains(strings.Join(custody.Faults, "\n"), "custody volumes and what is in them have more than") {
		t.Errorf("%d faults: %q", len(custody.Faults), custody.Faults)
	}
}

// volumeWithManifest returns a custody volume of a site, with something as its manifest.
func volumeWithManifest(t *testing.T, key *streams.SigningKey, text []byte) []byte {
	id := cache.Sum(text)
	manifest := bundle.Compress(text)
	contents := &bundle.Contents{MadeBy: "oxbow test", Created: time.Now().UTC().Truncate(time.Second), Site: key.Fingerprint(), Volumes: 1,
		Snapshots: []bundle.Snapshot{{Stream: stable, ID: id}},
		Members: []bundle.Member{{Path: bundle.SitePath(), Digest: cache.Sum(key.Public()), Size: int64(len(key.Public()))},
			{Path: bundle.SnapshotPath(stable, id), Digest: cache.Sum(manifest), Size: int64(len(manifest))}, bundle.VolumeMember(1)}}
	signed, err := key.Clearsign(contents.Encode(), contents.Created)
	if err != nil {
		t.Fatal(err)
	}
	var volume bytes.Buffer
	err = bundle.NewVolume(contents, signed, 1).Write(t.Context(), &volume, 0, func(m bundle.Member) (io.ReadCloser, error) {
		if m.Path == bundle.SitePath() {
			return io.NopCloser(bytes.NewReader(key.Public())), nil
		}
		return io.NopCloser(bytes.NewReader(manifest)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return volume.Bytes()
}
