package mirror_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// A volume that is not what it should be is left out, and a warning says where it is, why, and what helps. The same one is not asked for
// again, until something is different.
func TestCustodyRefused(t *testing.T) {
	t.Parallel()
	tree := streamstest.MAAS(streamstest.Shape{Kernels: []string{"ga"}, CentOS: []string{}, NoBootloaders: true})
	near := newSite(t, tree)
	near.mustSync()
	old := current(t, near.store, stable)
	other := newSite(t, tree) // whose key nobody trusts
	other.mustSync()
	tree.AddDay()
	near.upstream.Publish(tree)
	near.mustSync()
	b := hand(t, near.store, near.m)
	volume := func(of *handing, id cache.Digest) []byte {
		v, err := of.custodian.Volume(t.Context(), stable, id)
		if err != nil {
			t.Fatal(err)
		}
		return v.Bytes
	}
	good := volume(b, current(t, near.store, stable))
	// in place of the volume
	bytesOf := func(data []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
				w.Write(data)
			}
			return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
		}
	}
	linked := func(link string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/index.sjson") {
				data := readPath(t, near.store, stable, "streams/v1/index.sjson")
				w.Header().Set("ETag", `"`+cache.Sum(data).String()+`"`)
				w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="http://www.w3.org/ns/prov#has_provenance"; type="application/x-tar"`, link))
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			}
			return strings.HasSuffix(r.URL.Path, "/index.sjson")
		}
	}
	bundled := near.export(mirror.ExportOptions{})[0]
	for _, test := range []struct {
		summary string
		custom  func(http.ResponseWriter, *http.Request) bool
		want    string // in the warning
		again   bool   // the next sync tries again
	}{
		{"of a stranger", bytesOf(volume(hand(t, other.store, other.m), current(t, other.store, stable))), "signed by a key that is not trusted here: it comes from oxbow mirror at", false},
		{"of another snapshot", bytesOf(volume(b, old)), "it is the custody of other documents than those that were read", false},
		{"cut off", bytesOf(good[:len(good)-2048]), "the volume is damaged: it ends before volumes/", false},
		{"cut in a document", bytesOf(good[:len(good)/2]), "the volume is damaged", false},
		{"with a bit that is wrong", bytesOf(flipped(good, len(good)-3000)), "the volume is damaged", false},
		{"with files", bytesOf(bundled), "it is no custody volume", false},
		{"something else", bytesOf(bytes.Repeat([]byte("<html>"), 500)), "this is no oxbow bundle", false},
		{"too large", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
				w.Header().Set("Content-Length", fmt.Sprint(mirror.MaxCustody+1))
				w.WriteHeader(http.StatusOK)
			}
			return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
		}, "the document is longer than the bound of 67108864 bytes", false},
		{"gone", linked("../../-/custody/stable/0123"), "HTTP 404", false},
		{"where a shell would run it", func(w http.ResponseWriter, r *http.Request) bool {
			return bytesOf(bytes.Repeat([]byte("<html>"), 500))(w, r) || linked("../../-/custody/stable/x;reboot;$(id)'&")(w, r)
		}, "/-/custody/stable/x;reboot;$(id)%27&' | oxbow bundle verify -`", false},
		{"at another server", linked("http://127.0.0.1:1/-/custody/stable/0123"), "it is at another server than the index", false},
		{"of a server that fails", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
		}, "HTTP 503 Service Unavailable; the next sync tries again", true},
	} {
		t.Run(test.summary, func(t *testing.T) {
			c := newDownstream(t, b)
			b.answer(test.custom)
			defer b.answer(nil)
			for n := range 2 {
				b.asked()
				res, err := c.sync()
				if err != nil || len(res.LeftOut) > 0 || res.Changed != (n == 0) {
					t.Fatalf("%+v, %v", res, err)
				}
				if n == 1 && !test.again {
					if asked := b.asked(); !slices.Equal(asked, []string{"/streams/v1/index.sjson"}) || len(res.Warnings) > 0 {
						t.Errorf("the next sync asks for %q, and warns %q", asked, res.Warnings)
					}
					continue
				}
				if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], test.want) || !strings.Contains(res.Warnings[0], "/-/custody/stable/") {
					t.Errorf("warnings %q, want %s", res.Warnings, test.want)
				}
			}
			standing := func() string {
				return mirror.NewScheduler(mirror.SchedulerOptions{Store: c.store}).Standing(stable).NoCustody
			}
			if got := standing(); !strings.Contains(got, test.want) {
				t.Errorf("it is said to lack custody because of %q", got)
			}
			if v := c.volumes(); len(v) > 0 {
				t.Errorf("volumes %q", v)
			}
			c.whole()
			b.answer(nil)
			if test.summary == "at another server" || test.summary == "gone" || test.again { // the offer is another one now
				c.mustSync()
				c.chained(1, noble)
				if got := standing(); got != "" {
					t.Errorf("it has custody, and is said to lack it because of %q", got)
				}
			}
		})
	}
}

func flipped(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 1
	return data
}

// Where custody does not come, the images wait for no more than one further try: each sync tries again.
func TestCustodyKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	near := newSite(t, oneProduct())
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b) // which makes three attempts
	b.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, mirror.CustodyDir) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return strings.HasPrefix(r.URL.Path, mirror.CustodyDir)
	})
	if res, err := c.sync(); err != nil || len(res.Warnings) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	asked := slices.DeleteFunc(b.asked(), func(path string) bool { return !strings.HasPrefix(path, mirror.CustodyDir) })
	if len(asked) != 2 {
		t.Errorf("it asks for %q", asked)
	}
}

// A site that passes the documents of the other one on keeps the chain too. A client that waits for metadata does not wait for that: the
// next sync brings it.
func TestCustodyOfWhatIsPassedOn(t *testing.T) {
	t.Parallel()
	near := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b)
	c.redefine(func(st *mirror.Stream) { st.Advertise = mirror.AdvertiseAll })
	if err := c.m.Refresh(t.Context(), stable); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(b.asked(), func(path string) bool { return strings.HasPrefix(path, mirror.CustodyDir) }) || len(c.volumes()) > 0 {
		t.Errorf("a refresh asks for custody; volumes %q", c.volumes())
	}
	for _, v := range c.vouched().Versions {
		if v.Origin != nil {
			t.Errorf("%+v", v)
		}
	}
	c.mustSyncPlain()
	c.chained(1, noble)
	b.asked()
	if c.mustSyncPlain(); !slices.Equal(b.asked(), []string{"/streams/v1/index.sjson"}) {
		t.Error("where nothing is new, it asks for more than the index")
	}
}

// What is lost of a custody volume is had again, and what is damaged is left out, as long as it is not.
func TestCustodyVolumeLost(t *testing.T) {
	t.Parallel()
	tree := oneProduct()
	near := newSite(t, tree)
	near.mustSync()
	b := hand(t, near.store, near.m)
	c := newDownstream(t, b)
	c.mustSync()
	e := entryOf(c.manifest(), "custody/")
	c.harm(e)
	c.repair()
	c.mustSync()
	c.chained(1, noble)
	if got := entryOf(c.manifest(), "custody/"); got != e {
		t.Errorf("another one is there: %+v", got)
	}
	c.harm(e)
	c.redefine(func(st *mirror.Stream) { st.Hold = []string{"version_name=20250718"} })
	c.mustSyncPlain()
	if got := c.chained(1, noble); got != "20250717 upstream of upstream" {
		t.Errorf("noble: %s", got)
	}
}
