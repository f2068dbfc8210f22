package cache

import (
	"encoding/json"
	"testing"
)

// In JSON a digest is its text, also as a key, and one that names nothing is empty; nothing else is taken for one.
func TestDigestInJSON(t *testing.T) {
	t.Parallel()
	d := Sum([]byte("a blob"))
	was := map[Digest]Digest{d: {}}
	data, err := json.Marshal(was)
	if want := `{"` + d.String() + `":""}`; err != nil || string(data) != want {
		t.Errorf("got %s (%v), want %s", data, err, want)
	}
	var got map[Digest]Digest
	if err := json.Unmarshal(data, &got); err != nil || len(got) != 1 || got[d] != (Digest{}) {
		t.Errorf("read %v (%v)", got, err)
	}
	for _, text := range []string{`"ab"`, `"` + Digest{}.String() + `"`, `[1]`} {
		if err := json.Unmarshal([]byte(text), new(Digest)); err == nil {
			t.Errorf("%s is taken for a digest", text)
		}
	}
}
