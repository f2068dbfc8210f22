package streams_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"oxbow/streams"
)

// canonicalFingerprint is of the key that signs Canonical's image streams.
const canonicalFingerprint = "4A3CE3CD565D7EB5C810E2B97FF3F408476CF100"

func clearsign(t testing.TB, text string) string {
	t.Helper()
	doc, err := testKey[streams.Ed25519]().Clearsign([]byte(text), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

func keyring(t testing.TB, data []byte) *streams.Keyring {
	t.Helper()
	ring, err := streams.ReadKeyring(data)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestVerifyRefuses(t *testing.T) {
	const text = "{\n \"a\": 1\n}\n"
	good := clearsign(t, text)
	header, rest, _ := strings.Cut(good, "Hash: SHA512\n\n")
	body, sig, _ := strings.Cut(rest, "-----BEGIN PGP SIGNATURE-----\n")
	sig = "-----BEGIN PGP SIGNATURE-----\n" + sig
	two := rearmor(t, sig, func(b []byte) []byte { return slices.Concat(b, b) })

	tests := []struct {
		summary string
		doc     string
		want    error
	}{
		{"untouched", good, nil},
		{"white space at the ends of lines is not signed", strings.ReplaceAll(good, "1\n", "1 \t\r\n"), nil},
		{"Windows line ends", strings.ReplaceAll(good, "\n", "\r\n"), nil},
		{"empty lines after the signature", good + "\n \r\n", nil},
		{"no final newline", strings.TrimSuffix(good, "\n"), nil},

		{"empty document", "", streams.ErrUnsigned},
		{"plain JSON", text, streams.ErrUnsigned},
		{"header with a suffix", strings.Replace(good, "MESSAGE-----\n", "MESSAGE-----x\n", 1), streams.ErrUnsigned},

		{"text before the header", "{}\n" + good, streams.ErrTextOutside},
		{"empty line before the header", "\n" + good, streams.ErrTextOutside},
		{"text after the signature", good + "{}\n", streams.ErrTextOutside},
		{"text in place of the Hash header", header + "{}\n\n" + rest, streams.ErrTextOutside},
		{"text after the Hash header", header + "Hash: SHA512\n{}\n\n" + rest, streams.ErrTextOutside},
		{"text before the Hash header", header + "{}\nHash: SHA512\n\n" + rest, streams.ErrTextOutside},
		{"text in the Hash header", header + "Hash: SHA512, {}\n\n" + rest, streams.ErrTextOutside},
		{"another header", header + "Hash: SHA512\nComment: {}\n\n" + rest, streams.ErrTextOutside},
		{"two Hash headers", header + "Hash: SHA512\nHash: SHA512\n\n" + rest, streams.ErrTextOutside},
		{"no Hash header", header + "\n" + rest, streams.ErrTextOutside},
		{"a header that turns escapes off", header + "NotDashEscaped: yes\nHash: SHA512\n\n" + rest, streams.ErrTextOutside},
		{"a line of white space for the empty line", header + "Hash: SHA512\n \n" + rest, streams.ErrTextOutside},

		{"two documents", good + good, streams.ErrManySignatures},
		{"two signature blocks", good + sig, streams.ErrManySignatures},
		{"two signatures in a block", strings.Replace(good, sig, two, 1), streams.ErrManySignatures},

		{"SHA-1", digest(t, good, sig, 2), streams.ErrWeakDigest},
		{"MD5", digest(t, good, sig, 1), streams.ErrWeakDigest},
		{"RIPEMD-160", digest(t, good, sig, 3), streams.ErrWeakDigest},
		{"unknown digest", digest(t, good, sig, 99), streams.ErrBadSignature},

		{"changed text", strings.Replace(good, `"a": 1`, `"a": 2`, 1), streams.ErrBadSignature},
		{"white space at the start of a line", strings.Replace(good, "\n}", "\n }", 1), streams.ErrBadSignature},
		{"another Hash header", strings.Replace(good, "SHA512", "SHA256", 1), streams.ErrBadSignature},
		{"a dash that is not escaped", strings.Replace(good, body, "-"+body, 1), streams.ErrBadSignature},
		{"signature cut off", header + "Hash: SHA512\n\n" + body, streams.ErrBadSignature},
		{"signature cut short", good[:len(good)-40], streams.ErrBadSignature},
		{"signature without checksum, flipped", rearmor(t, good, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), streams.ErrBadSignature},
		{"wrong checksum", strings.Replace(good, "\n=", "\n=A", 1), streams.ErrBadSignature},
		{"text in the armor, after the checksum", strings.Replace(good, "-----END", "{}\n-----END", 1), streams.ErrBadSignature},
		{"text in the armor's header", strings.Replace(good, sig, strings.Replace(sig, "\n\n", "\n{}\n\n", 1), 1), streams.ErrBadSignature},
		{"a key in place of the signature", strings.Replace(good, sig, string(streams.ArmorKeyring(testKey[streams.Ed25519]().Public())), 1), streams.ErrBadSignature},
		{"a key in the signature block", strings.Replace(good, sig, rearmor(t, sig, func([]byte) []byte { return testKey[streams.Ed25519]().Public() }), 1), streams.ErrBadSignature},
		{"an empty signature block", strings.Replace(good, sig, rearmor(t, sig, func([]byte) []byte { return nil }), 1), streams.ErrBadSignature},
	}
	ring := keyring(t, testKey[streams.Ed25519]().Public())
	for _, test := range tests {
		signed, err := ring.Verify([]byte(test.doc), signedAt)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v, want %v", test.summary, err, test.want)
		}
		if err == nil && string(signed.Text) != text {
			t.Errorf("%s: read %q, want %q", test.summary, signed.Text, text)
		}
		if err != nil && signed != nil {
			t.Errorf("%s: got a text together with error %v", test.summary, err)
		}
	}
}

// rearmor replaces the content of doc's signature block.
func rearmor(t *testing.T, doc string, change func([]byte) []byte) string {
	t.Helper()
	at := strings.Index(doc, "-----BEGIN PGP SIGNATURE-----")
	block, err := armor.Decode(strings.NewReader(doc[at:]))
	if err != nil {
		t.Fatal(err)
	}
	var body, b bytes.Buffer
	if _, err := body.ReadFrom(block.Body); err != nil {
		t.Fatal(err)
	}
	w, err := armor.Encode(&b, "PGP SIGNATURE", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(change(body.Bytes()))
	w.Close()
	return doc[:at] + b.String() + "\n"
}

// digest makes the signature of doc claim another message digest.
func digest(t *testing.T, doc, sig string, id byte) string {
	return strings.Replace(doc, sig, rearmor(t, sig, func(b []byte) []byte {
		if i := bytes.IndexByte(b, 10); i < 8 { // SHA-512, fourth in the packet's body
			b[i] = id
		}
		return b
	}), 1)
}

func TestVerifyDetachedRefuses(t *testing.T) {
	const text = "{}\n"
	key := testKey[streams.Ed25519]()
	made, err := key.Detach([]byte(text), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	good := string(made)
	tests := []struct {
		summary, text, sig string
		want               error
	}{
		{"untouched", text, good, nil},
		{"empty lines after it", text, good + "\n\n", nil},
		{"no signature", text, "\n", streams.ErrUnsigned},
		{"another text", text + "\n", good, streams.ErrBadSignature},
		{"two blocks", text, good + good, streams.ErrManySignatures},
		{"two signatures in a block", text, rearmor(t, good, func(b []byte) []byte { return slices.Concat(b, b) }), streams.ErrManySignatures},
		{"text after it", text, good + "{}\n", streams.ErrTextOutside},
		{"text before it", text, "{}\n" + good, streams.ErrBadSignature},
		{"SHA-1", text, digest(t, good, good, 2), streams.ErrWeakDigest},
		{"a web page", text, "<html>\n", streams.ErrBadSignature},
	}
	ring := keyring(t, key.Public())
	for _, test := range tests {
		if _, err := ring.VerifyDetached([]byte(test.text), []byte(test.sig), signedAt); !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v, want %v", test.summary, err, test.want)
		}
	}
	if _, err := keyring(t, testKey[streams.RSA4096]().Public()).VerifyDetached([]byte(text), made, signedAt); !errors.Is(err, streams.ErrUnknownKey) {
		t.Errorf("a key of nobody: got error %v, want %v", err, streams.ErrUnknownKey)
	}
}

func TestVerifyNamesTheSigner(t *testing.T) {
	for kind, key := range testKey {
		ring := keyring(t, slices.Concat(testKey[streams.RSA4096]().Public(), testKey[streams.Ed25519]().Public()))
		doc, err := key().Clearsign([]byte("{}"), signedAt)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := ring.Verify(doc, signedAt.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if signed.Fingerprint != key().Fingerprint() || signed.SignedBy != "test "+string(kind) || !signed.Created.Equal(signedAt) {
			t.Errorf("got %s by %q at %v, want %s by %q at %v", signed.Fingerprint, signed.SignedBy, signed.Created,
				key().Fingerprint(), "test "+string(kind), signedAt)
		}
	}
}

// An isolated site's clock may stand at 1970; that must not stop it.
func TestVerifyUnderAClockThatIsBehind(t *testing.T) {
	ring := keyring(t, testKey[streams.Ed25519]().Public())
	if _, err := ring.Verify([]byte(clearsign(t, "{}")), time.Unix(0, 0)); err != nil {
		t.Error(err)
	}
}

// Errors tell the operator which key it was and what the keyring has.
func TestVerifyErrorNamesKeys(t *testing.T) {
	_, err := keyring(t, testKey[streams.RSA4096]().Public()).Verify([]byte(clearsign(t, "{}")), signedAt)
	for _, key := range testKey {
		if err == nil || !strings.Contains(err.Error(), key().Fingerprint()) {
			t.Errorf("error %v does not name %s", err, key().Fingerprint())
		}
	}
}

// What we accept, the clients' gpgv must accept: documents are passed on.
func TestVerifyIsNoLaxerThanGPGV(t *testing.T) {
	need(t, "gpgv")
	key := testKey[streams.Ed25519]()
	ring, dir := keyring(t, key.Public()), t.TempDir()
	write(t, filepath.Join(dir, "ring.gpg"), key.Public())
	good := []byte(clearsign(t, "{\n \"a\": 1,\n- x\n\n \"b\": 2 \n}\n"))
	alphabet := []byte("\n\r \t-=:aA{}\x00\x80")
	r := rand.New(rand.NewPCG(3, 4))
	var accepted int
	for range 6000 {
		doc := bytes.Clone(good)
		for range 1 + r.IntN(2) {
			at, b := r.IntN(len(doc)), alphabet[r.IntN(len(alphabet))]
			switch r.IntN(3) {
			case 0:
				doc[at] = b
			case 1:
				doc = slices.Insert(doc, at, b)
			case 2:
				doc = slices.Delete(doc, at, at+1)
			}
		}
		if _, err := ring.Verify(doc, signedAt); err != nil {
			continue
		}
		accepted++
		write(t, filepath.Join(dir, "doc"), doc)
		if err := gpgv(filepath.Join(dir, "ring.gpg"), filepath.Join(dir, "doc")); err != nil {
			t.Errorf("accepted %q, but %v", doc, err)
		}
	}
	if accepted == 0 {
		t.Error("no changed document was accepted: the test shows nothing")
	}
}

func TestReadKeyring(t *testing.T) {
	ed, rsa := testKey[streams.Ed25519](), testKey[streams.RSA4096]()
	both := []string{ed.Fingerprint(), rsa.Fingerprint()}
	tests := []struct {
		summary string
		data    []byte
		want    []string
	}{
		{"one binary key", ed.Public(), both[:1]},
		{"two binary keys", slices.Concat(ed.Public(), rsa.Public()), both},
		{"one armored key", streams.ArmorKeyring(ed.Public()), both[:1]},
		{"two armored blocks with text round them", slices.Concat([]byte("keys\n\n"), streams.ArmorKeyring(ed.Public()), []byte("and\n"), streams.ArmorKeyring(rsa.Public())), both},
		{"a secret key", ed.Secret(), both[:1]},
	}
	for _, test := range tests {
		var got []string
		for _, key := range keyring(t, test.data).Keys() {
			got = append(got, key.Fingerprint)
			if !key.Created.Equal(signedAt.Add(-48*time.Hour)) || !key.Expires.IsZero() || key.Revoked {
				t.Errorf("%s: got %+v, want a key of two days before %v, neither expiring nor revoked", test.summary, key, signedAt)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.summary, got, test.want)
		}
	}
}

func TestReadKeyringRefuses(t *testing.T) {
	sum := streams.ArmorKeyring(testKey[streams.Ed25519]().Public())
	sum[bytes.LastIndex(sum, []byte("\n="))+2] ^= 1
	tests := []struct {
		summary, data, want string
	}{
		{"nothing", "", "no OpenPGP key"},
		{"a text", "hello\n", "no OpenPGP key"},
		{"a web page", "<html>\n<body>\n", "no OpenPGP key"},
		{"a signature", "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n", "no OpenPGP key"},
		{"a keybox", "\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00\x00\x00", "gpg --export"},
		{"armor cut short", string(sum[:200]), "cut short"},
		{"wrong checksum", string(sum), "checksum"},
		{"binary noise", "\x99\x01\x0d\x04aaaa", ""},
	}
	for _, test := range tests {
		if _, err := streams.ReadKeyring([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", test.summary, err, test.want)
		}
	}
}

func TestReadCanonicalsKeyring(t *testing.T) {
	data, err := os.ReadFile("../../shared/streams/simplestreams-examples/keys/cloud-images.pub")
	if err != nil {
		t.Skip(err)
	}
	keys := keyring(t, data).Keys()
	if len(keys) != 1 || keys[0].Fingerprint != canonicalFingerprint {
		t.Errorf("got %+v, want the one key %s", keys, canonicalFingerprint)
	}
}

// The self-signature of an expired key decides, not the signature's own date.
func TestVerifyAtTheEdgeOfExpiry(t *testing.T) {
	entity, err := openpgp.NewEntity("short", "", "", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 3600, Time: func() time.Time { return signedAt },
	})
	if err != nil {
		t.Fatal(err)
	}
	var secret bytes.Buffer
	if err := entity.SerializePrivateWithoutSigning(&secret, nil); err != nil {
		t.Fatal(err)
	}
	key, err := streams.ReadSigningKey(secret.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := key.Clearsign([]byte("{}"), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	ring := keyring(t, key.Public())
	if end := ring.Keys()[0].Expires; !end.Equal(signedAt.Add(time.Hour)) {
		t.Errorf("key expires at %v, want %v", end, signedAt.Add(time.Hour))
	}
	if _, err := ring.Verify(doc, signedAt.Add(time.Hour)); err != nil {
		t.Errorf("in its last second: %v", err)
	}
	if _, err := ring.Verify(doc, signedAt.Add(time.Hour+time.Second)); !errors.Is(err, streams.ErrKeyExpired) {
		t.Errorf("a second later: got %v, want %v", err, streams.ErrKeyExpired)
	}
	if _, err := key.Clearsign([]byte("{}"), signedAt.Add(2*time.Hour)); err == nil {
		t.Error("an expired key signed")
	}
}

func FuzzVerify(f *testing.F) {
	ring := keyring(f, testKey[streams.Ed25519]().Public())
	good := clearsign(f, "{\n- x\n}\n")
	f.Add([]byte(good))
	f.Add([]byte(good[:len(good)-60]))
	f.Add([]byte(strings.ReplaceAll(good, "\n", "\r\n")))
	f.Fuzz(func(t *testing.T, doc []byte) {
		signed, err := ring.Verify(doc, signedAt)
		if err == nil && string(signed.Text) != "{\n- x\n}\n" {
			t.Errorf("a text that nobody signed was accepted: %q", signed.Text)
		}
		text, err := streams.ClearText(doc)
		if err == nil && len(text) > len(doc) {
			t.Errorf("%d bytes of text from a document of %d", len(text), len(doc))
		}
		ring.VerifyDetached([]byte("{}"), doc, signedAt)
	})
}

func FuzzReadKeyring(f *testing.F) {
	key := testKey[streams.Ed25519]()
	doc := []byte(clearsign(f, "{}"))
	f.Add(key.Public())
	f.Add(streams.ArmorKeyring(key.Public()))
	f.Add(key.Secret())
	f.Fuzz(func(t *testing.T, data []byte) {
		ring, err := streams.ReadKeyring(data)
		if err != nil {
			return
		}
		if len(ring.Keys()) == 0 {
			t.Error("a keyring without keys")
		}
		ring.Verify(doc, signedAt)
		streams.ReadSigningKey(data)
	})
}

// What Public writes is binary, and reads as the same keys, whatever the form they came in.
func TestKeyringPublic(t *testing.T) {
	both := slices.Concat(testKey[streams.Ed25519]().Public(), testKey[streams.RSA4096]().Public())
	for _, data := range [][]byte{both, streams.ArmorKeyring(both)} {
		ring := keyring(t, data)
		public, err := ring.Public()
		if err != nil || public[0]&0x80 == 0 {
			t.Fatalf("%d bytes, %v", len(public), err)
		}
		if got, want := keyring(t, public).Keys(), ring.Keys(); !slices.Equal(got, want) {
			t.Errorf("keys %+v, want %+v", got, want)
		}
	}
}
