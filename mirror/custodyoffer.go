package mirror

import (
	"errors"
	"fmt"
	"strings"

	"oxbow/cache"
	"oxbow/mirror/upstream"
)

// custodyRelation is the relation (RFC 8288) of an index to the custody of its snapshot: W3C's PROV-AQ has it for what says where
// something comes from, in whatever format. The type tells ours from others.
const (
	custodyRelation = "http://www.w3.org/ns/prov#has_provenance"

	// CustodyType is the media type of a custody volume.
	CustodyType = "application/x-tar"
)

// CustodyDir is the path below which a server has custody volumes, as STREAM/ID.
const CustodyDir = "/-/custody/"

// CustodyLink is the value of the Link header of an index that is served under path: where the custody of its snapshot is. The
// reference is relative, so that it is right behind a reverse proxy that maps a prefix.
func CustodyLink(path, stream string, snapshot cache.Digest) string {
	up := strings.Repeat("../", strings.Count(path, "/")-1)
	if up == "" {
		up = "./"
	}
	return fmt.Sprintf(`<%s%s%s/%v>; rel="%s"; type="%s"`, up, CustodyDir[1:], stream, snapshot, custodyRelation, CustodyType)
}

// An offer is where an answer says that the custody of what it brought is to be had.
type offer struct {
	url     string // may hold a password
	problem error  // why it is not asked for; nil: it may be
}

// offered returns what an answer with these links offers; nil: nothing.
func offered(links []upstream.Link) *offer {
	for _, l := range links {
		if !l.Relates(custodyRelation) || l.Params["type"] != CustodyType {
			continue
		}
		o := &offer{url: l.URL}
		if l.Elsewhere {
			o.problem = errElsewhere
		}
		return o
	}
	return nil
}

var errElsewhere = errors.New("it is at another server than the index, which is not asked for it")
