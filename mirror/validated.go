package mirror

import (
	"encoding/json"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// validated is what makes a conditional request for a document possible: the
// validators of its last answer and the bytes they stand for.
type validated struct {
	upstream.Validators
	Digest string `json:"digest"`
	bytes  []byte
}

// validated returns the validators of a document that the store still has.
// They are facts of the index: when it is lost, documents are fetched whole.
func (m *Mirror) validated(url string) (v validated) {
	note, err := m.store.Note("document " + url)
	if err != nil || json.Unmarshal(note, &v) != nil {
		return validated{}
	}
	d, err := cache.ParseDigest(v.Digest)
	if err != nil {
		return validated{}
	}
	if v.bytes, err = m.readBlob(d); err != nil {
		return validated{}
	}
	return v
}

func (m *Mirror) setValidated(url string, v upstream.Validators, d cache.Digest) {
	if v == (upstream.Validators{}) {
		return
	}
	note, err := json.Marshal(validated{Validators: v, Digest: d.String()})
	if err == nil {
		err = m.store.SetNote("document "+url, note)
	}
	if err != nil {
		m.log.Warn("validators not kept: the next sync fetches the document whole", "url", shown(url), "reason", err)
	}
}
