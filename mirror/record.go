package mirror

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"oxbow/cache"
)

// A record is what STORE/schedule.json keeps of a stream.
type record struct {
	History
	Reason string    `json:"reason,omitempty"` // of the last attempt, in one line of up to maxReason bytes
	Next   time.Time `json:"next,omitzero"`    // zero: never; in the past: due
}

// maxReason bounds a reason in a record, and in the environment of a command.
const maxReason = 1000

// readSchedule returns the records of all streams, by name.
func readSchedule(f *cache.Files) (map[string]record, error) {
	data, err := f.ReadSchedule()
	if err != nil {
		return nil, err
	}
	var all map[string]record
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("schedule.json is damaged: %w", err)
	}
	for name, r := range all {
		if r.Failures < 0 || r.Draw < 0 || r.Draw >= 1 {
			return nil, fmt.Errorf("schedule.json is damaged: what it says of stream %s is out of bounds", name)
		}
	}
	return all, nil
}

func writeSchedule(all map[string]record) ([]byte, error) {
	data, err := json.MarshalIndent(all, "", " ")
	return append(data, '\n'), err
}

// oneLine returns text as a line of up to maxReason bytes.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason-len("…")], "") + "…"
	}
	return text
}
