package bundle

import (
	"fmt"
	"strconv"
	"strings"

	"oxbow/cache"
)

// A Member is one file of a bundle.
type Member struct {
	Path   string
	Digest cache.Digest
	Size   int64 // in bytes, as it is in the volume
	Volume int   // 0: it is in every volume
}

// The names of members. All that a tar header holds fits: a folder of up to 155 bytes, a name of up to 100.
const (
	siteFile     = "site.gpg"
	contentsFile = "contents.asc"
	filesDir     = "files/"
	volumesDir   = "volumes/"
	documentsDir = "documents/"
	streamsDir   = "streams/"
	snapshotsDir = "snapshots/" // below that of a stream, as the others that follow
	handoversDir = "handovers/"
	upstreamFile = "upstream.gpg"
	streamFile   = "stream.json"
	zstdSuffix   = ".zst"

	// MaxSmall bounds keyrings, handovers and descriptions in bytes.
	MaxSmall = 4 << 20
)

// SitePath is the name of the keyring of the site that made a bundle.
func SitePath() string { return siteFile }

// UpstreamKeysPath is the name of the keyring that upstream of a stream signs with.
func UpstreamKeysPath(stream string) string { return streamsDir + stream + "/" + upstreamFile }

// SiteKeysPath is the name of the keyring that signs what clients of a stream read.
func SiteKeysPath(stream string) string { return streamsDir + stream + "/" + siteFile }

// StreamPath is the name of the description of a stream.
func StreamPath(stream string) string { return streamsDir + stream + "/" + streamFile }

// HandoverPath is the name of the nth handover of a stream, counted from 1.
func HandoverPath(stream string, n int) string {
	return fmt.Sprintf("%s%s/%s%d.asc", streamsDir, stream, handoversDir, n)
}

// SnapshotPath is the name of a manifest.
func SnapshotPath(stream string, id cache.Digest) string {
	return streamsDir + stream + "/" + snapshotsDir + id.String() + zstdSuffix
}

// DocumentPath is the name of a document.
func DocumentPath(d cache.Digest) string { return documentsDir + d.String() + zstdSuffix }

// FilePath is the name of a file.
func FilePath(d cache.Digest) string { return filesDir + d.String() }

// VolumePath is the name of the member that says which volume it is in.
func VolumePath(n int) string { return fmt.Sprintf("%s%d", volumesDir, n) }

// A Kind says what a member is.
type Kind string

const (
	KindUnknown  Kind = ""
	KindKeys     Kind = "keys"
	KindStream   Kind = "stream"
	KindHandover Kind = "handover"
	KindSnapshot Kind = "snapshot"
	KindDocument Kind = "document"
	KindVolume   Kind = "volume"
	KindFile     Kind = "file"
)

// Kind says what the member is.
func (m Member) Kind() Kind {
	stream, rest := m.Stream()
	dir, _, _ := strings.Cut(m.Path, "/")
	switch {
	case m.Path == siteFile:
		return KindKeys
	case dir+"/" == documentsDir:
		return KindDocument
	case dir+"/" == volumesDir:
		return KindVolume
	case dir+"/" == filesDir:
		return KindFile
	case stream == "":
		return KindUnknown
	case rest == streamFile:
		return KindStream
	case rest == siteFile, rest == upstreamFile:
		return KindKeys
	case strings.HasPrefix(rest, snapshotsDir):
		return KindSnapshot
	}
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rest, handoversDir), ".asc"))
	if err == nil && n > 0 && m.Path == HandoverPath(stream, n) {
		return KindHandover
	}
	return KindUnknown
}

// Stream returns the stream to which a member belongs, and its name there; none for one of the whole bundle.
func (m Member) Stream() (stream, name string) {
	rest, ok := strings.CutPrefix(m.Path, streamsDir)
	if !ok {
		return "", ""
	}
	stream, name, _ = strings.Cut(rest, "/")
	return stream, name
}

// Content returns the digest that a snapshot or a document has once it is decompressed.
func (m Member) Content() cache.Digest {
	name := m.Path[strings.LastIndexByte(m.Path, '/')+1:]
	d, err := cache.ParseDigest(strings.TrimSuffix(name, zstdSuffix))
	if err != nil {
		return m.Digest
	}
	return d
}

// ustarMax is the largest size that a ustar header can say.
const ustarMax = 1<<33 - 1

// size is what a member takes in a volume, its header included.
func (m Member) size() int64 {
	n := 512 + (m.Size+511)/512*512
	if m.Size > ustarMax {
		n += 1024 // a pax header and its record
	}
	return n
}
