package proxy

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"oxbow/mirror"
	"oxbow/mirror/upstream"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// seeds is how many random upstreams TestPromise mirrors, shards how many of them
// at once.
const (
	seeds  = 300
	shards = 4
)

// Whatever upstream lists and whatever is selected of it: every path in the
// published metadata answers with the promised size and digest, nothing else is
// listed, and MAAS of every version takes it.
func TestPromise(t *testing.T) {
	s := newSite(t, false)
	client := upstream.NewClient(&upstream.Options{Attempts: 1})
	defer client.Close()
	m := mirror.New(mirror.Options{Store: s.store, Client: client, Settle: time.Nanosecond})
	key, err := m.Key()
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := streams.ReadKeyring(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var published, partial atomic.Int32
	t.Run("seeds", func(t *testing.T) {
		for shard := range uint64(shards) {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				up := streamstest.NewUpstream(streamstest.NewTree())
				upstream := httptest.NewServer(up)
				defer upstream.Close()
				for seed := shard; seed < seeds; seed += shards {
					p := &promise{t: t, seed: seed, keyring: keyring}
					res := p.sync(m, up, upstream.URL)
					if res == nil {
						continue
					}
					published.Add(1)
					if len(res.LeftOut) > 0 {
						partial.Add(1)
					}
					p.handler = New(&Options{Store: s.store, Streams: func() []Stream { return []Stream{{Name: p.stream.Name, Path: p.stream.Path}} }})
					p.check(res)
				}
			})
		}
	})
	t.Logf("%d of %d upstreams had something to publish, %d of these only in part", published.Load(), seeds, partial.Load())
	if published.Load() < seeds/2 || partial.Load() < seeds/20 {
		t.Errorf("only %d snapshots published and %d of them in part: the seeds do not test what they should", published.Load(), partial.Load())
	}
}

// sync mirrors the upstream of the seed. It returns nil if there was nothing to
// publish.
func (p *promise) sync(m *mirror.Mirror, up *streamstest.Upstream, url string) *mirror.Result {
	p.tree = streamstest.Random(p.seed)
	for _, f := range p.tree.Files() {
		f.Path = fmt.Sprintf("%d/%s", p.seed, f.Path) // contents of its own: the store has none of them
	}
	up.Publish(p.tree)
	p.stream = mirror.Stream{Name: fmt.Sprint("seed-", p.seed), Path: fmt.Sprintf("/seed/%d/", p.seed), Upstream: []string{url}, Keyring: p.tree.Keyring()}
	selections(p.seed, &p.stream)
	if err := m.Define(p.stream); err != nil {
		p.t.Fatalf("seed %d: %v", p.seed, err)
	}
	res, err := m.Sync(p.t.Context(), p.stream.Name, mirror.SyncOptions{})
	if errors.Is(err, mirror.ErrNothing) {
		return nil
	}
	if err != nil {
		p.t.Fatalf("seed %d: %v", p.seed, err)
	}
	return res
}

// selections chooses what a stream wants, by the seed.
func selections(seed uint64, s *mirror.Stream) {
	r := rand.New(rand.NewPCG(seed, 7))
	all := [][]string{
		nil, nil, {"arch=amd64"}, {"release~(noble|jammy)"}, {"os=ubuntu arch!=arm64", "os=centos"},
		{"product_name!~hwe"}, {"version_name~^2025"}, {"os~."}, {"arch1!=arch1"}, {"release!=release2"},
	}
	s.Select = all[r.IntN(len(all))]
	s.MaxVersions = r.IntN(3)
	s.NoBootloaders = r.IntN(4) == 0
}

// A promise is one published stream beside the upstream that it came from.
type promise struct {
	t       *testing.T
	seed    uint64
	tree    *streamstest.Tree
	stream  mirror.Stream
	keyring *streams.Keyring
	handler http.Handler
}

func (p *promise) check(res *mirror.Result) {
	x, lists := p.read(".json", func(doc []byte) ([]byte, error) { return doc, nil })
	signed, signedLists := p.read(".sjson", func(doc []byte) ([]byte, error) {
		opened, err := p.keyring.Verify(doc, time.Now())
		if err != nil {
			return nil, err
		}
		return opened.Text, nil
	})
	if len(x.Entries) != len(signed.Entries) {
		p.t.Errorf("seed %d: %d lists unsigned, %d signed", p.seed, len(x.Entries), len(signed.Entries))
	}
	profile := streams.Plain
	if x.MAAS() {
		profile = streams.All
	}
	for _, f := range streams.Lint(x, lists, profile) {
		p.t.Errorf("seed %d: refused: %v", p.seed, f)
	}
	offered := p.offered()
	items := 0
	for i, l := range lists {
		if !bytes.Equal(bytes.TrimSpace(l.Render()), bytes.TrimSpace(signedLists[i].Render())) {
			p.t.Errorf("seed %d: the forms of list %s differ", p.seed, l.ContentID)
		}
		for at, it := range l.Items() {
			items++
			if !offered[at] {
				p.t.Errorf("seed %d: %v is listed, and upstream does not offer it whole", p.seed, at)
			}
			if it.Path != "" {
				p.fetch(at, it)
			}
		}
	}
	if items != res.Items {
		p.t.Errorf("seed %d: %d items listed, the sync says %d", p.seed, items, res.Items)
	}
}

// offered returns the pedigrees of all items whose versions have no broken file.
func (p *promise) offered() map[streams.Pedigree]bool {
	all := map[streams.Pedigree]bool{}
	for e := range p.tree.Entries() {
		whole := true
		for _, it := range e.Version.Items {
			whole = whole && (it.File == nil || it.File.Broken == streamstest.Whole)
		}
		if whole {
			all[streams.Pedigree{Product: e.Product.Name, Version: e.Version.Name, Item: e.Item.Name}] = true
		}
	}
	return all
}

// read fetches the index and lists of one family.
func (p *promise) read(ending string, open func([]byte) ([]byte, error)) (*streams.Index, []*streams.Products) {
	p.t.Helper()
	text, err := open(p.get("streams/v1/index" + ending))
	if err != nil {
		p.t.Fatalf("seed %d: index%s: %v", p.seed, ending, err)
	}
	x, err := streams.ParseIndex(text)
	if err != nil {
		p.t.Fatalf("seed %d: index%s: %v", p.seed, ending, err)
	}
	var lists []*streams.Products
	for _, e := range x.Entries {
		text, err := open(p.get(string(e.Path)))
		if err != nil {
			p.t.Fatalf("seed %d: %s: %v", p.seed, e.Path, err)
		}
		l, err := streams.ParseProducts(text)
		if err != nil {
			p.t.Fatalf("seed %d: %s: %v", p.seed, e.Path, err)
		}
		lists = append(lists, l)
	}
	return x, lists
}

// get returns what the server sends for a path of the stream.
func (p *promise) get(path string) []byte {
	p.t.Helper()
	target := (&url.URL{Path: p.stream.Path + path}).EscapedPath()
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	if w.Code != http.StatusOK {
		p.t.Fatalf("seed %d: GET %s: %d", p.seed, target, w.Code)
	}
	data, err := io.ReadAll(w.Result().Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

func (p *promise) fetch(at streams.Pedigree, it *streams.Item) {
	p.t.Helper()
	data := p.get(string(it.Path))
	sha, sha5, md := sha256.Sum256(data), sha512.Sum512(data), md5.Sum(data)
	for _, sum := range []struct{ want, got []byte }{{it.SHA256, sha[:]}, {it.SHA512, sha5[:]}, {it.MD5, md[:]}} {
		if sum.want != nil && !bytes.Equal(sum.want, sum.got) {
			p.t.Errorf("seed %d: %v: sum %x, promised %x", p.seed, at, sum.got, sum.want)
		}
	}
	if int64(len(data)) != it.Size {
		p.t.Errorf("seed %d: %v: %d bytes, promised %d", p.seed, at, len(data), it.Size)
	}
}
