package streamstest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"oxbow/streams"
	"oxbow/streams/streamstest"
)

// A client reads the index, upstream publishes another day, and the next file
// arrives cut short.
func Example() {
	tree := streamstest.MAAS(streamstest.Shape{Releases: []string{"noble"}})
	up := streamstest.NewUpstream(tree)
	server := httptest.NewServer(up)
	defer server.Close()
	get := func(path string) ([]byte, error) {
		resp, err := http.Get(server.URL + "/" + path)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(resp.Body)
	}

	keyring, _ := streams.ReadKeyring(tree.Keyring())
	doc, _ := get(streamstest.IndexPath)
	signed, err := keyring.Verify(doc, time.Now())
	fmt.Println("signed by", signed.SignedBy, err)

	added := tree.AddDay()
	tree.Trim(2)
	up.Publish(tree)
	fmt.Println(len(added), "new files, the last is", added[len(added)-1])

	up.SetFault(streamstest.At("/squashfs", streamstest.Fault{CutAfter: 1000}))
	body, err := get("noble/amd64/20250719/squashfs")
	fmt.Println(len(body), "bytes,", err)
	fmt.Println(up.Hits(streamstest.IndexPath), "request for the index,", up.TotalBytes()-int64(len(doc)), "bytes of files")

	// Output:
	// signed by streamstest upstream <nil>
	// 8 new files, the last is noble/amd64/20250719/squashfs.manifest
	// 1000 bytes, unexpected EOF
	// 1 request for the index, 1000 bytes of files
}
