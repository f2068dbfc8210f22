package typo

import "testing"

// Up to two letters may be wrong, fewer than half of a word, and the nearest
// word is the one that was meant.
func TestNearest(t *testing.T) {
	known := []string{"at", "cert", "key", "keep", "max_versions", "maas"}
	for word, want := range map[string]string{
		"max_version": "max_versions", "maxversions": "max_versions", "max_verisons": "max_versions", "maxversion": "max_versions", "mas": "maas", "kepe": "keep",
		"at_": "", "": "", "crt": "cert", "versions": "", "kee": "keep", "xyz": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
