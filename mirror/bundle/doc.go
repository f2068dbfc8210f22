// Package bundle is the format in which snapshots travel on a disk: what is in it, who signed that, and how it is written and read.
// It knows no store and no network.
//
// # Format
//
// A bundle is one volume or more, each a tar file (POSIX ustar; members of 8 GiB or more with a pax size) of plain files, that can be
// read by tar and checked by sha256sum. Each has, in this order and nothing else:
//
//	site.gpg                            the public keys of the site that made the bundle, a binary keyring
//	contents.asc                        the table of contents of the whole bundle, clearsigned with the site's key
//	streams/STREAM/stream.json          what the stream is: its path, its kind
//	streams/STREAM/upstream.gpg         the public keys that upstream signs with
//	streams/STREAM/site.gpg             the public keys that sign the documents which clients of the stream read
//	streams/STREAM/handovers/N.asc      who handed the snapshot over, clearsigned: the first first, the maker of this bundle last
//	streams/STREAM/snapshots/ID.zst     the snapshot's manifest, whose SHA-256 is ID
//	documents/DIGEST.zst                a document that a manifest names: upstream's own, byte for byte, and the site's
//	volumes/N                           which volume this is
//	files/DIGEST                        a file that a manifest names and that is not there already, as it is
//
// What stands before volumes/N is in every volume, so that each can be verified by itself, in any order. Names are those of cache's
// entries: a manifest says under which path of the stream a digest is served. Metadata is compressed with zstd, images are not, since
// they do not get smaller.
//
// The table of contents is a text that `sha256sum --check --ignore-missing` takes. Lines that begin with # say the rest:
//
//	# oxbow bundle 1
//	# made by oxbow 1.2.0
//	# created 2026-11-27T14:05:10Z
//	# site 4C1E...                            fingerprint of the key that signs
//	# snapshot STREAM ID since ID|nothing     one line a stream; since: what has to be there already
//	# needs DIGEST SIZE                       a blob that has to be there already
//	# volumes 3
//	# in every volume
//	# 1402                                    bytes of the next member
//	DIGEST  site.gpg
//	...
//	# in volume 1
//	# 2
//	DIGEST  volumes/1
//	...
//
// Its SHA-256 is the bundle's id. The signature is dated as the bundle is, which is the time of its newest snapshot: the same
// snapshots and the same oxbow give the same bytes.
//
// A bundle of which every file is there already brings none: then it is the custody of its snapshots, what vouches for them. One
// volume of one snapshot that is so is called a custody volume, and is what sites hand on over the network.
//
// # Reading
//
// A [Reader] takes volumes from anybody, and reads them forward: a pipe will do. It believes nothing before the table of contents has
// a good signature by a key that the caller trusts, reads members in the order of the table and no other, refuses every other type
// of member and every other name, and bounds what it holds in memory.
package bundle
