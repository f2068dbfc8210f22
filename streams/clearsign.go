package streams

import (
	"bytes"
	"fmt"
	"strings"
)

const (
	clearHeader = "-----BEGIN PGP SIGNED MESSAGE-----"

	// blank is the white space that a signature does not cover at the end of a line.
	blank = " \t\r"

	// maxLine is the longest line, in bytes, that is signed: gpgv gives up on lines
	// of 20,000, and an escape adds two.
	maxLine = 19000
)

// digestNames are the message digests by their OpenPGP number (RFC 9580, section
// 9.5), under the names that a clearsigned document's Hash header uses.
var digestNames = map[byte]string{
	1: "MD5", 2: "SHA1", 3: "RIPEMD160", 8: "SHA256", 9: "SHA384", 10: "SHA512",
	11: "SHA224", 12: "SHA3-256", 14: "SHA3-512",
}

// weakDigest reports whether a signature over the digest of this number proves
// nothing any more.
func weakDigest(id byte) bool { return id == 1 || id == 2 || id == 3 }

// IsClearsigned reports whether doc begins as a clearsigned document does.
// Whether its signature is any good, only [Keyring.Verify] tells.
func IsClearsigned(doc []byte) bool {
	line, _, found := bytes.Cut(doc, []byte("\n"))
	return found && string(bytes.TrimSuffix(line, []byte("\r"))) == clearHeader
}

// ClearText returns the text of a clearsigned document as [Keyring.Verify] does,
// WITHOUT verifying its signature. It is for sources that the operator allowed
// to be unsigned, and for nothing else.
func ClearText(doc []byte) ([]byte, error) {
	c, err := parseClearsigned(doc)
	if err != nil {
		return nil, err
	}
	return c.text, nil
}

// clearsigned is the frame of a clearsigned document taken apart, nothing of it
// verified yet.
type clearsigned struct {
	text      []byte   // lines without dash escapes and trailing white space, each ended by "\n"
	digests   []string // what the Hash header names
	signature []byte   // the content of the armored block
}

// parseClearsigned takes doc apart (RFC 4880, section 7). It accepts only what
// gpgv and the clients' own readers understand alike: no byte before the header
// or after the signature, and exactly one header line, a Hash header. Python
// simplestreams takes any further header line for text, and would take the
// first line of text for a header if there were none.
func parseClearsigned(doc []byte) (*clearsigned, error) {
	if len(doc) > MaxDocument {
		return nil, fmt.Errorf("document of %d bytes is larger than %d", len(doc), MaxDocument)
	}
	if !IsClearsigned(doc) {
		if bytes.Contains(doc, []byte("\n"+clearHeader)) {
			return nil, fmt.Errorf("%w: before its header", ErrTextOutside)
		}
		return nil, ErrUnsigned
	}
	_, rest, _ := bytes.Cut(doc, []byte("\n"))
	c := new(clearsigned)
	rest, err := c.parseHeader(rest)
	if err != nil {
		return nil, err
	}
	if rest, err = c.parseText(rest); err != nil {
		return nil, err
	}
	body, rest, err := dearmor(rest, armorSignature)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBadSignature, err)
	}
	c.signature = body
	if err := nothingAfter(rest); err != nil {
		return nil, err
	}
	return c, nil
}

// nothingAfter refuses what follows a signature, but for white space.
func nothingAfter(rest []byte) error {
	switch {
	case bytes.Contains(rest, []byte(armorBegin(armorSignature))):
		return ErrManySignatures
	case len(bytes.TrimSpace(rest)) > 0:
		return fmt.Errorf("%w: after its signature", ErrTextOutside)
	}
	return nil
}

func (c *clearsigned) parseHeader(data []byte) (rest []byte, err error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	names, found := strings.CutPrefix(string(bytes.TrimSuffix(line, []byte("\r"))), "Hash: ")
	if !found {
		return nil, fmt.Errorf("%w: no Hash header on line 2", ErrTextOutside)
	}
	for name := range strings.SplitSeq(names, ",") {
		name = strings.Trim(name, " ")
		if !isDigestName(name) {
			return nil, fmt.Errorf("%w: %.40q in the Hash header is no digest", ErrTextOutside, name)
		}
		c.digests = append(c.digests, name)
	}
	line, rest, _ = bytes.Cut(rest, []byte("\n"))
	if len(bytes.TrimSuffix(line, []byte("\r"))) > 0 {
		return nil, fmt.Errorf("%w: between the Hash header and the empty line after it", ErrTextOutside)
	}
	return rest, nil
}

func (c *clearsigned) parseText(data []byte) (rest []byte, err error) {
	c.text = make([]byte, 0, len(data))
	for n := 4; len(data) > 0; n++ {
		line, after, _ := bytes.Cut(data, []byte("\n"))
		if string(bytes.TrimSuffix(line, []byte("\r"))) == armorBegin(armorSignature) {
			return data, nil
		}
		line, escaped := bytes.CutPrefix(line, []byte("- "))
		if !escaped && bytes.HasPrefix(line, []byte("-")) {
			return nil, fmt.Errorf("%w: line %d begins with a dash that is not escaped", ErrBadSignature, n)
		}
		c.text = append(append(c.text, bytes.TrimRight(line, blank)...), '\n')
		data = after
	}
	return nil, fmt.Errorf("%w: the document ends before it", ErrBadSignature)
}

func isDigestName(name string) bool {
	for _, known := range digestNames {
		if name == known {
			return true
		}
	}
	return false
}

// escape writes text as the body of a clearsigned document: no trailing white
// space on any line, dashes escaped, a newline after each line. It returns the
// bytes that are signed too: the lines without escapes and the last newline.
func escape(text []byte) (body, signed []byte, err error) {
	body = make([]byte, 0, len(text)+len(text)/64)
	signed = make([]byte, 0, len(text)+1)
	n := 0
	for line := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		n++
		line = bytes.TrimRight(line, blank)
		if len(line) > maxLine {
			return nil, nil, fmt.Errorf("line %d has %d bytes, clients' gpgv takes at most %d", n, len(line), maxLine)
		}
		if bytes.HasPrefix(line, []byte("-")) {
			body = append(body, "- "...)
		}
		body = append(append(body, line...), '\n')
		signed = append(append(signed, line...), '\n')
	}
	return body, signed[:len(signed)-1], nil
}
