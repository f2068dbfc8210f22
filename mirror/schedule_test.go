package mirror_test

import (
	"testing"
	"time"
	_ "time/tzdata"

	"oxbow/mirror"
)

func inBerlin(t *testing.T, text string) time.Time {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.In(berlin)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04:05", text, berlin)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// When the next run is due follows from the schedule and what was, whatever the
// clock does.
func TestScheduleNext(t *testing.T) {
	hourly := mirror.Schedule{Every: time.Hour, Jitter: 10 * time.Minute}
	nightly := mirror.Schedule{At: "03:15"}
	const now = "2026-05-04 12:00:00"
	for _, test := range []struct {
		summary  string
		s        mirror.Schedule
		attempt  string // "": none
		failures int
		draw     float64
		now      string
		want     string // "": never
	}{
		{"never", mirror.Schedule{}, "", 0, 0, now, ""},
		{"never, whatever was", mirror.Schedule{}, "2026-05-01 00:00:00", 3, 0, now, ""},
		{"the first is due at once", hourly, "", 0, 0.5, now, now},
		{"the first of a nightly one, too", nightly, "", 0, 0.5, now, now},

		{"every", hourly, "2026-05-04 11:50:00", 0, 0, now, "2026-05-04 12:50:00"},
		{"every, with jitter", hourly, "2026-05-04 11:50:00", 0, 0.5, now, "2026-05-04 12:55:00"},
		{"every, missed for days: due at once", hourly, "2026-05-01 00:00:00", 0, 0, now, "2026-05-01 01:00:00"},
		{"every, clock set back by a year", hourly, "2027-05-04 12:00:00", 0, 0.5, now, "2026-05-04 13:05:00"},
		{"every, over a change of the clock: hours are hours", mirror.Schedule{Every: 24 * time.Hour}, "2026-03-28 12:00:00", 0, 0, "2026-03-28 13:00:00", "2026-03-29 13:00:00"},

		{"at, later today", nightly, "2026-05-04 02:00:00", 0, 0, "2026-05-04 02:01:00", "2026-05-04 03:15:00"},
		{"at, done today", nightly, "2026-05-04 03:15:00", 0, 0, "2026-05-04 03:15:20", "2026-05-05 03:15:00"},
		{"at, with jitter", mirror.Schedule{At: "03:15", Jitter: time.Hour}, "2026-05-04 02:00:00", 0, 0.5, "2026-05-04 02:01:00", "2026-05-04 03:45:00"},
		{"at, done within the jitter by hand", mirror.Schedule{At: "03:15", Jitter: time.Hour}, "2026-05-04 03:20:00", 0, 0.5, "2026-05-04 03:21:00", "2026-05-05 03:45:00"},
		{"at, jitter over midnight", mirror.Schedule{At: "23:30", Jitter: time.Hour}, "2026-05-05 00:15:00", 0, 0.5, "2026-05-05 00:16:00", "2026-05-06 00:00:00"},
		{"at, missed for days: due at once", nightly, "2026-05-01 03:15:00", 0, 0, now, "2026-05-02 03:15:00"},
		{"at, clock set back", nightly, "2026-05-20 03:15:00", 0, 0, now, "2026-05-05 03:15:00"},
		{"at a time that does not exist", mirror.Schedule{At: "02:30"}, "2026-03-28 02:30:00", 0, 0, "2026-03-28 12:00:00", "2026-03-29T01:30:00Z"},
		{"at a time that did not exist, done", mirror.Schedule{At: "02:30"}, "2026-03-29T01:30:00Z", 0, 0, "2026-03-29 12:00:00", "2026-03-30 02:30:00"},
		{"at a time that exists twice, after the second", mirror.Schedule{At: "02:30"}, "2026-10-25T01:30:00Z", 0, 0, "2026-10-25 12:00:00", "2026-10-26 02:30:00"},

		{"first failure, least", hourly, now, 1, 0, now, "2026-05-04 12:00:30"},
		{"first failure, half", hourly, now, 1, 0.5, now, "2026-05-04 12:00:45"},
		{"second failure", hourly, now, 2, 0, now, "2026-05-04 12:01:00"},
		{"fifth failure", hourly, now, 5, 0, now, "2026-05-04 12:08:00"},
		{"many failures", hourly, now, 1000, 0, now, "2026-05-04 12:30:00"},
		{"many failures of one that is often", mirror.Schedule{Every: 5 * time.Minute}, now, 1000, 0, now, "2026-05-04 12:02:30"},
		{"many failures of one that is seldom", mirror.Schedule{Every: 24 * time.Hour}, now, 1000, 0.5, now, "2026-05-04 12:45:00"},
		{"failures shortly before the regular run", nightly, "2026-05-04 03:00:00", 9, 0.9, "2026-05-04 03:00:00", "2026-05-04 03:15:00"},
		{"failures, clock set back", hourly, "2030-01-01 00:00:00", 1000, 0, now, "2026-05-04 12:30:00"},
	} {
		t.Run(test.summary, func(t *testing.T) {
			h := mirror.History{Failures: test.failures, Draw: test.draw}
			var want time.Time
			if test.attempt != "" {
				h.Attempt = inBerlin(t, test.attempt).UTC()
			}
			if test.want != "" {
				want = inBerlin(t, test.want)
			}
			if got := test.s.Next(h, inBerlin(t, test.now)); !got.Equal(want) {
				t.Errorf("next run %v, want %v", got, want)
			}
		})
	}
}

// A daily schedule runs exactly once each day of a year and its own date, at any
// time of the day, wherever the clock is changed at midnight, too.
func TestScheduleDaily(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{"00:00", "00:30", "01:15", "01:45", "02:00", "02:30", "03:00", "12:00", "23:30", "23:59"} {
			last := time.Date(2025, 12, 31, 23, 59, 30, 0, loc)
			for day := 1; day <= 365; day++ {
				next := mirror.Schedule{At: at}.Next(mirror.History{Attempt: last}, last)
				if y, d := next.Year(), next.YearDay(); y != 2026 || d != day {
					t.Fatalf("%s in %s: after %v comes %v, want day %d", at, zone, last, next, day)
				}
				last = next
			}
		}
	}
}

func TestScheduleText(t *testing.T) {
	for _, test := range []struct {
		s    mirror.Schedule
		want string
	}{
		{mirror.Schedule{}, "only by command"},
		{mirror.Schedule{Every: time.Hour}, "every 1h"},
		{mirror.Schedule{Every: 90 * time.Minute, Jitter: 5 * time.Minute}, "every 1h30m, up to 5m later"},
		{mirror.Schedule{Every: 90 * time.Second}, "every 1m30s"},
		{mirror.Schedule{Every: 10 * time.Minute}, "every 10m"},
		{mirror.Schedule{At: "03:15", Jitter: 30 * time.Second}, "at 03:15, up to 30s later"},
	} {
		if got := test.s.String(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.s, got, test.want)
		}
	}
}
