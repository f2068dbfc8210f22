package mirror_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// configure is Configure, and fails the test unless the warnings hold these words, one
// warning each.
func (s *site) configure(defs []mirror.Stream, words ...string) error {
	s.t.Helper()
	warnings, err := s.m.Configure(defs)
	if len(warnings) != len(words) {
		s.t.Fatalf("warnings %q, want %d", warnings, len(words))
	}
	for i, w := range words {
		for word := range strings.FieldsSeq(w) {
			if !strings.Contains(warnings[i], word) {
				s.t.Errorf("warning %q does not name %q", warnings[i], word)
			}
		}
		if strings.Contains(warnings[i], "SECRET") {
			s.t.Errorf("warning %q tells a password", warnings[i])
		}
	}
	return err
}

// A stream of the store that the configuration names with the same upstream is that
// stream: nothing is fetched for it again, and what is the same is not written again.
func TestConfigureAdopts(t *testing.T) {
	s := newSite(t, oneProduct())
	first := s.mustSync()
	s.upstream.Reset()
	def := s.stream
	def.Upstream = []string{"http://elsewhere.example/", strings.Replace(s.url, "//", "//user:SECRET@", 1) + "/"}
	def.MaxVersions, def.Limit = 5, 100e6
	if err := s.configure([]mirror.Stream{def}); err != nil {
		t.Fatal(err)
	}
	if now, err := s.m.Stream(stable); err != nil || now.MaxVersions != 5 || now.Limit != 100e6 {
		t.Errorf("defined as %+v, %v", now, err)
	}
	before := s.files()
	if err := s.configure([]mirror.Stream{def}); err != nil {
		t.Fatal(err)
	}
	if after := s.files(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Error("what is the same was written again")
	}
	def.Upstream = def.Upstream[1:]
	if err := s.configure([]mirror.Stream{def}); err != nil {
		t.Fatal(err)
	}
	if res := s.mustSync(); res.Fetched.Files != 0 || res.Snapshot != first.Snapshot {
		t.Errorf("the next sync: %+v", res)
	}
	if n := itemBytes(s.upstream); n != 0 {
		t.Errorf("%d bytes of files were fetched again", n)
	}
}

// With another upstream the configuration wins: what is published stays, and the dates
// of the old upstream do not refuse the new one, not even those of a sync that was
// under way.
func TestConfigureOtherUpstream(t *testing.T) {
	newer := oneProduct()
	newer.AddDay()
	s := newSite(t, newer)
	first := s.mustSync()
	other := newSite(t, oneProduct())
	def := other.stream
	def.Upstream = []string{strings.Replace(other.url, "//", "//user:SECRET@", 1)}

	next := newer.Clone()
	next.AddDay()
	s.upstream.Publish(next)
	s.upstream.SetFault(streamstest.At("squashfs", streamstest.Fault{Hang: true}))
	ended := make(chan error)
	go func() { _, err := s.sync(); ended <- err }()
	if err := s.upstream.Await(t.Context(), "noble/amd64/20250720/squashfs", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.configure([]mirror.Stream{def}, s.url+" "+strings.TrimPrefix(other.url, "http://")); err != nil {
		t.Fatal(err)
	}
	if id := current(t, s.store, stable).String(); id != first.Snapshot {
		t.Errorf("snapshot %s is current, not %s", id, first.Snapshot)
	}
	s.upstream.SetFault(nil)
	s.upstream.Release()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := s.sync(); err != nil {
		t.Errorf("sync of the new upstream, which is older: %v", err)
	}
}

// One bad definition keeps no other from being recorded, and whatever the state of the
// configuration, its names are taken.
func TestConfigureBad(t *testing.T) {
	s := newSite(t, oneProduct())
	def := func(name, path string) mirror.Stream {
		return mirror.Stream{Name: name, Upstream: []string{"http://upstream.example"}, Path: path}
	}
	if err := s.store.WriteState("garbage", []byte("{")); err != nil {
		t.Fatal(err)
	}
	err := s.configure([]mirror.Stream{
		def("one", "/one/"), def("bad", "nowhere"), def("one", "/two/"), def("inner", "/one/inner/"), def("garbage", "/garbage/"), def("last", "/last/"),
	}, "garbage anew")
	for _, want := range []string{`path "nowhere"`, "one is defined twice", "inner: stream one is served under /one/"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	for _, name := range []string{"one", "garbage", "last"} {
		if _, err := s.m.Stream(name); err != nil {
			t.Error(err)
		}
	}
	if err := s.m.Define(def("bad", "/bad/")); !errors.Is(err, mirror.ErrConfigured) {
		t.Errorf("defining what the configuration names: %v", err)
	}
}

// No command defines, or drops, what the configuration does; what left the
// configuration is a stream of the store as any other.
func TestConfigured(t *testing.T) {
	s := newSite(t, oneProduct())
	if err := s.configure([]mirror.Stream{s.stream}); err != nil {
		t.Fatal(err)
	}
	s.mustSync()
	for what, err := range map[string]error{
		"defined": s.m.Define(s.stream),
		"synced":  second(s.m.SyncNew(t.Context(), s.stream, mirror.SyncOptions{})),
		"planned": second(s.m.PlanNew(t.Context(), s.stream, mirror.SyncOptions{})),
		"dropped": second(s.m.Drop(t.Context(), stable)),
	} {
		if !errors.Is(err, mirror.ErrConfigured) || !strings.Contains(err.Error(), "configuration file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.m = newMirror(t, s.store) // a restart
	if err := s.configure(nil); err != nil {
		t.Fatal(err)
	}
	if all, err := s.m.Served(); err != nil || len(all) != 1 {
		t.Errorf("served: %v, %v", all, err)
	}
	if _, err := s.m.SyncNew(t.Context(), s.stream, mirror.SyncOptions{}); err != nil {
		t.Errorf("synced: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// Where a path of the configuration overlaps one of a stream that only the store has,
// the configuration's stream has it, once it has something to serve there.
func TestConfigurePaths(t *testing.T) {
	s := newSite(t, oneProduct())
	s.redefine(func(st *mirror.Stream) { st.Path, st.Also = "/a/b/", []string{"/c/"} })
	lost := s.stream
	lost.Name, lost.Path, lost.Also = "lost", "/d/", nil
	if err := s.m.Define(lost); err != nil {
		t.Fatal(err)
	}
	def := mirror.Stream{Name: "configured", Upstream: []string{"http://upstream.example"}, Path: "/a/", Also: []string{"/d/e/"}}
	if err := s.configure([]mirror.Stream{def}, "configured /d/ lost", "configured /a/b/ stable"); err != nil {
		t.Fatal(err)
	}
	s.wantServed("lost /d/, stable /a/b/ /c/, configured /a/ /d/e/") // which has nothing to serve there
	def.Upstream, def.Keyring = s.stream.Upstream, s.stream.Keyring
	if err := s.configure([]mirror.Stream{def}, "configured: by the configuration", "configured /d/ lost", "configured /a/b/ stable"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.m.Sync(t.Context(), "configured", mirror.SyncOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wantServed("configured /a/ /d/e/, stable /c/")
}

// wantServed compares what Served says with names and paths.
func (s *site) wantServed(want string) {
	s.t.Helper()
	all, err := s.m.Served()
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, st := range all {
		got = append(got, st.Name+" "+strings.Join(append([]string{st.Path}, st.Also...), " "))
	}
	if strings.Join(got, ", ") != want {
		s.t.Errorf("served: %q, want %q", got, want)
	}
}

// A stream is dropped with all that is its own, but not while it is synced, and then
// it is as if it had never been: it can be defined and synced anew.
func TestMirrorDrop(t *testing.T) {
	s := newSite(t, oneProduct())
	s.mustSync()
	if _, err := s.m.Drop(t.Context(), "other"); !errors.Is(err, mirror.ErrNoStream) {
		t.Errorf("dropping what is not there: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var during error
	s.upstream.SetFault(func(r *http.Request) streamstest.Fault {
		_, during = s.m.Drop(context.Background(), stable)
		stop()
		<-r.Context().Done() // the sync is not to have an answer before it hears of the stop
		return streamstest.Fault{}
	})
	if _, err := s.m.Sync(ctx, stable, mirror.SyncOptions{}); !errors.Is(err, context.Canceled) || !errors.Is(during, mirror.ErrSyncing) {
		t.Errorf("dropped in a sync: %v, %v", during, err)
	}
	s.upstream.SetFault(nil)

	plan, err := s.m.PlanDrop(t.Context(), stable)
	if err != nil || plan.Snapshots != 1 || plan.Files < 10 || plan.Bytes < 1000 {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	done, err := s.m.Drop(t.Context(), stable)
	if err != nil || done.Files != plan.Files || done.Bytes != plan.Bytes {
		t.Errorf("dropped: %+v, %v, planned %+v", done, err, plan)
	}
	if _, err := s.m.Stream(stable); !errors.Is(err, mirror.ErrNoStream) {
		t.Errorf("afterwards: %v", err)
	}
	sweep, err := s.store.PlanSweep(t.Context(), cache.SweepOptions{})
	if err != nil || len(sweep.Items) != plan.Files {
		t.Errorf("to be swept: %d blobs (%v), planned %d", len(sweep.Items), err, plan.Files)
	}
	if _, err := s.m.SyncNew(t.Context(), s.stream, mirror.SyncOptions{}); err != nil {
		t.Fatal(err)
	}
	s.whole()
}

// A drop that was cut off between the snapshots and the definition is finished by a
// second one, also where the definition cannot be read.
func TestMirrorDropAgain(t *testing.T) {
	s := newSite(t, oneProduct())
	s.mustSync()
	if err := s.store.Drop(t.Context(), stable); err != nil {
		t.Fatal(err)
	}
	if err := s.store.WriteState(stable, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.m.Drop(t.Context(), stable); err != nil {
		t.Fatal(err)
	}
	if names, err := s.store.Files().Streams(); err != nil || len(names) > 0 {
		t.Errorf("left: %q, %v", names, err)
	}
}

// The status of a stream is told from files alone, with and without a scheduler, and
// where the last sync was not the scheduler's.
func TestReadStatus(t *testing.T) {
	s := newSite(t, oneProduct())
	read := func() mirror.Status {
		t.Helper()
		files, err := cache.OpenFiles(s.store.Files().Dir())
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		st, err := mirror.ReadStatus(files, stable)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := read(); st.Snapshot != "" || st.Last != nil || !st.Next.IsZero() || !st.LastAttempt.IsZero() {
		t.Errorf("before the first sync: %+v", st)
	}
	res := s.mustSync()
	st := read()
	if st.Stream != stable || st.Path != s.stream.Path || st.Snapshot != res.Snapshot || st.Files == 0 || st.Bytes == 0 || st.Kept != 1 || st.UpstreamIndex.IsZero() ||
		st.Last.Outcome != mirror.OutcomeDone || st.LastGood != st.Last.Time || st.LastAttempt != st.Last.Time || !st.Next.IsZero() {
		t.Errorf("after a sync by command: %+v", st)
	}

	now := time.Now().Add(time.Hour)
	sched := mirror.NewScheduler(mirror.SchedulerOptions{Store: s.store, Now: func() time.Time { return now }, Rand: func() float64 { return 0 },
		Sync: func(context.Context, string) (*mirror.Result, error) { return nil, errors.New("down") }})
	sched.Set(map[string]mirror.Schedule{stable: {Every: time.Hour}})
	sched.Step(t.Context())
	st = read()
	if at := now.UTC().Truncate(time.Second); st.Failures != 1 || !st.LastAttempt.Equal(at) || !st.LastGood.IsZero() || !st.Next.Equal(at.Add(30*time.Second)) {
		t.Errorf("after a failure at %v: %+v", at, st)
	}
	if err := s.store.WriteSchedule([]byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if st := read(); st.Failures != 0 || !st.LastAttempt.Equal(st.Last.Time) {
		t.Errorf("with a schedule that is garbage: %+v", st)
	}
	if _, err := mirror.ReadStatus(s.store.Files(), "other"); !errors.Is(err, mirror.ErrNoStream) {
		t.Errorf("of no stream: %v", err)
	}
}
