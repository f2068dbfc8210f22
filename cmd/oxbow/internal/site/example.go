package site

import (
	_ "embed"
	"slices"
)

//go:embed example.yaml
var example []byte

// Example returns a configuration file to begin with, in which every key is
// explained. What is commented out, without a space behind the #, is what holds
// without it.
func Example() []byte { return slices.Clone(example) }
