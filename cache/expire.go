package cache

import (
	"slices"
)

// expired asks which of the kept snapshots may go.
func (s *Store) expired(o SweepOptions) (map[Digest]string, error) {
	all := make(map[Digest]string)
	if o.Expired == nil {
		return all, nil
	}
	streams, err := s.files.published()
	if err != nil {
		return nil, err
	}
	pins, err := s.files.pins()
	if err != nil {
		return nil, err
	}
	for _, stream := range streams {
		kept, err := s.Snapshots(stream)
		if err != nil {
			continue // whatever is wrong with it, none of it goes
		}
		for id, why := range o.Expired(stream, kept) {
			if id != kept[0].ID && !slices.Contains(pins, id) {
				all[id] = why
			}
		}
	}
	return all, nil
}

// forget takes the expired snapshots of a plan off the lists of what is kept, and off the shelves, but for those that are current
// or pinned by now.
func (s *Store) forget(items []SweepItem) error {
	pins, err := s.files.pins()
	if err != nil {
		return err
	}
	gone := make(map[string][]Digest)
	for _, i := range items {
		if i.expired && !slices.Contains(pins, i.Digest) {
			gone[i.Stream] = append(gone[i.Stream], i.Digest)
		}
	}
	for stream, ids := range gone {
		if err := s.forgetOf(stream, ids); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) forgetOf(stream string, gone []Digest) error {
	kept, err := s.files.kept(stream)
	if err != nil {
		return err
	}
	stay := slices.DeleteFunc(slices.Clone(kept[1:]), func(id Digest) bool { return slices.Contains(gone, id) })
	if len(stay) == len(kept)-1 {
		return nil
	}
	if err := s.disk.WriteFile(currentName(stream), encodeKept(append(kept[:1:1], stay...)), 0o644); err != nil {
		return s.full(err)
	}
	if sh := s.index.shelf(stream); sh != nil {
		on := slices.DeleteFunc(slices.Clone(sh.kept), func(o shelved) bool { return slices.Contains(gone, o.ID) && !o.Current })
		s.index.setShelf(stream, newShelf(on))
	}
	return nil
}
