package cache

import (
	"cmp"
	"slices"
)

// An Extent is a run of bytes of a file.
type Extent struct {
	Off int64
	Len int64 // -1: to the end of a file whose size is not known
}

func (e Extent) end() int64 { return e.Off + e.Len }

// extents is a set of bytes: sorted, no two of them overlap or touch.
type extents []Extent

// overlaps reports whether a byte of e is in x. An e of no length is inside an extent or overlaps nothing.
func (x extents) overlaps(e Extent) bool {
	i, _ := x.search(e.Off)
	return i > 0 && x[i-1].end() > e.Off || i < len(x) && x[i].Off < e.end()
}

// search returns the index of the first extent that begins at or after off.
func (x extents) search(off int64) (int, bool) {
	return slices.BinarySearchFunc(x, off, func(e Extent, off int64) int { return cmp.Compare(e.Off, off) })
}

// add returns x with the bytes of e.
func (x extents) add(e Extent) extents {
	if e.Len <= 0 {
		return x
	}
	i, _ := x.search(e.Off)
	if i > 0 && x[i-1].end() >= e.Off {
		i--
	}
	j := i
	for j < len(x) && x[j].Off <= e.end() {
		end := max(e.end(), x[j].end())
		e.Off = min(e.Off, x[j].Off)
		e.Len = end - e.Off
		j++
	}
	return slices.Replace(x, i, j, e)
}

// insert returns x with e, which must not overlap it, kept apart from its neighbours.
func (x extents) insert(e Extent) extents {
	i, _ := x.search(e.Off)
	return slices.Insert(x, i, e)
}

// remove returns x without e, which must be one of its extents.
func (x extents) remove(e Extent) extents {
	i, _ := x.search(e.Off)
	return slices.Delete(x, i, i+1)
}

// prefix returns how many bytes from the first on are in x.
func (x extents) prefix() int64 {
	if len(x) == 0 || x[0].Off > 0 {
		return 0
	}
	return x[0].Len
}

// missing returns the extents of [0, size) that are not in x, in order.
func (x extents) missing(size int64) []Extent {
	var out []Extent
	off := int64(0)
	for _, e := range x {
		if e.Off > off {
			out = append(out, Extent{off, e.Off - off})
		}
		off = e.end()
	}
	if off < size {
		out = append(out, Extent{off, size - off})
	}
	return out
}

// clip returns the part of x below size.
func (x extents) clip(size int64) extents {
	var out extents
	for _, e := range x {
		if e.Off < size {
			out = append(out, Extent{e.Off, min(e.end(), size) - e.Off})
		}
	}
	return out
}

// total returns how many bytes are in x.
func (x extents) total() (n int64) {
	for _, e := range x {
		n += e.Len
	}
	return n
}

// ahead returns how many bytes from off on are in x without a gap.
func (x extents) ahead(off int64) int64 {
	i, found := x.search(off)
	if !found {
		i--
	}
	if i < 0 {
		return 0
	}
	return max(x[i].end()-off, 0)
}
