// Package cache stores boot images by content, and complete views of streams by name.
//
// A blob is a file named by the SHA-256 of its bytes; it never changes. A snapshot is a complete set of names for blobs, written down
// in a manifest; for each stream exactly one is current. A [Store] is owned by one process at a time; [Files] reads it beside
// that process.
//
// # Layout
//
//	FORMAT                    the version of this layout: "oxbow store 1"
//	LOCK                      flock held by the owner; says who that is
//	streams/NAME.json         what is kept of a stream beside its snapshots
//	blobs/sha256/ab/DIGEST    blobs, read-only
//	snapshots/STREAM/ID       manifests
//	current/STREAM            the IDs of the kept snapshots, the current one first
//	pins/ID                   snapshots to keep
//	bundles/ID                what a bundle or a tree brings that is not here as a whole yet
//	ingest/                   bytes that are not proven yet, and files that are not whole yet
//	keys/                     private keys, and keys/trusted/ public ones
//	index/                    Badger
//	ballast                   space to give up when the disk is full
//	schedule.json             when streams were synced last and are next; may be lost
//	oxbow.sock                the control socket of the owner
//
// The files are the truth. The index answers quickly what they say: which blobs there are, how large and of which fingerprint, and
// what a path names in which snapshot. It is made anew from the files when it is lost or damaged, and completed when it is behind.
//
// # Order
//
// A blob is durable before the index knows it; it is durable and known before a manifest names it; the manifest is durable before
// the index has its entries; and those are there before the snapshot is current. Deletion goes the other way. So a crash at any
// point leaves the old or the new snapshot, whole, and at worst files that nothing names, for a sweep. A stream that is dropped
// loses its manifests all at once: so it is whole or gone.
//
// Content comes in through an [Ingest], under a name that says what it should become. Its sums are computed as the bytes land, and
// only what is proven leaves ingest/. A large blob is then synced by itself: its bytes, its new name, its entry in the index.
// Small ones wait for [Store.Flush], where thousands share one sync. Until then, and wherever a sync fails, [Store.Has] says no.
//
// A log at level debug is told of each step of this, and of each operation on the disk, before it is taken: see [Step].
//
// # What is pulled
//
// A blob that came by [Store.BeginPull], and that no kept snapshot needs, is pulled: snapshots know it at most. All pulled ones
// together keep within a limit, beside what is on its way; the least recently used go first, and none that is leased. A
// publication takes those out of the account that its snapshot needs, before it is current; a sweep puts those in that snapshots
// no longer need, and removes those that none even knows, since nobody can ask for them. The index holds the account. Without
// it, the files that snapshots only know are pulled, and were used last when they were written.
//
// An eviction is a deletion like others: the index first, the file then. Before, the index notes what is to go, so that the next
// owner removes what a crash has left.
//
// # What a crash leaves
//
// What was being fetched stays in ingest/ with a record of the extents that are there, of which at most 1 MiB for each writer is
// lost; the next [Store.Begin] goes on from there. Small blobs that were proven and not flushed are found there again. A blob
// that had its name already but was not in the index is proven again when somebody asks for its content, and not fetched.
//
// The next owner sees by LOCK that the last one died. It makes durable what that one did, before it builds on it, and does not take
// the index's word for blobs that are gone, nor for what may be evicted.
//
// # Full disk
//
// [Store.Begin] refuses what would eat into the reserve, counting what the running ingests may still write; pulled blobs are
// evicted before it does. When the disk is full
// all the same, the ballast is given up so that the owner can go on serving and sweeping, and nothing is written to the index
// without room: Badger would not survive it. Nor is the index closed without room, or on a disk that takes no writes any more: it is
// left as a crash leaves it.
package cache
