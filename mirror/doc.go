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
//     in the snapshot, signature and all ([TraceCustody]).
//   - The site's documents change only with what they say: clients poll them by
//     the hour, and a new date means new work for them.
//   - Nothing is written when nothing is new.
//
// A [Scheduler] syncs streams by itself: every so often or at a time of the day, again
// after a failure, and at once when a run was missed. What it knows is kept in
// STORE/schedule.json, for reading commands and the next process; lost, every stream
// with a schedule is due.
//
// A plain tree, as sstream-mirror makes it, can stand in for the upstreams of one sync ([Tree]), and what is published can be
// written as one for other web servers ([ExportTree]).
//
// The state of a stream, STORE/streams/<name>.json, is its definition, the
// upstream state accepted last and how the last sync ended. It is written after
// the switch to a new snapshot; lost, it costs the next sync some requests.
package mirror
