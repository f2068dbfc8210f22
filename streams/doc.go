// Package streams reads, selects from and publishes simplestreams metadata.
//
// (to be written)
package streams

// MaxDocument is the greatest size in bytes of a document that is read.
const MaxDocument = 64 << 20
