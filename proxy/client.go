package proxy

import (
	"net/http"
	"path"
	"strings"
)

// What is known of clients by their User-Agent.
//
// MAAS 3.5 and 3.6 fetch files with aiohttp and chunked=True, which leaves the five
// bytes "0\r\n\r\n" behind the head of each GET. On a kept connection they read as a
// malformed request, and the next file that the client asks for there fails. So file
// downloads of these clients end with the connection.
//
// MAAS 3.8 takes any 4xx and 5xx on a file as final and fails the selection, while it
// tries a broken connection again for two hours; python-simplestreams knows only 404
// and takes the body of every other status as data. When the fault is ours, for such
// clients no answer is better than a wrong one.

// leavesStrayBytes reports whether the client is one of those that write behind the
// head of a bodiless request.
func leavesStrayBytes(r *http.Request) bool {
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "maas/") || strings.Contains(agent, "aiohttp/")
}

// takesStatusAsFinal reports whether the client does better with a broken connection
// than with an error status.
func takesStatusAsFinal(r *http.Request) bool {
	return leavesStrayBytes(r) || strings.HasPrefix(r.UserAgent(), "python-simplestreams/")
}

// endsConnection reports whether the connection has to end with the answer: for whole
// files, found or not, to clients that leave stray bytes. Documents keep it, because
// those are fetched by another library that behaves, and so do ranges, which the
// clients in question never ask for.
func endsConnection(r *http.Request, document bool) bool {
	return !document && r.Method == http.MethodGet && r.Header.Get("Range") == "" && leavesStrayBytes(r)
}

// documentType returns the media type of a document, and "" for names that are not
// those of documents.
func documentType(name string) string {
	switch path.Ext(name) {
	case ".json":
		return "application/json"
	case ".sjson":
		return "text/plain; charset=utf-8"
	case ".gpg":
		return "application/pgp-signature"
	}
	return ""
}
