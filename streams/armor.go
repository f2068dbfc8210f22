package streams

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// What an armored block can hold; the word between "-----BEGIN " and "-----".
const (
	armorSignature = "PGP SIGNATURE"
	armorPublic    = "PGP PUBLIC KEY BLOCK"
	armorSecret    = "PGP PRIVATE KEY BLOCK"
)

func armorBegin(kind string) string { return "-----BEGIN " + kind + "-----" }
func armorEnd(kind string) string   { return "-----END " + kind + "-----" }

// dearmor decodes the armored block of the given kind that data begins with
// (RFC 4880, section 6.2) and returns what follows it. It is strict where a
// lenient reader would leave room for text that nobody checks: inside the block
// there are "Key: value" headers, an empty line, base64, and at most one
// checksum, which must be right.
func dearmor(data []byte, kind string) (body, rest []byte, err error) {
	line, rest := cutLine(data)
	if string(line) != armorBegin(kind) {
		return nil, data, fmt.Errorf("armor does not begin with %q", armorBegin(kind))
	}
	for line, rest = cutLine(rest); len(line) > 0; line, rest = cutLine(rest) {
		if !bytes.Contains(line, []byte(":")) {
			return nil, data, fmt.Errorf("armor has a malformed header line")
		}
	}
	var text, sum []byte
	for {
		if len(rest) == 0 {
			return nil, data, errors.New("armor is cut short")
		}
		line, rest = cutLine(rest)
		if string(line) == armorEnd(kind) {
			break
		}
		switch {
		case sum != nil:
			return nil, data, errors.New("armor has text after its checksum")
		case len(line) == 5 && line[0] == '=':
			sum = line[1:]
		default:
			text = append(text, line...)
		}
	}
	body = make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(body, text)
	if err != nil {
		return nil, data, fmt.Errorf("armor is not base64: %v", err)
	}
	body = body[:n]
	if sum != nil && string(sum) != crc24(body) {
		return nil, data, errors.New("armor does not match its checksum")
	}
	return body, rest, nil
}

// dearmorAll decodes every block of the given kinds in data, one after the
// other, and returns the bytes of all. Text round the blocks is ignored.
func dearmorAll(data []byte, kinds ...string) ([]byte, error) {
	var all []byte
	for len(data) > 0 {
		line, rest := cutLine(data)
		for _, kind := range kinds {
			if string(line) != armorBegin(kind) {
				continue
			}
			body, after, err := dearmor(data, kind)
			if err != nil {
				return nil, err
			}
			all, rest = append(all, body...), after
			break
		}
		data = rest
	}
	return all, nil
}

// cutLine returns the first line of data without its end and the white space
// before that, and what follows.
func cutLine(data []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(data, []byte("\n"))
	return bytes.TrimRight(line, blank), rest
}

// crc24 returns the checksum of RFC 4880, section 6.1, in base64.
func crc24(data []byte) string {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)})
}
