// Package control is the socket on which the owner of a store does work for
// other processes.
//
// Badger allows one process, so one process owns a store: `oxbow serve`, or a
// command for as long as it runs. It listens on STORE/oxbow.sock. A command that
// finds it there has the owner do its work, and shows what the owner says: so it
// prints the same and ends with the same status as if it had the store to itself.
//
// This package carries works and what is said of them. It knows none of them.
//
// # Protocol
//
// A connection carries one work. Both sides send messages, JSON objects one
// behind the other. The server begins with an [Owner], or with a refusal; the
// client answers with a [Request], or hangs up. From then on the server sends
// what the work prints and how far it has come, and at last its exit status:
//
//	← {"owner":{"protocol":1,"version":"1.2.0","role":"serve","command":"oxbow serve","pid":311}}
//	→ {"protocol":1,"version":"1.2.0","command":"mirror sync","work":{"names":["stable"]}}
//	← {"progress":{"phase":"fetching"}}
//	← {"stdout":"c3RhYmxlOiBub3RoaW5nIG5ldwo="}
//	← {"status":0}
//
// The client may send {"stop":"REASON"} at any time: the work is told to end, and
// says how it did. A client that hangs up, dies, or reads nothing for a minute while
// there is something for it, stops its work too, unless the request says detach: then
// the server answers {"status":0} as soon as it has begun, and nothing but the end of
// the owner stops it.
//
// A request may come with open files of the client's ("files": how many, [MaxFiles] at
// most), which the kernel passes on: so a daemon reads from and writes to a disk that
// it cannot see, or the client's standard input and output, and no byte takes a way
// round.
//
// # Who may connect
//
// The user to whom the store's directory belongs, and root: the kernel says who
// that is (SO_PEERCRED). The socket's mode keeps others away before that.
package control
