package streams

import (
	"strings"
	"testing"
)

// Nesting is bounded, because what is printed is indented by it.
func TestNestingIsBounded(t *testing.T) {
	for n, ok := range map[int]bool{63: true, 64: false, 9_990: false} {
		doc := `{"format": "index:1.0", "s": "\\\"[[[[", "index": {}, "deep": ` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
		if _, err := ParseIndex([]byte(doc)); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "nested more than 64 deep") {
			t.Errorf("an array nested %d deep below the document: %v", n, err)
		}
	}
}
