package main

import (
	"slices"
	"strings"
	"testing"
)

// A section is what README has under one heading.
type section struct {
	t       *testing.T
	heading string
	text    string
	blocks  []string // what is indented, without the indentation
}

func readSection(t *testing.T, readme, heading string) *section {
	t.Helper()
	_, text, ok := strings.Cut(readme, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("README has no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	s := &section{t: t, heading: heading, text: text}
	within := false
	for line := range strings.Lines(text) {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented && within:
			s.blocks[len(s.blocks)-1] += code
		case indented:
			s.blocks = append(s.blocks, code)
		}
		within = indented
	}
	return s
}

// block returns the block that begins with those words, once.
func (s *section) block(beginning string) string {
	s.t.Helper()
	i := slices.IndexFunc(s.blocks, func(b string) bool { return strings.HasPrefix(b, beginning) })
	if i < 0 {
		s.t.Fatalf("README, %q: no block (left) that begins with %q", s.heading, beginning)
	}
	block := s.blocks[i]
	s.blocks = slices.Delete(s.blocks, i, i+1)
	return block
}

// inline returns a command that README has within a sentence.
func (s *section) inline(command string) string {
	s.t.Helper()
	if !strings.Contains(s.text, "`"+command+"`") {
		s.t.Fatalf("README, %q: no longer says `%s`", s.heading, command)
	}
	return command
}

// end fails the test if a block was not asked for.
func (s *section) end() {
	for _, b := range s.blocks {
		s.t.Errorf("README, %q: the test does not know what to do with the block\n%s", s.heading, b)
	}
}
