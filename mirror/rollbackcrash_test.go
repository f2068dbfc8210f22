package mirror_test

import (
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"
	"testing"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// A crash of a rollback leaves one that took place and holds the stream, or none: then the stream is held as it was before, by an
// earlier rollback or not at all.
func TestRollbackCrashed(t *testing.T) {
	for _, test := range []struct {
		summary     string
		begins      string // the step before which it crashes; "": after all of it
		heldBefore  bool
		takes, held bool
	}{
		{"before the manifest", "manifest", false, false, false},
		{"before the switch", "switch", false, false, false},
		{"after the switch", "", false, true, true},
		{"before the switch of the second", "switch", true, false, true},
		{"after the switch of the second", "", true, true, true},
	} {
		t.Run(test.summary, func(t *testing.T) {
			tree := streamstest.MAAS(streamstest.Shape{Releases: []string{"noble"}, Kernels: []string{"ga"}, CentOS: []string{}})
			s := newSite(t, tree)
			ids, _ := s.days(tree, 3)
			held := ""
			if test.heldBefore {
				held = s.rollback(ids[1]).To
			}
			before := current(t, s.store, stable)
			crashed := filepath.Join(t.TempDir(), "store")
			copyStore := func() {
				if out, err := exec.Command("cp", "-a", s.store.Files().Dir(), crashed).CombinedOutput(); err != nil {
					t.Errorf("cp: %v: %s", err, out)
				}
			}
			s.logTo(beforeStep(test.begins, copyStore))
			rolled := s.rollback(ids[0])
			if test.begins == "" {
				copyStore()
			}

			store := newStore(t, crashed, -1)
			defer endStore(t, store)
			m := newMirror(t, store)
			if took := current(t, store, stable).String() == rolled.Snapshot; took != test.takes || !took && current(t, store, stable) != before {
				t.Errorf("current is %v, it was %v and would be %s", current(t, store, stable), before, rolled.Snapshot)
			}
			if test.takes {
				held = rolled.To
			}
			st, err := mirror.ReadStatus(store.Files(), stable)
			if err != nil || (st.Held != nil) != test.held || test.held && st.Held.To != held {
				t.Errorf("held %+v (%v), want %q", st.Held, err, held)
			}
			if res, err := m.Sync(t.Context(), stable, mirror.SyncOptions{}); err != nil || res.Held != test.held {
				t.Errorf("a sync: %+v, %v", res, err)
			}
		})
	}
}

// logTo opens the store again, with that for its log.
func (s *site) logTo(h slog.Handler) {
	s.t.Helper()
	dir := s.store.Files().Dir()
	endStore(s.t, s.store)
	var err error
	if s.store, err = cache.Open(dir, &cache.Options{Reserve: -1, Ballast: -1, Log: slog.New(h)}); err != nil {
		s.t.Fatal(err)
	}
	s.m = newMirror(s.t, s.store)
}

// atStep is a log that does something at the beginning or end of a step of the store.
type atStep struct {
	message string
	step    string
	do      func()
}

func beforeStep(step string, do func()) atStep { return atStep{"step begins", step, do} }
func afterStep(step string, do func()) atStep  { return atStep{"step ends", step, do} }

func (s atStep) Enabled(context.Context, slog.Level) bool { return true }
func (s atStep) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s atStep) WithGroup(string) slog.Handler            { return s }

func (s atStep) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if r.Message == s.message && a.Key == "step" && a.Value.String() == s.step {
			s.do()
		}
		return true
	})
	return nil
}
