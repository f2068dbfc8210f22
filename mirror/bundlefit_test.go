package mirror_test

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/mirror/bundle"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A countedReader counts what is read of a volume.
type countedReader struct {
	r io.Reader
	n int
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// notes returns the names of what the store of a far site expects.
func (s *farSite) notes() (ids []string) {
	s.t.Helper()
	all, err := s.store.Files().Expected()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		ids = append(ids, e.ID.String())
	}
	return ids
}

// A site whose key is trusted has nothing published by a bundle that clients could not read, or not believe with the keys that they
// are given: it is refused before any file of it is taken in, nothing is noted of it, and `bundle verify` has the same fault.
func TestImportProvesWhatClientsRead(t *testing.T) {
	const index, signedIndex = "streams/v1/index.json", "streams/v1/index.sjson"
	f := newForger(t, streamstest.MAAS(streamstest.Shape{}))
	o := mirror.ImportOptions{TrustFingerprint: f.key.Fingerprint()}
	stranger, err := streams.GenerateSigningKey(streams.Ed25519, "a stranger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text := func(path string) []byte { return readPath(t, f.store, stable, path) }
	item := f.item()
	other := cache.Entry{Kind: cache.KindItem, Digest: f.put([]byte("other")), Size: 5, Path: index}
	strange, err := stranger.Clearsign(text(index), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	size := fmt.Sprintf(`"size": %d`, item.Size)
	for _, test := range []struct {
		name, words string
		entries     []cache.Entry
	}{
		{"an index that a stranger signed", "clients cannot believe " + signedIndex + ": signed by a key that is not in the keyring", f.replaced(cache.KindSite, signedIndex, strange)},
		{"a signature of another text", "clients cannot believe " + index + ": signature is bad", f.replaced(cache.KindSite, index+".gpg", f.apart([]byte("{}")))},
		{"no signature", "clients cannot believe " + index + ": document is not signed", f.without(cache.KindSite, index+".gpg")},
		{"no index", "there is no index " + signedIndex, f.without(cache.KindSite, signedIndex)},
		{"no document", "clients cannot read " + index + ": cannot parse", f.changed(func(text []byte) []byte {
			if bytes.Contains(text, []byte(`"index:1.0"`)) {
				return []byte("something hostile")
			}
			return text
		})},
		{"an index that names what is not there", "streams/v2/", f.changed(func(text []byte) []byte {
			return bytes.ReplaceAll(text, []byte(`"path": "streams/v1/`), []byte(`"path": "streams/v2/`))
		})},
		{"an index that calls a list by another name", "as the list ", f.changed(func(text []byte) []byte {
			if bytes.Contains(text, []byte(`"index:1.0"`)) {
				return bytes.ReplaceAll(text, []byte("com.ubuntu.maas:stable:v3:download\": {"), []byte("com.ubuntu.maas:stable:v4:download\": {"))
			}
			return text
		})},
		{"a list that names what is not there", item.Path + " (", f.without(cache.KindItem, item.Path)},
		{"a list with another size", "bytes, and not " + fmt.Sprint(item.Size+1), f.changed(func(text []byte) []byte {
			return bytes.ReplaceAll(text, []byte(size), fmt.Appendf(nil, `"size": %d`, item.Size+1))
		})},
		{"a list with another digest", "has the sha256 " + other.Digest.String(), f.replaced(cache.KindItem, item.Path, bytes.Repeat([]byte("x"), int(item.Size)))},
		{"an item in the place of the index", index + " is a document and a file at once", f.with(func(e cache.Entry) cache.Entry { return e }, other)},
		{"a document in the place of an item", item.Path + " is a document and a file at once", f.with(func(e cache.Entry) cache.Entry { return e },
			cache.Entry{Kind: cache.KindSite, Digest: f.put(f.signed(text(index))), Size: int64(len(f.signed(text(index)))), Path: item.Path})},
		{"no signature in the signed family", "clients cannot believe " + signedIndex, f.replaced(cache.KindSite, signedIndex, text(index))},
		{"a signature where JSON is read", index + ": it has its signature in it", f.replaced(cache.KindSite, index, text(signedIndex))},
	} {
		f.publish(test.name, test.entries)
		far := newFarSite(t)
		volumes := f.export(mirror.ExportOptions{})
		words := test.words
		if strings.HasPrefix(words, "has the sha256") {
			words = "has the sha256 " + cache.Sum(bytes.Repeat([]byte("x"), int(item.Size))).String()
		}
		counted := &countedReader{r: bytes.NewReader(volumes[0])}
		_, err := far.m.Import(t.Context(), []mirror.Volume{{Name: "it", Reader: counted}}, o)
		if !errors.Is(err, mirror.ErrUnfit) || !errors.Is(err, mirror.ErrVerification) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "oxbow bundle verify") {
			t.Errorf("%s: got %v, want %q", test.name, err, words)
		}
		if notes := far.notes(); len(notes) > 0 {
			t.Errorf("%s: noted is %q", test.name, notes)
		}
		if far.store.Holds(item.Digest) || counted.n > len(volumes[0])/2 {
			t.Errorf("%s: %d of %d bytes were read", test.name, counted.n, len(volumes[0]))
		}
		i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: "it", Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(i.Faults, func(fault string) bool { return strings.Contains(fault, words) }) {
			t.Errorf("%s: the faults are %q, want %q", test.name, i.Faults, words)
		}
	}
	f.publish("honest again", f.honest.Entries)
	newFarSite(t).mustTake(o, f.export(mirror.ExportOptions{})...)
}

// A bundle of which all is here but metadata that is damaged is not published, and nothing but the damage is told of.
func TestImportOfDamagedMetadata(t *testing.T) {
	f := newForger(t, oneProduct())
	o := mirror.ImportOptions{TrustFingerprint: f.key.Fingerprint()}
	volume := f.export(mirror.ExportOptions{})[0]
	far := newFarSite(t)
	for _, e := range f.honest.Entries { // as by another stream
		data, err := f.store.Files().ReadFile(e.Digest, 1<<20)
		if err == nil {
			_, err = far.store.Put(t.Context(), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	at := bytes.LastIndex(volume, []byte("documents/")) + 512 + 20 // within what that has
	results, err := far.take(o, flipped(volume, at))
	if !errors.Is(err, bundle.ErrDamaged) || strings.Contains(err.Error(), "cannot publish") || len(results) != 1 || len(results[0].Published) > 0 {
		t.Errorf("%+v, %v", results, err)
	}
	if notes := far.notes(); len(notes) > 0 {
		t.Errorf("noted is %q", notes)
	}
	far.mustTake(o, volume)
}

// However much the documents have that clients would read, no more is held of them than there is room for: a bundle has them compressed,
// to a thousandth of what they are. What several paths share counts once.
func TestImportBoundsWhatClientsRead(t *testing.T) {
	f := newForger(t, oneProduct())
	whole, seen := int64(0), map[cache.Digest]bool{}
	for _, e := range f.honest.Entries {
		if e.Kind == cache.KindSite && !strings.HasSuffix(e.Path, ".gpg") && !seen[e.Digest] {
			seen[e.Digest] = true
			whole += e.Size
		}
	}
	for _, room := range []int64{0, 1, whole / 2, whole - 1, whole} {
		faults, err := mirror.ShownWithin(t.Context(), f.store.Files(), f.honest, f.key.Public(), room)
		if err != nil {
			t.Fatal(err)
		}
		if room < whole && (len(faults) != 1 || faults[0] != fmt.Sprintf("the documents that clients read have more than %d bytes", room)) || room == whole && len(faults) > 0 {
			t.Errorf("with room for %d of %d bytes: %q", room, whole, faults)
		}
	}
}

// What upstream's own documents tell clients is proven too, with upstream's keys, where a snapshot shows them; of a stream that is
// allowed to be unsigned too, and where upstream names a path with two contents, or gives no SHA-256.
func TestImportProvesUpstreamsDocuments(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	for name, redefine := range map[string]func(*mirror.Stream){
		"signed":           func(*mirror.Stream) {},
		"allowed unsigned": func(st *mirror.Stream) { st.AllowUnsigned, st.Keyring = true, nil },
	} {
		near := newSite(t, tree)
		near.redefine(func(st *mirror.Stream) {
			st.Advertise, st.Select = mirror.AdvertiseAll, []string{"arch~."}
			redefine(st)
		})
		if _, err := near.sync(); err != nil {
			t.Fatal(err)
		}
		f := forgerOf(t, near)
		if n := slices.IndexFunc(f.honest.Entries, func(e cache.Entry) bool { return e.Kind == cache.KindKnown }); n >= 0 {
			t.Fatalf("%s: %s is not here", name, f.honest.Entries[n].Path)
		}
		o := mirror.ImportOptions{TrustFingerprint: f.key.Fingerprint()}
		far := newFarSite(t)
		far.mustTake(o, near.export(mirror.ExportOptions{})...)
		item := f.item()
		f.publish("without an item", f.without(cache.KindItem, item.Path))
		if _, err := newFarSite(t).take(o, near.export(mirror.ExportOptions{})...); !errors.Is(err, mirror.ErrUnfit) || !strings.Contains(err.Error(), item.Path) {
			t.Errorf("%s: without an item: %v", name, err)
		}
		clear := func(doc []byte) []byte {
			text, err := streams.ClearText(doc)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		view := func(path string) []byte { return readView(t, near.store, cache.Upstream, path) }
		for _, test := range []struct {
			name, words string
			signed      bool // it matters only where signatures do
			entries     []cache.Entry
		}{
			{"an index of the site's", "cannot believe streams/v1/index.sjson", true, f.replaced(cache.KindUpstream, "streams/v1/index.sjson", f.signed(clear(view("streams/v1/index.sjson"))))},
			{"an unsigned index that says something else", "cannot believe streams/v1/index.json", true,
				f.with(func(e cache.Entry) cache.Entry {
					switch {
					case e.Kind == cache.KindUpstream && e.Path == "streams/v1/index.json.gpg":
						e.Path = ""
					case e.Kind == cache.KindUpstream && e.Path == "streams/v1/index.json":
						doc := bytes.Replace(view(e.Path), []byte(`"updated"`), []byte(`"updeted"`), 1)
						e.Digest, e.Size = f.put(doc), int64(len(doc))
					}
					return e
				})},
			{"garbage", "cannot read streams/v1/index.json", false, f.replaced(cache.KindUpstream, "streams/v1/index.json", []byte("garbage"))},
		} {
			f.publish(test.name, test.entries)
			_, err := newFarSite(t).take(o, near.export(mirror.ExportOptions{})...)
			if refused := test.signed == false || name == "signed"; refused != errors.Is(err, mirror.ErrUnfit) || refused && !strings.Contains(err.Error(), test.words) {
				t.Errorf("%s: %s: %v", name, test.name, err)
			}
		}
		f.publish("an unsigned index as upstream has it", f.without(cache.KindUpstream, "streams/v1/index.json.gpg"))
		newFarSite(t).mustTake(o, near.export(mirror.ExportOptions{})...)
	}
}

// Upstream may name a path with two contents, of which one is served, and may give other sums than SHA-256: those are proven by the
// files, once they are here.
func TestImportOfOddUpstream(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.redefine(func(st *mirror.Stream) {
		st.Advertise, st.Select, st.AllowUnsigned, st.Keyring = mirror.AdvertiseAll, []string{"arch~."}, true, nil
	})
	if _, err := near.sync(); err != nil {
		t.Fatal(err)
	}
	f := forgerOf(t, near)
	o := mirror.ImportOptions{TrustFingerprint: f.key.Fingerprint()}
	// edited returns the honest entries with every item of upstream's lists changed, and of each version also a copy that is not, if
	// twice is set.
	edited := func(twice bool, change func(item map[string]any)) []cache.Entry {
		return f.with(func(e cache.Entry) cache.Entry {
			if e.Kind != cache.KindUpstream || strings.HasSuffix(e.Path, ".gpg") || strings.Contains(e.Path, "index") {
				return e
			}
			doc := readView(t, near.store, cache.Upstream, e.Path)
			text, clearsigned := doc, streams.IsClearsigned(doc)
			if clearsigned {
				var err error
				if text, err = streams.ClearText(doc); err != nil {
					t.Fatal(err)
				}
			}
			var list map[string]any
			if err := json.Unmarshal(text, &list); err != nil {
				t.Fatal(err)
			}
			for _, p := range list["products"].(map[string]any) {
				versions := p.(map[string]any)["versions"].(map[string]any)
				for _, name := range slices.Collect(maps.Keys(versions)) {
					if twice {
						text, _ := json.Marshal(versions[name])
						var same any
						if err := json.Unmarshal(text, &same); err != nil {
							t.Fatal(err)
						}
						versions[name+".1"] = same
					}
					for _, it := range versions[name].(map[string]any)["items"].(map[string]any) {
						change(it.(map[string]any))
					}
				}
			}
			text, err := json.MarshalIndent(list, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			if doc = text; clearsigned {
				doc = f.signed(text)
			}
			e.Digest, e.Size = f.put(doc), int64(len(doc))
			return e
		})
	}
	larger := func(it map[string]any) { it["size"] = it["size"].(float64) + 1 }
	sum := func(md5 func(path string) string) func(it map[string]any) {
		return func(it map[string]any) {
			delete(it, "sha256")
			delete(it, "sha512")
			it["md5"] = md5(it["path"].(string))
		}
	}
	honest := sum(func(path string) string {
		return fmt.Sprintf("%x", md5.Sum(readPath(t, near.store, stable, path)))
	})
	hostile := sum(func(string) string { return strings.Repeat("0", 32) })
	for _, test := range []struct {
		name    string
		entries []cache.Entry
		refused string
	}{
		{name: "two contents of each path", entries: edited(true, larger)},
		{name: "another content", entries: edited(false, larger), refused: "bytes, and not"},
		{name: "no SHA-256", entries: edited(false, honest)},
		{name: "other sums", entries: edited(false, hostile), refused: "which has another content: "},
	} {
		f.publish(test.name, test.entries)
		volumes := near.export(mirror.ExportOptions{})
		far := newFarSite(t)
		if test.refused == "" {
			far.mustTake(o, volumes...)
			continue
		}
		if _, err := far.take(o, volumes...); !errors.Is(err, mirror.ErrUnfit) || !strings.Contains(err.Error(), test.refused) {
			t.Errorf("%s: %v", test.name, err)
		}
		if notes := far.notes(); len(notes) > 0 {
			t.Errorf("%s: noted is %q", test.name, notes)
		}
		if _, err := far.store.Current(stable); !errors.Is(err, cache.ErrNoSnapshot) {
			t.Errorf("%s: it is published: %v", test.name, err)
		}
	}

	// What the site signs of an unsigned stream is proven as that of any.
	near.redefine(func(st *mirror.Stream) { st.Advertise, st.Select = mirror.AdvertiseSelected, nil })
	if _, err := near.sync(); err != nil {
		t.Fatal(err)
	}
	newFarSite(t).mustTake(o, near.export(mirror.ExportOptions{})...)
}

// readView is readPath in a view.
func readView(t *testing.T, store *cache.Store, v cache.View, path string) []byte {
	t.Helper()
	found, err := store.Find(stable, v, path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	data, err := store.Files().ReadFile(found.Digest, streams.MaxDocument)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Bundles are refused before any file comes for what their metadata tells, and leave no note then; but what came of them before
// stays, since the state of the stream may be another tomorrow.
func TestImportRefusesEarly(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	near := newSite(t, tree)
	near.mustSync()
	key := keyOf(t, near.m)
	o := mirror.ImportOptions{TrustFingerprint: key.Fingerprint()}
	first := near.export(mirror.ExportOptions{Split: 250 << 10})
	tree.AddDay()
	near.upstream.Publish(tree)
	near.m = mirror.New(mirror.Options{Store: near.store, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	near.mustSync()
	second := near.export(mirror.ExportOptions{Split: 250 << 10})
	early := func(s *farSite, is error, words string, o mirror.ImportOptions, notes int, volumes ...[]byte) {
		t.Helper()
		before, err := s.store.Files().Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.take(o, volumes...)
		if err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v, want %q", err, words)
		}
		after, err := s.store.Files().Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := after.Bytes - before.Bytes; got > 100<<10 {
			t.Errorf("%q: %d bytes were taken in", words, got)
		}
		if got := s.notes(); len(got) != notes {
			t.Errorf("%q: %d notes, want %d", words, len(got), notes)
		}
	}

	far := newFarSite(t)
	stranger := o
	stranger.Keyring = streamstest.MAAS(streamstest.Shape{}).Keyring()
	early(far, mirror.ErrVouched, "not vouched for by upstream", stranger, 0, first...)
	if _, err := far.take(o, first[1]); err != nil { // and what came stays
		t.Fatal(err)
	}
	early(far, mirror.ErrVouched, "not vouched for by upstream", stranger, 1, first[0])
	far.mustTake(o, second...)
	early(far, mirror.ErrOlder, "--allow-older accepts it", o, 1, first[0])
	o.AllowOlder = true
	far.mustTake(o, first...)
	o.AllowOlder = false
	if notes := far.notes(); len(notes) > 0 {
		t.Errorf("noted is %q after all", notes)
	}
	if _, err := far.m.Rollback(t.Context(), stable, cache.Digest{}); err != nil {
		t.Fatal(err)
	}
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	third := near.export(mirror.ExportOptions{})
	early(far, nil, "--resume", o, 0, third...)

	// A definition that cannot be one, or that is in another's way.
	taken := newFarSite(t)
	in := mirror.Stream{Name: "other", Path: "/ephemeral-v3/", Offline: true}
	if err := taken.m.Define(in); err != nil {
		t.Fatal(err)
	}
	early(taken, nil, "one stream's path cannot be part of another's", o, 0, third...)
	for _, path := range []string{"no path", "/-/"} {
		state, err := near.store.Files().ReadState(stable)
		if err != nil {
			t.Fatal(err)
		}
		var st map[string]any
		if err := json.Unmarshal(state, &st); err != nil {
			t.Fatal(err)
		}
		st["stream"].(map[string]any)["path"] = path
		bad, err := json.Marshal(st)
		if err == nil {
			err = near.store.WriteState(stable, bad)
		}
		if err != nil {
			t.Fatal(err)
		}
		volumes := near.export(mirror.ExportOptions{})
		early(newFarSite(t), mirror.ErrUnfit, "nothing can be served by streams/stable/stream.json", o, 0, volumes...)
		i, err := mirror.InspectBundle(t.Context(), []mirror.Volume{{Name: path, Reader: bytes.NewReader(volumes[0])}}, mirror.InspectOptions{})
		if err != nil || !slices.ContainsFunc(i.Faults, func(f string) bool { return strings.Contains(f, "stream.json") }) {
			t.Errorf("%q: the faults are %q, %v", path, i.Faults, err)
		}
		if err := near.store.WriteState(stable, state); err != nil {
			t.Fatal(err)
		}
	}
}
