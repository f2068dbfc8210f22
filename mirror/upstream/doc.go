// Package upstream fetches documents and files from upstreams over HTTP/1.1.
//
// It takes what people suffer from as given: thin and shared lines, servers that hang, cut, redirect, throttle, answer ranges or do
// not, and replace a file while it is fetched. So a [Client] bounds the time without a byte and not that of a transfer, tries again
// with growing pauses, goes on where it was cut, fetches a large file in ranges over several connections, and keeps to a limit of
// bytes a second.
//
// It believes nobody: what a file has to be, the ingest of the store says that it lands in, and proves. Documents it returns as they
// came, of bounded size, for the caller to verify. Errors name the URL, without the secrets that it may hold.
package upstream
