// Package streams is the simplestreams metadata format: it parses, verifies,
// selects from, rewrites, renders and signs documents. It knows no HTTP and no
// disk.
//
// # The format
//
// A tree has one [Index] (format index:1.0) at streams/v1/index.json, or signed
// at streams/v1/index.sjson. The index names lists ([Products], products:1.0),
// each by a content id. A list has products, a product has versions, a version
// has items, and an item with a path is a file of the tree, with its size and
// checksums. Where something stands is its [Pedigree].
//
// Any object may carry more members than this package knows. They are kept, in
// their order and as they were written ([Fields]), so that a document in
// upstream's own layout comes out of Render byte for byte.
//
// Scalars are inherited: what a list, product or version says holds for the
// items below, unless they say otherwise ([Products.Tag]). Whatever an upstream
// says, a [Path] cannot leave the tree, and no document is read beyond
// [MaxDocument].
//
// # From upstream's lists to ours
//
// [Products.Choose] takes the wanted part of a list, [Products.AddVersion] lays
// versions published before back into it, [Products.Conform] makes the result
// acceptable to the clients of a [Profile] and says what that costs, and
// [Site.Render] publishes it under our own signature.
//
// Parsed documents refer to the text they were parsed from, and lists to the
// lists they were made of: neither may be changed but by methods.
package streams

// MaxDocument is the greatest size in bytes of a document that is read.
const MaxDocument = 64 << 20
