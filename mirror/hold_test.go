package mirror_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// nobleAt returns the published versions of the noble images.
func (s *site) nobleAt() (at string) {
	var all []string
	for _, v := range s.versions() {
		if version, ok := strings.CutPrefix(v, "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 "); ok {
			all = append(all, version)
		}
	}
	return strings.Join(all, " ")
}

// A product stays at its newest version that is not held back, and goes on with the next one; other products are not touched. A
// hold that comes or goes counts at the next sync, though upstream has nothing new.
func TestHold(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.MaxVersions = 1 })
	s.mustSync()
	for _, step := range []struct {
		summary string
		hold    []string
		change  func()
		want    string
		jammy   string
	}{
		{summary: "nothing is held", want: "20250718", jammy: "20250718"},
		{summary: "the newest is held", hold: []string{"release=noble version_name=20250718"}, want: "20250717", jammy: "20250718"},
		{summary: "there is a newer one", hold: []string{"release=noble version_name=20250718"}, change: func() { tree.AddDay() }, want: "20250719", jammy: "20250719"},
		{summary: "both are held", hold: []string{"release=noble version_name=20250718", "release=noble version_name=20250719"}, want: "20250717", jammy: "20250719"},
		{summary: "upstream drops all but what is held", hold: []string{"release=noble version_name~^2025071[89]"}, change: func() { tree.Trim(2) }, want: "20250717", jammy: "20250719"},
		{summary: "nothing is held any more", want: "20250719", jammy: "20250719"},
	} {
		if step.change != nil {
			step.change()
			s.upstream.Publish(tree)
		}
		s.redefine(func(st *mirror.Stream) { st.Hold = step.hold })
		s.mustSync()
		if got := s.nobleAt(); got != step.want {
			t.Errorf("%s: noble is at %q, want %q", step.summary, got, step.want)
		}
		if all := strings.Join(s.versions(), " "); !strings.Contains(all, ":22.04:amd64:ga-22.04 "+step.jammy) {
			t.Errorf("%s: jammy is not at %s: %s", step.summary, step.jammy, all)
		}
	}
}

// What is held back on the command line adds to the definition, survives its change, and ends by the same filters in any form.
func TestHoldBack(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	s.redefine(func(st *mirror.Stream) { st.MaxVersions = 1 })
	s.mustSync()
	if err := s.m.HoldBack(stable, "release=noble  'version_name=20250718'"); err != nil {
		t.Fatal(err)
	}
	s.mustSync()
	s.redefine(func(st *mirror.Stream) { st.Limit = 1 << 30 })
	s.mustSync()
	if got := s.nobleAt(); got != "20250717" {
		t.Errorf("noble is at %q", got)
	}
	if err := s.m.LetGo(stable, "release=jammy"); err == nil || !strings.Contains(err.Error(), `there is ["release=noble version_name=20250718"]`) {
		t.Errorf("of no hold: %v", err)
	}
	if err := s.m.LetGo(stable, "release=noble version_name=20250718"); err != nil {
		t.Fatal(err)
	}
	s.mustSync()
	if got := s.nobleAt(); got != "20250718" {
		t.Errorf("noble is at %q", got)
	}
	if err := s.m.HoldBack("absent", "release=noble"); !errors.Is(err, mirror.ErrNoStream) {
		t.Errorf("of no stream: %v", err)
	}
	if err := s.m.HoldBack(stable, "noble"); err == nil {
		t.Error("no filter is taken")
	}
}

// A hold is idle that matches no version of what is published or of what upstream listed then: not one of what the selection left
// out, nor of what upstream has no more. Before the first sync nothing is told.
func TestIdleHolds(t *testing.T) {
	tree := streamstest.MAAS(streamstest.Shape{})
	s := newSite(t, tree)
	s.redefine(func(st *mirror.Stream) { st.Select = []string{"release=noble", "os~centos"} })
	idle := func(holds ...string) (warnings []string) {
		t.Helper()
		warnings, err := mirror.IdleHolds(s.store.Files(), stable, holds)
		if err != nil {
			t.Fatal(err)
		}
		return warnings
	}
	if got := idle("release=warty"); got != nil {
		t.Errorf("before the first sync: %q", got)
	}
	s.mustSync()
	tree.Drop("com.ubuntu.maas.stable:centos-bases:8:amd64")
	s.upstream.Publish(tree)
	s.mustSyncPlain()
	got := idle("release=noble", "release=warty", "release=jammy", "product_name~centos-bases:8", "release=noble version_name=2025071x")
	want := []string{
		`the hold "release=warty" matches no version that is published, nor one that upstream listed then: it counts once there is one`,
		`the hold "release=noble version_name=2025071x" matches no version that is published, nor one that upstream listed then: it counts once there is one`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A hold that matches nothing, and one that leaves nothing of a product, are warned of. Where all of upstream's is advertised
// nothing can be held back.
func TestHoldWarns(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	for hold, want := range map[string]string{
		"release=warty":                         `the hold "release=warty" matches nothing of upstream's`,
		"release=noble kflavor=generic":         "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 is not published: upstream has no version of it that is not held back, and none of before is left",
		"product_name~24.04 version_name~^2025": "com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 is not published: upstream has no version of it that is not held back, and none of before is left",
	} {
		s.redefine(func(st *mirror.Stream) { st.Hold = []string{hold} })
		plan, err := s.m.Plan(t.Context(), stable, mirror.SyncOptions{})
		if err != nil || !slices.Contains(plan.Warnings, want) {
			t.Errorf("%s: warnings %q, %v", hold, plan.Warnings, err)
		}
	}
	s.stream.Advertise = mirror.AdvertiseAll
	if err := s.m.Define(s.stream); err == nil || !strings.Contains(err.Error(), "no version can be held back") {
		t.Errorf("of a stream that advertises all: %v", err)
	}
}
