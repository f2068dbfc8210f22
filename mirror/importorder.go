package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"oxbow/cache"
	"oxbow/mirror/bundle"
)

// An orderedVolume is a volume of which it is known where it belongs, if it is not the only one.
type orderedVolume struct {
	Volume
	bundle   cache.Digest // its id
	contents *bundle.Contents
}

// inOrder returns the volumes of a bundle together, those of older bundles first. Each is looked into for that, and then begun anew.
// One of which not even that can be read is left out, and noted as damaged; any other error comes before anything is taken in.
func (im *importing) inOrder(volumes []Volume) ([]orderedVolume, error) {
	if len(volumes) == 1 { // which may be standard input
		return []orderedVolume{{Volume: volumes[0]}}, nil
	}
	var ordered []orderedVolume
	for _, v := range volumes {
		seeker, ok := v.Reader.(io.Seeker)
		if !ok {
			return nil, fmt.Errorf("cannot import %s beside others: it is no file", v.Name)
		}
		r, err := bundle.NewReader(v.Reader, im.trust, im.m.now())
		if err == nil {
			_, err = seeker.Seek(0, io.SeekStart)
		}
		if err != nil {
			err = fmt.Errorf("cannot import %s: %w", v.Name, err)
		}
		if errors.Is(err, bundle.ErrDamaged) {
			im.damaged = append(im.damaged, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		ordered = append(ordered, orderedVolume{v, r.Contents.ID(), r.Contents})
	}
	slices.SortStableFunc(ordered, func(a, b orderedVolume) int {
		return cmp.Or(a.contents.Created.Compare(b.contents.Created), a.bundle.Compare(b.bundle))
	})
	return inSequence(ordered), nil
}

// inSequence returns the volumes of a bundle behind those of bundles that it continues: two may be of the same second.
func inSequence(volumes []orderedVolume) (sequence []orderedVolume) {
	for len(volumes) > 0 {
		next := volumes[0].bundle
		for _, v := range volumes {
			if !slices.ContainsFunc(volumes, v.continues) {
				next = v.bundle
				break
			}
		}
		for _, v := range volumes {
			if v.bundle == next {
				sequence = append(sequence, v)
			}
		}
		volumes = slices.DeleteFunc(volumes, func(v orderedVolume) bool { return v.bundle == next })
	}
	return sequence
}

// continues reports whether the volume's bundle continues a snapshot that the other's brings.
func (v orderedVolume) continues(other orderedVolume) bool {
	return slices.ContainsFunc(v.contents.Snapshots, func(s bundle.Snapshot) bool {
		return slices.ContainsFunc(other.contents.Snapshots, func(o bundle.Snapshot) bool { return o.Stream == s.Stream && o.ID == s.Since })
	})
}
