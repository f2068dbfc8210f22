package streams_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"oxbow/streams"
)

func TestSigningKeyComesBackWhole(t *testing.T) {
	for kind, key := range testKey {
		secret := key().Secret()
		read, err := streams.ReadSigningKey(secret)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if !bytes.Equal(read.Secret(), secret) || !bytes.Equal(read.Public(), key().Public()) || read.Fingerprint() != key().Fingerprint() {
			t.Errorf("%s: another key was read than was written", kind)
		}
		if !bytes.HasPrefix(streams.ArmorKeyring(read.Public()), []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")) || bytes.Contains(streams.ArmorKeyring(read.Public()), []byte("PRIVATE")) {
			t.Errorf("%s: the public key reads %s", kind, streams.ArmorKeyring(read.Public()))
		}
	}
}

// A list that does not change must not change its signature either.
func TestSignaturesAreDeterministic(t *testing.T) {
	for kind, key := range testKey {
		var docs, sigs [2][]byte
		for i := range docs {
			var err error
			if docs[i], err = key().Clearsign([]byte("{}\n"), signedAt); err != nil {
				t.Fatal(err)
			}
			if sigs[i], err = key().Detach([]byte("{}\n"), signedAt); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(docs[0], docs[1]) || !bytes.Equal(sigs[0], sigs[1]) {
			t.Errorf("%s: two signatures over the same text at the same time differ", kind)
		}
	}
}

func TestClearsignRefusesLongLines(t *testing.T) {
	key := testKey[streams.Ed25519]()
	long := strings.Repeat("x", 19_000)
	if _, err := key.Clearsign([]byte("{\n"+long+"   \n}\n"), signedAt); err != nil {
		t.Errorf("a line of 19,000 bytes: %v", err)
	}
	_, err := key.Clearsign([]byte("{\n"+long+"x\n}\n"), signedAt)
	if err == nil || !strings.Contains(err.Error(), "line 2 has 19001 bytes") {
		t.Errorf("got error %v, want one that names line 2 and its 19001 bytes", err)
	}
}

func TestLargeDocumentsAreRefused(t *testing.T) {
	text := make([]byte, streams.MaxDocument+1)
	key := testKey[streams.Ed25519]()
	if _, err := key.Clearsign(text, signedAt); err == nil {
		t.Error("a document over the limit was signed")
	}
	if _, err := keyring(t, key.Public()).Verify(text, signedAt); err == nil || errors.Is(err, streams.ErrUnsigned) {
		t.Errorf("a document over the limit: got error %v, want one that gives its size", err)
	}
	if _, err := keyring(t, key.Public()).VerifyDetached(text, nil, signedAt); err == nil || errors.Is(err, streams.ErrUnsigned) {
		t.Errorf("a text over the limit: got error %v, want one that gives its size", err)
	}
}

// A key is dated back, so a clock two days behind accepts it; before that date
// it cannot sign.
func TestKeysAreDatedBack(t *testing.T) {
	key := testKey[streams.Ed25519]()
	if _, err := key.Clearsign([]byte("{}"), signedAt.Add(-48*time.Hour)); err != nil {
		t.Errorf("two days before it was made: %v", err)
	}
	if _, err := key.Clearsign([]byte("{}"), signedAt.Add(-49*time.Hour)); err == nil || !strings.Contains(err.Error(), key.Fingerprint()) {
		t.Errorf("before its date: got error %v, want one that names the key", err)
	}
}

func TestGenerateSigningKeyRefuses(t *testing.T) {
	if _, err := streams.GenerateSigningKey("dsa", "x", signedAt); err == nil || !strings.Contains(err.Error(), "ed25519") {
		t.Errorf("an unknown type: got error %v, want one that names those there are", err)
	}
	if _, err := streams.GenerateSigningKey(streams.Ed25519, "a <b>", signedAt); err == nil {
		t.Error("a name with brackets was accepted")
	}
}

func TestReadSigningKeyRefuses(t *testing.T) {
	secret := func(config *packet.Config, change func(*openpgp.Entity)) []byte {
		t.Helper()
		e, err := openpgp.NewEntity("x", "", "", config)
		if err != nil {
			t.Fatal(err)
		}
		change(e)
		var b bytes.Buffer
		if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	leave := func(*openpgp.Entity) {}
	eddsa := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}
	tests := []struct {
		summary string
		data    []byte
		want    string
	}{
		{"nothing", nil, "no OpenPGP key"},
		{"a public key", testKey[streams.Ed25519]().Public(), "--export-secret-keys"},
		{"two keys", append(testKey[streams.Ed25519]().Secret(), testKey[streams.RSA4096]().Secret()...), "2 keys"},
		{"an encrypted key", secret(eddsa, func(e *openpgp.Entity) {
			if err := e.EncryptPrivateKeys([]byte("secret"), nil); err != nil {
				t.Fatal(err)
			}
		}), "passphrase"},
		{"Ed25519 under its new number", secret(&packet.Config{Algorithm: packet.PubKeyAlgoEd25519}, leave), "EdDSA"},
		{"Ed448", secret(&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve448}, leave), "EdDSA on Curve25519"},
		{"version 6", secret(&packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true}, leave), "version 6"},
	}
	for _, test := range tests {
		if _, err := streams.ReadSigningKey(test.data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", test.summary, err, test.want)
		}
	}
}

// A site may bring its own key, made by gpg: what it signs, gpgv accepts.
func TestReadSigningKeyOfGPG(t *testing.T) {
	g := newGnuPG(t)
	need(t, "gpgv")
	g.run("", "--quick-generate-key", "main <main@example.com>", "ed25519", "cert,sign", "never")
	g.run("", "--quick-add-uid", "main <main@example.com>", "another name")
	key, err := streams.ReadSigningKey(g.run("", "--armor", "--export-secret-keys"))
	if err != nil {
		t.Fatal(err)
	}
	g.run("", "--quick-generate-key", "sub", "rsa2048", "cert", "never")
	g.run("", "--quick-add-key", g.fingerprint("sub"), "ed25519", "sign", "never")
	withSubkey, err := streams.ReadSigningKey(g.run("", "--export-secret-keys", "sub"))
	if err != nil {
		t.Fatal(err)
	}
	laptop, err := streams.ReadSigningKey(g.run("", "--export-secret-subkeys", "sub"))
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*streams.SigningKey{"one key": key, "subkey": withSubkey, "subkey without its primary key": laptop} {
		doc, err := key.Clearsign([]byte("{}\n"), time.Now())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		dir := t.TempDir()
		write(t, dir+"/ring", key.Public())
		write(t, dir+"/doc", doc)
		if err := gpgv(dir+"/ring", dir+"/doc"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := keyring(t, key.Public()).Verify(doc, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := streams.ReadSigningKey(key.Secret())
		if err != nil || !bytes.Equal(again.Public(), key.Public()) {
			t.Errorf("%s: another key was read than was written, error %v", name, err)
		}
	}
}
