package streams

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	for in, want := range map[string]string{
		"Thu, 24 Jul 2025 08:01:48 +0000": "2025-07-24T08:01:48Z",
		"Thu, 24 Jul 2025 08:01:48 GMT":   "2025-07-24T08:01:48Z",
		"Thu, 24 Jul 2025 08:01:48 UTC":   "2025-07-24T08:01:48Z",
		"Tue, 15 Sep 2015 16:15:24 -0400": "2015-09-15T20:15:24Z",
		"Sat, 4 May 2013 01:58:57 +0000":  "2013-05-04T01:58:57Z",
		"4 May 2013 01:58:57 -0000":       "2013-05-04T01:58:57Z",
		"2025-07-24T08:01:48Z":            "2025-07-24T08:01:48Z",
		"2025-07-24T08:01:48.25+02:00":    "2025-07-24T06:01:48.25Z",
		"2025-07-24T08:01:48+0200":        "2025-07-24T06:01:48Z",
		"2025-07-24 08:01:48":             "2025-07-24T08:01:48Z",
		"2025-07-24":                      "2025-07-24T00:00:00Z",
	} {
		got, err := ParseTime(in)
		if err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("ParseTime(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "soon", "Thu, 24 Jul 2025 08:01:48 EST", "Thu, 24 Jul 2025 08:01:48", "24/07/2025"} {
		if got, err := ParseTime(in); err == nil {
			t.Errorf("ParseTime(%q) = %v, want an error", in, got)
		}
	}
}

func TestFormatTime(t *testing.T) {
	at := time.Date(2025, 7, 4, 10, 1, 48, 999, time.FixedZone("", 7200))
	if got, want := FormatTime(at), "Fri, 04 Jul 2025 08:01:48 +0000"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
