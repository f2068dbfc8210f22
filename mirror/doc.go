// Package mirror keeps streams like their upstreams.
//
// A sync reads and verifies the metadata of the first source that has a good
// one, plans what to publish, fetches what the store lacks, and publishes one
// snapshot. What it stands by:
//
//   - Metadata older than what was accepted before is refused, index and lists
//     alike: an old copy, though well signed, may hide security updates.
//   - A version is published with all its files or not at all.
//   - What was published stays when its successor cannot be had or would be
//     refused by MAAS, and when its product vanishes upstream, together with the
//     signed document that vouches for it.
//   - Whatever a snapshot publishes, the document of upstream's that vouches for it is
//     in the snapshot, signature and all ([TraceCustody]). Where upstream is a site like
//     this one, its custody volume is in the snapshot too, if it offers one ([Custodian]):
//     a bundle without files, of what that site has of its own upstream. So the chain goes
//     on to the first upstream, over up to eight sites.
//   - The site's documents change only with what they say: clients poll them by
//     the hour, and a new date means new work for them.
//   - Nothing is written when nothing is new.
//
// Package upstream is how upstreams are asked.
//
// A [Scheduler] syncs streams by itself: every so often or at a time of the day, again
// after a failure, and at once when a run was missed. What it knows is kept in
// STORE/schedule.json, for reading commands and the next process; lost, every stream
// with a schedule is due.
//
// What was published can be taken back ([Mirror.Rollback]): the content of an older
// snapshot is published anew, and the stream held until [Mirror.Resume], so that no sync
// undoes that. What is damaged or lost in the store, [Mirror.Repair] fetches again from
// upstream, by the path under which a snapshot names it, and proves.
//
// Snapshots cross an air gap as bundles, which package bundle defines. [PlanExport] says
// what one brings, [Mirror.Import] takes volumes in, in any order, and publishes what is
// whole and continues what is here, [UnfinishedBundles] says of which more is to come
// ([Mirror.AbandonBundle] gives one up), [InspectBundle] what a bundle has, and
// [Mirror.Have] what the next one can do without. Nothing is published that clients
// could not read, or not believe with the keys that they are given. Whose bundles count, the operator says
// ([Mirror.TrustKeys]). A stream that came by bundles keeps the documents and signatures
// of the site that made them, and a list of handovers from there to here.
//
// A plain tree, as sstream-mirror makes it, can stand in for the upstreams of one sync ([Tree]), and what is published can be
// written as one for other web servers ([ExportTree]).
//
// The state of a stream, STORE/streams/<name>.json, is its definition, the
// upstream state accepted last and how the last sync ended. It is written after
// the switch to a new snapshot; lost, it costs the next sync some requests.
package mirror
