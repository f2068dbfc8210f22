package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// A shelf is the part of the index that answers requests of one stream: its
// kept snapshots. The index may hold more, of a publication or a sweep that
// was cut off; what is not on the shelf is not served.
type shelf struct {
	kept  []shelved // newest first; the first is current
	bySeq map[uint32]int
	byID  map[Digest]int
}

type shelved struct {
	Snapshot
	seq uint32
}

func newShelf(kept []shelved) *shelf {
	sh := &shelf{kept: kept, bySeq: make(map[uint32]int), byID: make(map[Digest]int)}
	for i := range kept {
		kept[i].Current = i == 0
		sh.bySeq[kept[i].seq] = i
		sh.byID[kept[i].ID] = i
	}
	return sh
}

func (sh *shelf) has(id Digest) bool {
	_, ok := sh.byID[id]
	return ok
}

// shelf returns nil for a stream without snapshots.
func (x *index) shelf(stream string) *shelf {
	x.shelving.RLock()
	defer x.shelving.RUnlock()
	return x.shelves[stream]
}

func (x *index) setShelf(stream string, sh *shelf) {
	x.shelving.Lock()
	defer x.shelving.Unlock()
	x.shelves[stream] = sh
}

func (x *index) dropShelf(stream string) {
	x.shelving.Lock()
	defer x.shelving.Unlock()
	delete(x.shelves, stream)
}

// A record tells which entries of the index belong to a snapshot. It is
// written before the first and removed after the last of them, so that none
// is ever without a record; Whole says that all of them are there.
type record struct {
	Seq     uint32 // unique among the records of a stream, and growing
	Whole   bool
	Created time.Time
	Parent  string `json:",omitempty"`
	Reason  string
	Entries int
	Items   int
	Known   int
	Bytes   int64
}

func recordPrefix(stream string) []byte {
	return append(append([]byte{prefixSnapshot}, stream...), 0)
}

func recordKey(stream string, id Digest) []byte { return append(recordPrefix(stream), id[:]...) }

// splitRecordKey undoes recordKey.
func splitRecordKey(key []byte) (stream string, id Digest, ok bool) {
	n := len(key) - len(id) - 1
	if n < 1 || key[n] != 0 {
		return "", Digest{}, false
	}
	copy(id[:], key[n+1:])
	return string(key[1:n]), id, true
}

func newRecord(s Snapshot, seq uint32) record {
	r := record{Seq: seq, Created: s.Created, Reason: s.Reason, Entries: s.Entries, Items: s.Items, Known: s.Known, Bytes: s.Bytes}
	if !s.Parent.IsZero() {
		r.Parent = s.Parent.String()
	}
	return r
}

func (r record) shelved(stream string, id Digest) shelved {
	s := Snapshot{ID: id, Stream: stream, Created: r.Created, Reason: r.Reason, Entries: r.Entries, Items: r.Items, Known: r.Known, Bytes: r.Bytes}
	s.Parent, _ = ParseDigest(r.Parent)
	return shelved{s, r.Seq}
}

// records returns what the index holds, by stream and id.
func (x *index) records(ctx context.Context) (map[string]map[Digest]record, error) {
	all := make(map[string]map[Digest]record)
	err := x.scan(ctx, []byte{prefixSnapshot}, true, func(key, value []byte) error {
		stream, id, ok := splitRecordKey(key)
		var r record
		if !ok || json.Unmarshal(value, &r) != nil {
			return errIndexValue
		}
		if all[stream] == nil {
			all[stream] = make(map[Digest]record)
		}
		all[stream][id] = r
		return nil
	})
	return all, err
}

func (b *batch) setRecord(stream string, id Digest, r record) error {
	return putRecord(b.set, stream, id, r)
}

func putRecord(put func(key, value []byte) error, stream string, id Digest, r record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return put(recordKey(stream, id), value)
}

func entryPrefix(stream string) []byte {
	return append(append(make([]byte, 0, 160), prefixEntry), stream+"\x00"...)
}

// pathPrefix begins the keys of all entries of a path. Names of streams and
// paths have no control characters, so no key begins another path's.
func pathPrefix(stream, path string) []byte {
	return append(append(entryPrefix(stream), path...), 0)
}

// entrySuffix is the length of what follows the path's prefix in a key: the
// sequence number, inverted so that newer snapshots come first, and the kind.
const entrySuffix = 4 + 1

func appendSeq(key []byte, seq uint32) []byte {
	return binary.BigEndian.AppendUint32(key, math.MaxUint32-seq)
}

func entrySeq(key []byte) uint32 {
	return math.MaxUint32 - binary.BigEndian.Uint32(key[len(key)-entrySuffix:])
}

func entryKind(key []byte) Kind {
	if i := int(key[len(key)-1]); i < len(kinds) {
		return kinds[i]
	}
	return ""
}

func entryKey(stream string, seq uint32, e Entry) []byte {
	return append(appendSeq(pathPrefix(stream, e.Path), seq), byte(slices.Index(kinds[:], e.Kind)))
}

func entryValue(e Entry) []byte {
	value := make([]byte, 0, len(e.Digest)+binary.MaxVarintLen64)
	return binary.AppendUvarint(append(value, e.Digest[:]...), uint64(e.Size))
}

func (e *Entry) setValue(value []byte) error {
	if len(value) <= len(e.Digest) {
		return errIndexValue
	}
	size, n := binary.Uvarint(value[len(e.Digest):])
	if n != len(value)-len(e.Digest) || int64(size) < 0 {
		return errIndexValue
	}
	copy(e.Digest[:], value)
	e.Size = int64(size)
	return nil
}

// addSnapshot makes the entries of a snapshot durable in the index, as the
// newest of its stream, but does not put it on the shelf.
func (x *index) addSnapshot(ctx context.Context, id Digest, m *Manifest) (shelved, error) {
	all, err := x.records(ctx)
	if err != nil {
		return shelved{}, err
	}
	if r, ok := all[m.Stream][id]; ok {
		// Left by an attempt that was cut off.
		if err := x.dropSnapshots(ctx, m.Stream, map[Digest]record{id: r}); err != nil {
			return shelved{}, err
		}
		delete(all[m.Stream], id)
	}
	var last uint32
	for _, r := range all[m.Stream] {
		last = max(last, r.Seq)
	}
	r := newRecord(m.summary(id), last+1)
	err = x.write(func(b *batch) error {
		if err := b.setRecord(m.Stream, id, r); err != nil {
			return err
		}
		for _, e := range m.Entries {
			if e.Kind == KindEvidence {
				continue // it is read by way of the manifest
			}
			if err := b.set(entryKey(m.Stream, r.Seq, e), entryValue(e)); err != nil {
				return err
			}
		}
		r.Whole = true
		return errors.Join(context.Cause(ctx), b.setRecord(m.Stream, id, r))
	})
	if err != nil {
		return shelved{}, err
	}
	return r.shelved(m.Stream, id), nil
}

// dropSnapshots removes snapshots that are not on the shelf from the index.
func (x *index) dropSnapshots(ctx context.Context, stream string, drop map[Digest]record) error {
	if len(drop) == 0 {
		return nil
	}
	seqs := make(map[uint32]bool)
	return x.write(func(b *batch) error {
		for id, r := range drop {
			seqs[r.Seq] = true
			r.Whole = false
			if err := putRecord(b.mark, stream, id, r); err != nil {
				return err
			}
		}
		err := scan(ctx, x.db, entryPrefix(stream), false, func(key, _ []byte) error {
			if !seqs[entrySeq(key)] {
				return nil
			}
			return b.delete(slices.Clone(key))
		})
		if err != nil {
			return err
		}
		for id := range drop {
			if err := b.delete(recordKey(stream, id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// find returns the entry of a path in the newest snapshot of the shelf that
// has one, at most as new as the snapshot number from on the shelf, and that
// snapshot's number.
func (x *index) find(sh *shelf, from int, v View, path string) (e Entry, at int, err error) {
	stream := sh.kept[from].Stream
	prefix := pathPrefix(stream, path)
	err = x.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix})
		defer it.Close()
		for it.Seek(appendSeq(slices.Clone(prefix), sh.kept[from].seq)); it.Valid(); it.Next() {
			key := it.Item().Key()
			if len(key) != len(prefix)+entrySuffix {
				return errIndexValue
			}
			i, kept := sh.bySeq[entrySeq(key)]
			if !kept || !v.shows(entryKind(key)) {
				continue
			}
			at, e.Kind, e.Path = i, entryKind(key), path
			return it.Item().Value(e.setValue)
		}
		return ErrMiss
	})
	if err != nil && !errors.Is(err, ErrMiss) {
		err = fmt.Errorf("cannot look up %s in the index: %w", path, err)
	}
	return e, at, err
}

// compareEntries returns those entries of m that the index does not have, or
// has otherwise, under the number seq, and how many it has.
func (x *index) compareEntries(ctx context.Context, m *Manifest, seq uint32) (lacks []Entry, have int, err error) {
	err = x.view(func(txn *badger.Txn) error {
		for _, e := range m.Entries {
			if e.Kind == KindEvidence {
				continue
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
			item, err := txn.Get(entryKey(m.Stream, seq, e))
			if errors.Is(err, badger.ErrKeyNotFound) {
				lacks = append(lacks, e)
				continue
			}
			if err != nil {
				return err
			}
			have++
			got := Entry{Kind: e.Kind, Path: e.Path}
			if item.Value(got.setValue) != nil || got != e {
				lacks = append(lacks, e)
			}
		}
		return nil
	})
	return lacks, have, err
}

// countEntries counts the entries by stream and number.
func (x *index) countEntries(ctx context.Context) (map[string]map[uint32]int, error) {
	counts := make(map[string]map[uint32]int)
	err := x.scan(ctx, []byte{prefixEntry}, false, func(key, _ []byte) error {
		stream, _, ok := bytes.Cut(key[1:], []byte{0})
		if !ok || len(key) < entrySuffix+2 {
			return errIndexValue
		}
		if counts[string(stream)] == nil {
			counts[string(stream)] = make(map[uint32]int)
		}
		counts[string(stream)][entrySeq(key)]++
		return nil
	})
	return counts, err
}
