package site

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"oxbow/streams/streamstest"
)

var update = flag.Bool("update", false, "write the errors that testdata/wrong.txtar wants anew")

// A configuration that is wrong is refused with the place, what is wrong there
// and what would be right, and a password is in no message.
func TestWrong(t *testing.T) {
	const file = "testdata/wrong.txtar"
	table, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := makeFiles(t)
	bytes := strings.NewReplacer(`\xff`, "\xff", `\x00`, "\x00")
	for i := 0; i+1 < len(table.Files); i += 2 {
		c, want := table.Files[i], &table.Files[i+1]
		_, err := Parse(filepath.Join(dir, "oxbow.yaml"), []byte(bytes.Replace(string(c.Data))))
		if err == nil {
			t.Errorf("%s: no error", c.Name)
			continue
		}
		got := strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
		if *update {
			want.Data = []byte(got)
		}
		if got != string(want.Data) {
			t.Errorf("%s:\n%swant\n%s", c.Name, got, want.Data)
		}
		for _, part := range []string{"s3", "cret"} {
			if strings.Contains(got, part) {
				t.Errorf("%s: the password is shown:\n%s", c.Name, got)
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// makeFiles returns a folder with the files that configurations of the tests
// name.
func makeFiles(t *testing.T) string {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	cert, key := newPair(t)
	_, other := newPair(t)
	write("tls.crt", cert)
	write("tls.key", key)
	write("other.key", other)
	write("empty", nil)
	write("blank", []byte(" \n"))
	write("token", []byte("0123456789abcdef\n"))
	write("weak", []byte("# ours\nsesame\n"))
	write("notes", []byte("call Eve\n"))
	write("upstream.gpg", streamstest.MAAS(streamstest.Shape{}).Keyring())
	return dir
}

// newPair returns a certificate and its key, as PEM.
func newPair(t *testing.T) (cert, key []byte) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}
