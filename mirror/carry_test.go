package mirror_test

import (
	"slices"
	"strings"
	"testing"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// What vouches for versions that upstream has no more has to be signed by who is trusted now. A clearsigned document that was taken when
// nobody was asked for does not count as one, nor does one of a key that was taken out of the keyring.
func TestCarriedByWhoIsTrustedNow(t *testing.T) {
	for _, before := range []struct {
		summary string
		define  func(st *mirror.Stream, old []byte)
		stays   bool
	}{
		{"a stranger's", func(st *mirror.Stream, _ []byte) { st.AllowUnsigned, st.Keyring = true, nil }, false},
		{"by a key that is not in the keyring now", func(st *mirror.Stream, old []byte) { st.Keyring = old }, false},
		{"by a key that is in it beside the new one", func(st *mirror.Stream, old []byte) { st.Keyring = old }, true},
	} {
		t.Run(before.summary, func(t *testing.T) {
			t.Parallel()
			tree := streamstest.MAAS(streamstest.Shape{Kernels: []string{"ga"}, CentOS: []string{}, NoBootloaders: true})
			s := newSite(t, tree)
			old := tree.Keyring()
			s.redefine(func(st *mirror.Stream) { before.define(st, old) })
			s.mustSync()
			tree = tree.Clone()
			tree.Drop(noble)
			tree.Key = streamstest.NewTree().Key
			s.upstream.Publish(tree)
			s.redefine(func(st *mirror.Stream) {
				st.AllowUnsigned, st.Keyring = false, tree.Keyring()
				if before.stays {
					st.Keyring = append(st.Keyring, old...)
				}
			})
			res, err := s.sync()
			if err != nil {
				t.Fatal(err)
			}
			s.vouched()
			if stays := slices.ContainsFunc(s.versions(), func(v string) bool { return strings.HasPrefix(v, noble) }); stays != before.stays || stays == (len(res.LeftOut) > 0) {
				t.Errorf("it stays: %v; left out %v", stays, res.LeftOut)
			}
		})
	}
}
