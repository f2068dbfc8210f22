package mirror_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"oxbow/mirror"
	"oxbow/streams/streamstest"
)

// A definition whose first sync fails is taken back: a new stream is not
// recorded, another keeps what it was. One that is interrupted stays.
func TestSyncNew(t *testing.T) {
	s := newSite(t, streamstest.MAAS(streamstest.Shape{}))
	m := newMirror(t, s.store)
	old, err := m.Stream(stable)
	if err != nil {
		t.Fatal(err)
	}
	sync := func(ctx context.Context, st mirror.Stream) (selected []string, err error) {
		_, err = m.SyncNew(ctx, st, mirror.SyncOptions{})
		now, lost := m.Stream(st.Name)
		if lost != nil && !errors.Is(lost, mirror.ErrNoStream) {
			t.Fatal(lost)
		}
		if lost != nil {
			return nil, err
		}
		return append([]string{"is there"}, now.Select...), err
	}
	changed, other := old, old
	changed.Select = []string{"release=nobel"}
	other.Name, other.Path, other.Also, other.Select = "other", "/other/", nil, changed.Select

	if got, err := sync(t.Context(), changed); !errors.Is(err, mirror.ErrNothing) || len(got) != 1 {
		t.Errorf("a selection that matches nothing: error %v, definition %q", err, got)
	}
	if got, err := sync(t.Context(), other); !errors.Is(err, mirror.ErrNothing) || got != nil {
		t.Errorf("a new stream that matches nothing: error %v, definition %q", err, got)
	}
	ctx, stop := context.WithCancel(t.Context())
	s.upstream.SetFault(func(*http.Request) streamstest.Fault {
		stop()
		return streamstest.Fault{Hang: true}
	})
	other.Select = []string{"release=noble"}
	if got, err := sync(ctx, other); !errors.Is(err, context.Canceled) || len(got) != 2 {
		t.Errorf("an interrupted sync: error %v, definition %q", err, got)
	}
	s.upstream.SetFault(nil)
	s.upstream.Release()
	if got, err := sync(t.Context(), other); err != nil || len(got) != 2 {
		t.Errorf("the same again: error %v, definition %q", err, got)
	}
}
