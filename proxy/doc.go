// Package proxy is the HTTP front end: it serves the snapshots of a store to
// boot-image clients.
//
// # The way of a request
//
// The path is taken apart by hand, because a router that redirects breaks
// clients: MAAS 3.7 and later follow no redirect below a boot source. The
// longest stream prefix wins, what is left is looked up in the current snapshot
// of that stream, then in the older ones that are kept, and the file is sent by
// [http.ServeContent] straight from disk. Whatever else is asked for is answered
// with a short 404 in plain text. A path decodes once, and one that could mean
// anything but a plain relative name (a dot segment, an empty segment, an encoded
// slash, a backslash, a control character) names nothing. The front end never asks
// another host on a client's behalf, and a proxy-style target (GET http://...) is
// not known here either: those are for the forward proxy, which has a listener of
// its own ([Server.ServeForward]).
//
// # What an answer promises
//
// A file comes unencoded with its exact length, the digest of its bytes as strong
// ETag, ranges and conditional requests. Items are application/octet-stream.
// Caches on the way have to revalidate whatever they keep. Cache-Status (RFC
// 9211) says where the bytes came from: "oxbow; hit", with detail=older-snapshot
// when the current snapshot does not name the path any more.
//
// A file that is missing from the store, or is not as long as its snapshot says,
// is reported in the log as an integrity error and never sent. It is fetched from
// upstream again, as a fill, and Cache-Status says detail=damaged. Where that cannot
// be (this server is offline, or the file is a document, which the next sync publishes
// anew), clients for which a status is final are cut, and try again later; the others
// see a 404. A file that ends early while it is being sent is cut short of its
// declared length, and fetched for who asks next.
//
// # What is the server's own
//
// Below /-/ are the keyring, each kept snapshot under a URL of its own, the custody of each
// snapshot with documents of the site's own (/-/custody/STREAM/ID, a bundle without files, to
// which the Link header of its index points), metrics, and the probes healthz and readyz. The server is ready when each stream has something to serve;
// what else an operator should know follows as notes, which change no status.
//
// Where there are [Tokens], all but the probes is for who shows one; where there is a
// [Certificate], nothing but TLS is spoken. Both are read again when their files change,
// and what was in effect stays when the new files cannot be used.
//
// # The forward proxy
//
// Clients that keep upstream's URLs, and have this server as their http_proxy, get
// what is below a stream's upstream from the store, by the same way, but always
// with upstream's own documents: those are what they hold the keys for. What an
// [Allowed] names is relayed beside that, GET and HEAD without a body, or tunnelled
// unread; only HOST:PORT allows a tunnel, since nobody sees its path. Everything
// else, the upstreams by CONNECT included, is refused with 403 and a line that names
// the key of the configuration which would allow it. A name that stands for a
// loopback, link-local or cloud metadata address is refused even where it is
// allowed: that takes the address itself. Connections are made directly, to the
// address that was looked at, and TLS of a relayed https:// URL is verified. What is
// for one connection only is dropped, Via is added, and a request that shows our own
// ends. No body is buffered.
//
// # Limits
//
// A head has up to 36 KiB. Connections are counted over all listeners, tunnels
// included, and beyond [Options].Connections wait in the kernel. A client costs
// some 140 KiB at most, however slowly it reads: files go from disk by sendfile, what
// is relayed through one small buffer.
//
// # Time
//
// Request heads and idle connections have time-outs. Responses have none as a
// whole, since an image may take an hour on a slow line, but a stall limit that
// is renewed as bytes flow. When the server is told to end it stops accepting,
// lets the running downloads go on for the drain limit and then cuts the rest;
// every known client resumes or tries again. A tunnel ends when nothing came through
// for ten minutes, or for two seconds once the server is told to end; a host that is
// relayed has the stall limit for each of its reads and writes.
package proxy
