package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"oxbow/cache"
	"oxbow/streams"
)

var theTime = time.Date(2026, 11, 27, 15, 4, 5, 0, time.UTC)

// theKey signs the bundles of these tests.
var theKey = func() *streams.SigningKey {
	key, err := streams.GenerateSigningKey(streams.Ed25519, "bundle test", theTime)
	if err != nil {
		panic(err)
	}
	return key
}()

// A made bundle is one with a document and a few files in two volumes.
type made struct {
	contents *Contents
	signed   []byte
	members  map[string][]byte
}

func makeBundle(t testing.TB) *made {
	t.Helper()
	b := &made{members: map[string][]byte{}}
	c := &Contents{MadeBy: "oxbow test", Created: theTime, Site: theKey.Fingerprint(), Volumes: 2}
	b.contents = c
	add := func(path string, data []byte, volume int) {
		b.members[path] = data
		c.Members = append(c.Members, Member{Path: path, Digest: cache.Sum(data), Size: int64(len(data)), Volume: volume})
	}
	manifest, doc := []byte("a manifest"), bytes.Repeat([]byte("a document "), 1000)
	id := cache.Sum(manifest)
	c.Snapshots = []Snapshot{{Stream: "stable", ID: id, Since: cache.Sum([]byte("before"))}}
	c.Needs = []Need{{cache.Sum([]byte("there")), 5}}
	add(siteFile, theKey.Public(), 0)
	add(StreamPath("stable"), []byte("{}\n"), 0)
	add(UpstreamKeysPath("stable"), theKey.Public(), 0)
	add(HandoverPath("stable", 1), []byte("handed over\n"), 0)
	add(SnapshotPath("stable", id), Compress(manifest), 0)
	add(DocumentPath(cache.Sum(doc)), Compress(doc), 0)
	for n := 1; n <= 2; n++ {
		c.Members = append(c.Members, VolumeMember(n))
		for i := range 2 {
			data := bytes.Repeat([]byte{byte(n), byte(i)}, 300+1000*i)
			add(FilePath(cache.Sum(data)), data, n)
		}
	}
	b.sign(t)
	return b
}

func (b *made) sign(t testing.TB) {
	t.Helper()
	var err error
	if b.signed, err = theKey.Clearsign(b.contents.Encode(), theTime); err != nil {
		t.Fatal(err)
	}
}

func (b *made) open(m Member) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.members[m.Path])), nil
}

// volume returns a volume as it is written.
func (b *made) volume(t testing.TB, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := NewVolume(b.contents, b.signed, n).Write(t.Context(), &out, 0, b.open); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read reads a volume to its end, and returns the names of its members.
func read(r io.Reader) (names []string, err error) {
	b, err := NewReader(r, AnySite, theTime)
	if err != nil {
		return nil, err
	}
	for {
		m, data, err := b.Next()
		if err == io.EOF {
			return names, nil
		}
		if err == nil && (m.Kind() == KindDocument || m.Kind() == KindSnapshot) {
			_, err = Decompress(m, data, 1<<20)
		}
		if err != nil {
			return names, err
		}
		names = append(names, m.Path)
	}
}

// What is written is read again, has the size that was said, and is the same each time.
func TestRoundTrip(t *testing.T) {
	b := makeBundle(t)
	for n := 1; n <= 2; n++ {
		data := b.volume(t, n)
		v := NewVolume(b.contents, b.signed, n)
		if int64(len(data)) != v.Size() || !bytes.Equal(data, b.volume(t, n)) {
			t.Errorf("volume %d has %d bytes, want %d, and the same each time", n, len(data), v.Size())
		}
		names, err := read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, m := range b.contents.Volume(n)[1:] { // site.gpg was read by NewReader
			want = append(want, m.Path)
		}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("members of volume %d (-want +got):\n%s", n, diff)
		}
	}
	parsed, err := Parse(b.contents.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.contents, parsed); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
}

// An export that was cut anywhere goes on behind the last member that is whole, and comes to the same bytes.
func TestWholeThenOn(t *testing.T) {
	b := makeBundle(t)
	data := b.volume(t, 2)
	v := NewVolume(b.contents, b.signed, 2)
	random := rand.New(rand.NewPCG(1, 2))
	for cut := 0; cut <= len(data); cut += 1 + random.IntN(400) {
		n, err := Whole(bytes.NewReader(data[:cut]), b.contents.ID())
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if v.Offset(n) > int64(cut)+511 {
			t.Fatalf("cut at %d: %d members that end at %d are called whole", cut, n, v.Offset(n))
		}
		again := bytes.NewBuffer(append(slices.Clone(data[:cut]), make([]byte, 511)...)[:v.Offset(n)]) // as truncate does
		if err := v.Write(t.Context(), again, n, b.open); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), data) {
			t.Fatalf("cut at %d, gone on behind %d members: other bytes", cut, n)
		}
	}
	if _, err := Whole(bytes.NewReader(data), cache.Sum(nil)); err == nil {
		t.Error("a volume of another bundle is gone on with")
	}
	if _, err := Whole(strings.NewReader(strings.Repeat("something else", 1000)), b.contents.ID()); err == nil {
		t.Error("something else is gone on with")
	}
}

// Contents that are not what the table of contents says are not written to the end.
func TestWriteProves(t *testing.T) {
	b := makeBundle(t)
	last := b.contents.Members[len(b.contents.Members)-1]
	for name, data := range map[string][]byte{
		"other": bytes.Repeat([]byte("x"), int(last.Size)),
		"short": b.members[last.Path][:last.Size-1],
		"long":  append(slices.Clone(b.members[last.Path]), 0),
	} {
		err := NewVolume(b.contents, b.signed, 2).Write(t.Context(), io.Discard, 0, func(m Member) (io.ReadCloser, error) {
			if m.Path == last.Path {
				return io.NopCloser(bytes.NewReader(data)), nil
			}
			return b.open(m)
		})
		if err == nil || !strings.Contains(err.Error(), last.Path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewVolume(b.contents, b.signed, 1).Write(ctx, io.Discard, 0, b.open); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// tar lists a volume, and sha256sum takes its table of contents.
func TestTarAndSha256sum(t *testing.T) {
	b := makeBundle(t)
	dir := t.TempDir()
	for n := 1; n <= 2; n++ {
		cmd := exec.Command("tar", "xf", "-", "-C", dir)
		cmd.Stdin = bytes.NewReader(b.volume(t, n))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("tar: %v: %s", err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "contents"), b.contents.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "contents")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != len(b.contents.Members) {
		t.Errorf("sha256sum: %v: %s", err, out)
	}
}

// rewrite returns a volume of which change changes each header, and may say to leave the member out or to write it twice.
func rewrite(t *testing.T, volume []byte, change func(h *tar.Header, data []byte) (copies int, newData []byte)) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(volume)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		copies, data := change(h, data)
		for range copies {
			h.Size = int64(len(data))
			if h.Typeflag != tar.TypeReg {
				h.Size = 0
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				w.Write(data)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A volume with a member too many, too few, twice, elsewhere, of another kind or with other bytes is refused, and says which.
func TestHostileVolumes(t *testing.T) {
	b := makeBundle(t)
	volume := b.volume(t, 1)
	file := FilePath(cache.Sum(bytes.Repeat([]byte{1, 0}, 300)))
	doc := ""
	for _, m := range b.contents.Members {
		if m.Kind() == KindDocument {
			doc = m.Path
		}
	}
	at := func(name string, do func(h *tar.Header, data []byte) (int, []byte)) func(*tar.Header, []byte) (int, []byte) {
		return func(h *tar.Header, data []byte) (int, []byte) {
			if h.Name == name {
				return do(h, data)
			}
			return 1, data
		}
	}
	for name, change := range map[string]func(*tar.Header, []byte) (int, []byte){
		"twice":     at(file, func(_ *tar.Header, d []byte) (int, []byte) { return 2, d }),
		"missing":   at(file, func(_ *tar.Header, d []byte) (int, []byte) { return 0, d }),
		"traversal": at(file, func(h *tar.Header, d []byte) (int, []byte) { h.Name = "../../etc/passwd"; return 1, d }),
		"absolute":  at(file, func(h *tar.Header, d []byte) (int, []byte) { h.Name = "/etc/passwd"; return 1, d }),
		"a link": at(file, func(h *tar.Header, d []byte) (int, []byte) {
			h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc/passwd"
			return 1, d
		}),
		"a hard link": at(file, func(h *tar.Header, d []byte) (int, []byte) {
			h.Typeflag, h.Linkname = tar.TypeLink, siteFile
			return 1, d
		}),
		"a directory": at(file, func(h *tar.Header, d []byte) (int, []byte) { h.Typeflag = tar.TypeDir; return 1, d }),
		"a device":    at(file, func(h *tar.Header, d []byte) (int, []byte) { h.Typeflag = tar.TypeChar; return 1, d }),
		"a pax record": at(file, func(h *tar.Header, d []byte) (int, []byte) {
			h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"VENDOR.x": "y"}
			return 1, d
		}),
		"other bytes":      at(file, func(_ *tar.Header, d []byte) (int, []byte) { d[7] ^= 1; return 1, d }),
		"shorter":          at(file, func(_ *tar.Header, d []byte) (int, []byte) { return 1, d[:len(d)-1] }),
		"longer":           at(file, func(_ *tar.Header, d []byte) (int, []byte) { return 1, append(d, 0) }),
		"another document": at(doc, func(_ *tar.Header, _ []byte) (int, []byte) { return 1, Compress([]byte("another")) }),
		"another volume":   at(VolumePath(1), func(h *tar.Header, d []byte) (int, []byte) { h.Name = VolumePath(2); return 1, d }),
		"no volume":        at(VolumePath(1), func(_ *tar.Header, d []byte) (int, []byte) { return 0, d }),
		"another keyring":  at(siteFile, func(_ *tar.Header, d []byte) (int, []byte) { return 1, append(d, theKey.Public()...) }),
		"no keyring":       at(siteFile, func(_ *tar.Header, d []byte) (int, []byte) { return 0, d }),
		"no signature":     at(contentsFile, func(_ *tar.Header, _ []byte) (int, []byte) { return 1, b.contents.Encode() }),
		"nothing":          func(_ *tar.Header, d []byte) (int, []byte) { return 0, d },
	} {
		if names, err := read(bytes.NewReader(rewrite(t, volume, change))); err == nil || !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBundle) {
			t.Errorf("%s: %v, after %q", name, err, names)
		}
	}
	v := NewVolume(b.contents, b.signed, 1)
	last := v.members[len(v.members)-1]
	for cut := int64(0); cut < v.Offset(v.Members()-1)+512+last.Size; cut += 97 {
		if _, err := read(bytes.NewReader(volume[:cut])); err == nil {
			t.Errorf("cut at %d: no error", cut)
		}
	}
	if _, err := read(bytes.NewReader(append(slices.Clone(volume[:len(volume)-1024]), b.volume(t, 2)...))); err == nil {
		t.Error("two volumes in one: no error")
	}
}

// Nothing is believed that an unknown key has signed.
func TestForeign(t *testing.T) {
	b := makeBundle(t)
	refused := errors.New("refused")
	if _, err := NewReader(bytes.NewReader(b.volume(t, 1)), func(*streams.Keyring) (*streams.Keyring, error) { return nil, refused }, theTime); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	other, err := streams.GenerateSigningKey(streams.Ed25519, "another", theTime)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := streams.ReadKeyring(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewReader(bytes.NewReader(b.volume(t, 1)), func(*streams.Keyring) (*streams.Keyring, error) { return ring, nil }, theTime); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
}

// A key that has expired is one that is not trusted, which carrying the volume anew would not mend.
func TestExpired(t *testing.T) {
	e, err := openpgp.NewEntity("expires", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 3600, Time: func() time.Time { return theTime }})
	if err != nil {
		t.Fatal(err)
	}
	var secret bytes.Buffer
	if err := e.SerializePrivate(&secret, nil); err != nil {
		t.Fatal(err)
	}
	key, err := streams.ReadSigningKey(secret.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b := makeBundle(t)
	b.contents.Site, b.members[siteFile] = key.Fingerprint(), key.Public()
	b.contents.Members[0] = Member{Path: siteFile, Digest: cache.Sum(key.Public()), Size: int64(len(key.Public()))}
	if b.signed, err = key.Clearsign(b.contents.Encode(), theTime); err != nil {
		t.Fatal(err)
	}
	volume := b.volume(t, 1)
	if _, err := NewReader(bytes.NewReader(volume), AnySite, theTime.Add(time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := NewReader(bytes.NewReader(volume), AnySite, theTime.Add(2*time.Hour)); !errors.Is(err, ErrForeign) || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

// A document that grows without end is not decompressed to its end.
func TestBomb(t *testing.T) {
	var bomb bytes.Buffer
	z, err := zstd.NewWriter(&bomb, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 200 {
		z.Write(zeros)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	m := Member{Path: DocumentPath(cache.Sum(zeros))}
	if _, err := Decompress(m, bytes.NewReader(bomb.Bytes()), 10<<20); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

// Contents that make no sense are refused, signed or not.
func TestContentsRefused(t *testing.T) {
	digest := func(s string) cache.Digest { return cache.Sum([]byte(s)) }
	for name, change := range map[string]func(*Contents){
		"no volume":             func(c *Contents) { c.Volumes = 0 },
		"too many volumes":      func(c *Contents) { c.Volumes = MaxVolumes + 1 },
		"a volume without":      func(c *Contents) { c.Volumes = 3 },
		"no snapshot":           func(c *Contents) { c.Snapshots = nil },
		"another snapshot":      func(c *Contents) { c.Snapshots[0].ID = digest("x") },
		"a stream twice":        func(c *Contents) { c.Snapshots = append(c.Snapshots, c.Snapshots[0]) },
		"a stream's name":       func(c *Contents) { c.Snapshots[0].Stream = "../x" },
		"a member twice":        func(c *Contents) { c.Members = append(c.Members, c.Members[len(c.Members)-1]) },
		"a file elsewhere":      func(c *Contents) { c.Members[len(c.Members)-1].Path = "files/../../x" },
		"a file's name":         func(c *Contents) { c.Members[len(c.Members)-1].Path = FilePath(digest("x")) },
		"a file everywhere":     func(c *Contents) { c.Members[2] = Member{FilePath(digest("x")), digest("x"), 1, 0} },
		"a name with a break":   func(c *Contents) { c.Members[1].Path = "streams/stable/stream.json\n# x" },
		"a program's name":      func(c *Contents) { c.MadeBy = "x\n# created" },
		"a large description":   func(c *Contents) { c.Members[1].Size = MaxSmall + 1 },
		"a large document":      func(c *Contents) { c.Members[5].Size = maxShared },
		"a negative size":       func(c *Contents) { c.Members[len(c.Members)-1].Size = -1 },
		"an immense size":       func(c *Contents) { c.Members[len(c.Members)-1].Size = maxMember + 1 },
		"keys of another":       func(c *Contents) { c.Members[2].Path = UpstreamKeysPath("other") },
		"the keyring not first": func(c *Contents) { c.Members[0], c.Members[1] = c.Members[1], c.Members[0] },
		"no member":             func(c *Contents) { c.Members = nil },
	} {
		b := makeBundle(t)
		change(b.contents)
		if _, err := Parse(b.contents.Encode()); !errors.Is(err, ErrContents) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text := string(makeBundle(t).contents.Encode())
	for name, bad := range map[string]string{
		"a newer version":  strings.Replace(text, "oxbow bundle 1", "oxbow bundle 2", 1),
		"a line too many":  text + "# more\n",
		"no last break":    strings.TrimSuffix(text, "\n"),
		"capitals":         strings.Replace(text, "a", "A", 1),
		"nothing":          "",
		"a zero before":    strings.Replace(text, "# volumes 2", "# volumes 02", 1),
		"an unknown digit": strings.Replace(text, "# needs ", "# needs x", 1),
	} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrContents) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReader promises that no volume, however it was made, is read with other bytes than those that were signed, or ends the process.
func FuzzReader(f *testing.F) {
	b := makeBundle(f)
	volume := b.volume(f, 1)
	f.Add(volume)
	f.Add(volume[:len(volume)/2])
	f.Add([]byte{})
	names, err := read(bytes.NewReader(volume))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := read(bytes.NewReader(data))
		if err == nil && !slices.Equal(got, names) {
			t.Errorf("read %q", got)
		}
	})
}

// FuzzContents promises that what is parsed is what would be written.
func FuzzContents(f *testing.F) {
	f.Add(makeBundle(f).contents.Encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err == nil && !bytes.Equal(c.Encode(), text) {
			t.Error("it is not as it would be written")
		}
		if err != nil && !errors.Is(err, ErrContents) {
			t.Error(fmt.Sprint(err))
		}
	})
}
