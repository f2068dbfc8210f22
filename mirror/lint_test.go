package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oxbow/mirror"
	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// documentsOf reads what upstream serves of a tree, changed by path: nil takes a
// document away.
func documentsOf(tree *streamstest.Tree, changed map[string][]byte) mirror.Documents {
	pub := tree.Render()
	return func(_ context.Context, p streams.Path) ([]byte, error) {
		doc, ok := changed[string(p)]
		if !ok {
			doc = pub.Document(string(p))
		}
		if doc == nil {
			return nil, fs.ErrNotExist
		}
		return doc, nil
	}
}

const ubuntuList = "streams/v1/com.ubuntu.maas:stable:v3:download"

// Each way in which a tree can fail its clients is told once, with those that refuse
// it; what suits them all is silent.
func TestLint(t *testing.T) {
	maas := streamstest.MAAS(streamstest.Shape{})
	notifying := streamstest.MAAS(streamstest.Shape{Notifications: true})
	plain := streamstest.Plain(streamstest.PlainShape{})
	text := func(suffix string) []byte { return maas.Render().Document(ubuntuList + suffix) }
	legacy, v38, both := streams.Legacy, streams.V38, []streams.Profile{streams.Legacy, streams.V38}
	for _, tt := range []struct {
		name     string
		tree     *streamstest.Tree
		changed  map[string][]byte
		profile  streams.Profile
		refused  []streams.Profile
		findings []string // parts, in order; each has to be told
	}{
		{name: "what Canonical publishes", tree: maas},
		{name: "no stream of MAAS", tree: plain},
		{name: "notifications", tree: notifying, refused: []streams.Profile{v38},
			findings: []string{"maas-notification: datatype is", "maas-notification: no string os", "20250718: it has no manifest"}},
		{name: "notifications, for those that read them", tree: notifying, profile: legacy},
		{name: "notifications, for MAAS 3.8 alone", tree: notifying, profile: v38, refused: []streams.Profile{v38},
			findings: []string{"datatype is", "no string os", "it has no manifest"}},
		{name: "only the unsigned family", tree: maas, changed: map[string][]byte{"streams/v1/index.sjson": nil}},
		{name: "only the signed family", tree: maas, changed: map[string][]byte{"streams/v1/index.json": nil}},
		{name: "a signed index without a signature", tree: maas,
			changed: map[string][]byte{"streams/v1/index.sjson": maas.Render().Document("streams/v1/index.json")},
			refused: both, findings: []string{"no client reads streams/v1/index.sjson: it is not signed"}},
		{name: "a signed list without a signature", tree: maas, changed: map[string][]byte{ubuntuList + ".sjson": text(".json")},
			refused: both, findings: []string{"it is not signed"}},
		{name: "a list that is no JSON", tree: maas, changed: map[string][]byte{ubuntuList + ".json": text(".json")[1:]},
			refused: both, findings: []string{"no client reads " + ubuntuList + ".json"}},
		{name: "a list that is missing in one family", tree: maas, changed: map[string][]byte{ubuntuList + ".json": nil},
			refused: both, findings: []string{"the index names the list " + ubuntuList + ".json, which is not there"}},
		{name: "a defect of both families", tree: maas, changed: map[string][]byte{
			ubuntuList + ".json":  bytes.ReplaceAll(text(".json"), []byte(`"subarches"`), []byte(`"subarchs"`)),
			ubuntuList + ".sjson": bytes.ReplaceAll(text(".sjson"), []byte(`"subarches"`), []byte(`"subarchs"`)),
		}, refused: []streams.Profile{v38}, findings: slices.Repeat([]string{"no string subarches"}, len(maas.Lists[0].Products))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := mirror.Lint(t.Context(), documentsOf(tt.tree, tt.changed), tt.profile)
			if err != nil {
				t.Fatal(err)
			}
			if got := v.RefusedBy(); !slices.Equal(got, tt.refused) {
				t.Errorf("refused by %v, want %v", got, tt.refused)
			}
			if len(v.Findings) != len(tt.findings) {
				t.Errorf("%d findings, want %d", len(v.Findings), len(tt.findings))
			}
			for i, f := range v.Findings {
				if i >= len(tt.findings) || !strings.Contains(f.String(), tt.findings[i]) {
					t.Errorf("finding %d: %s: %v", i, f.Index, f)
				}
			}
		})
	}
}

// A tree that cannot be read is an error, not a verdict.
func TestLintUnread(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	gone := map[string][]byte{"streams/v1/index.sjson": nil, "streams/v1/index.json": nil}
	if _, err := mirror.Lint(t.Context(), documentsOf(tree, gone), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no index: %v", err)
	}
	broken := errors.New("disk on fire")
	read := documentsOf(tree, nil)
	_, err := mirror.Lint(t.Context(), func(ctx context.Context, p streams.Path) ([]byte, error) {
		if strings.HasSuffix(string(p), "bootloader-download.sjson") {
			return nil, broken
		}
		return read(ctx, p)
	}, "")
	if !errors.Is(err, broken) {
		t.Errorf("a list that cannot be read: %v", err)
	}
}

// The trees that others made get the verdicts that their clients give: MAAS takes
// Canonical's own, incus and sstream-mirror the others.
func TestLintExamples(t *testing.T) {
	const shared = "../../shared/streams"
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the example trees are not here:", err)
	}
	for _, tt := range []struct {
		tree string
		kind mirror.Kind
	}{
		{"maas-fixture", mirror.KindMAAS},
		{"simplestreams-examples/minimal", mirror.KindPlain},
		{"simplestreams-examples/foocloud", mirror.KindPlain},
		{"simplestreams-examples/cirros", mirror.KindPlain},
	} {
		t.Run(tt.tree, func(t *testing.T) {
			v, err := mirror.Lint(t.Context(), func(_ context.Context, p streams.Path) ([]byte, error) {
				return os.ReadFile(filepath.Join(shared, tt.tree, string(p)))
			}, "")
			if err != nil {
				t.Fatal(err)
			}
			if v.Kind != tt.kind || len(v.RefusedBy()) > 0 {
				t.Errorf("%s, refused by %v", v.Kind, v.RefusedBy())
			}
			for _, f := range v.Findings {
				t.Log(f)
			}
		})
	}
}

// What its clients would refuse is not published, and what was published stays, until
// upstream mends it or the stream is for other clients.
func TestGate(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newAllSite(t, tree)
	s.mustSyncPlain()
	good := current(t, s.store, stable)
	bad := streamstest.MAAS(streamstest.Shape{Notifications: true})
	bad.Key = tree.Key
	bad.Touch()
	s.upstream.Publish(bad)
	_, err := s.sync()
	if !errors.Is(err, mirror.ErrRefused) || !errors.Is(err, mirror.ErrVerification) || !strings.Contains(err.Error(), "maas-notification") {
		t.Errorf("a tree that MAAS 3.8 refuses: %v", err)
	}
	if got := current(t, s.store, stable); got != good {
		t.Errorf("published %v in the place of %v", got, good)
	}
	s.redefine(func(st *mirror.Stream) { st.Profile = streams.Legacy })
	if res, err := s.sync(); err != nil || !res.Changed {
		t.Errorf("for MAAS up to 3.7: %+v, %v", res, err)
	}
}
