package cache

import (
	"testing"
)

func TestStats(t *testing.T) {
	t.Parallel()
	s := createStore(t)
	shared := put(t, s, KindItem, "a", "12345")
	twin := shared
	twin.Path = "b"
	publish(t, s, "candidate", shared, known("k", "pulled 8"))
	publish(t, s, "stable", shared, put(t, s, KindItem, "old", "123"))
	id := publish(t, s, "stable", shared, twin, put(t, s, KindSite, "index", "12"))
	ingest(t, s, []byte("unnamed"))
	pull(t, s, []byte("pulled 8"))
	flush(t, s)
	in := begin(t, s, wantOf(content(1, 2<<20)))
	if _, err := in.WriteAt(content(1, 2<<20)[:1<<20], 0); err != nil {
		t.Fatal(err)
	}
	in.Close()

	got, err := s.Files().Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Blobs != 5 || got.Bytes != 25 || got.Named != 3 || got.NamedBytes != 10 || got.Pulled != 1 || got.PulledBytes != 8 || got.Partials != 1 || got.PartialBytes != 1<<20 {
		t.Errorf("got %+v", got)
	}
	if len(got.Streams) != 2 {
		t.Fatalf("got the streams %+v", got.Streams)
	}
	candidate, stable := got.Streams[0], got.Streams[1]
	if candidate.Name != "candidate" || candidate.Snapshots != 1 || candidate.Blobs != 1 || candidate.Bytes != 5 || candidate.Current.Known != 1 {
		t.Errorf("got %+v", candidate)
	}
	if stable.Name != "stable" || stable.Snapshots != 2 || stable.Blobs != 3 || stable.Bytes != 10 ||
		stable.Current.ID != id || stable.Current.Entries != 3 || stable.Current.Bytes != 7 || !stable.Current.Current {
		t.Errorf("got %+v", stable)
	}
}
