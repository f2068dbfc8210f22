package cache

// Locate returns the blob with the wanted content, and whether the store has it, in the wanted size. A content whose SHA-256 is
// not given is known by its other sums if it was taken in by them and the index was not lost since; the digest is zero where it is
// not known.
func (s *Store) Locate(w Want) (d Digest, here bool) {
	d = w.SHA256
	if d.IsZero() {
		d, _ = s.alias(w.key())
	}
	facts, err := s.index.blob(d)
	return d, err == nil && (w.Size < 0 || facts.Size == w.Size)
}
