package streams_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"oxbow/streams"
)

// signedAt is the date of every signature that these tests make; the keys are
// two days older.
var signedAt = time.Date(2025, 7, 24, 8, 1, 48, 0, time.UTC)

// testKey makes one key of each type a test run: RSA takes seconds.
var testKey = map[streams.KeyType]func() *streams.SigningKey{
	streams.Ed25519: sync.OnceValue(func() *streams.SigningKey { return generate(streams.Ed25519) }),
	streams.RSA4096: sync.OnceValue(func() *streams.SigningKey { return generate(streams.RSA4096) }),
}

func generate(t streams.KeyType) *streams.SigningKey {
	key, err := streams.GenerateSigningKey(t, "test "+string(t), signedAt)
	if err != nil {
		panic(err)
	}
	return key
}

// Every document that a site publishes is read by gpgv on the client, so gpgv
// itself is asked: 500 texts, two types of key.
func TestGPGVAcceptsWhatWeSign(t *testing.T) {
	need(t, "gpgv")
	dir := t.TempDir()
	for kind, key := range testKey {
		write(t, filepath.Join(dir, string(kind)+".gpg"), key().Public())
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0) * 2)
	for i := range 500 {
		kind := []streams.KeyType{streams.Ed25519, streams.RSA4096}[i%2]
		g.Go(func() error {
			key, text := testKey[kind](), sampleText(uint64(i))
			ring, base := filepath.Join(dir, string(kind)+".gpg"), filepath.Join(dir, fmt.Sprint(i))
			doc, err := key.Clearsign(text, signedAt)
			if err != nil {
				return err
			}
			if err := os.WriteFile(base+".sjson", doc, 0o600); err != nil {
				return err
			}
			if err := gpgv(ring, base+".sjson"); err != nil {
				return fmt.Errorf("text %d clearsigned by %s: %w", i, kind, err)
			}
			ours, err := streams.ReadKeyring(key.Public())
			if err != nil {
				return err
			}
			signed, err := ours.Verify(doc, signedAt)
			if err != nil {
				return fmt.Errorf("text %d clearsigned by %s: %w", i, kind, err)
			}
			if want := canonical(text); !bytes.Equal(signed.Text, want) {
				return fmt.Errorf("text %d reads back as %.200q, want %.200q", i, signed.Text, want)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestGPGVAcceptsDetachedSignatures(t *testing.T) {
	need(t, "gpgv")
	for kind, key := range testKey {
		dir := t.TempDir()
		ring, text, sig := filepath.Join(dir, "ring.gpg"), filepath.Join(dir, "x.json"), filepath.Join(dir, "x.json.gpg")
		write(t, ring, key().Public())
		for i := range uint64(50) {
			want := sampleText(i)
			made, err := key().Detach(want, signedAt)
			if err != nil {
				t.Fatal(err)
			}
			write(t, text, want)
			write(t, sig, made)
			if err := gpgv(ring, sig, text); err != nil {
				t.Errorf("text %d signed by %s: %v", i, kind, err)
			}
			if _, err := keyring(t, key().Public()).VerifyDetached(want, made, signedAt); err != nil {
				t.Errorf("text %d signed by %s: %v", i, kind, err)
			}
		}
	}
}

// sampleText makes up a text of everything that could go wrong on its way.
func sampleText(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	lines := []string{
		"{", ` "updated": "Thu, 24 Jul 2025 08:01:48 +0000"`, "}", "", "-", "--", "- ", "- - x", "-----BEGIN PGP SIGNED MESSAGE-----",
		"-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----", "Hash: SHA1", "From here", "\ttab", "trailing  ", "trailing \t ", " ",
		"größe 漢字 🐂", "windows\r", "two \r\r", "in\rside", "=abcd", "nul\x00byte", "sep\u2028arator", "\xff\xfe no UTF-8",
	}
	var b strings.Builder
	for range r.IntN(30) {
		line := lines[r.IntN(len(lines))]
		switch r.IntN(40) {
		case 0:
			line = strings.Repeat("x", 18_990+r.IntN(11))
		case 1:
			line = "-" + strings.Repeat("ü", 9_499)
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	text := b.String()
	if r.IntN(2) == 0 {
		text = strings.TrimSuffix(text, "\n")
	}
	return []byte(text)
}

// canonical is what signing leaves of a text, said independently of the code.
func canonical(text []byte) []byte {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

func gpgv(ring string, files ...string) error {
	out, err := exec.Command("gpgv", append([]string{"--keyring", ring}, files...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("gpgv: %w\n%s", err, out)
	}
	return nil
}

func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// gnupg is a throw-away home of real gpg.
type gnupg struct {
	t    *testing.T
	home string
}

func newGnuPG(t *testing.T) gnupg {
	need(t, "gpg")
	home, err := os.MkdirTemp("", "gpg") // t.TempDir is too long for the agent's socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	return gnupg{t, home}
}

func (g gnupg) run(stdin string, args ...string) []byte {
	g.t.Helper()
	cmd := exec.Command("gpg", append([]string{"--homedir", g.home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		g.t.Fatalf("gpg %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// fingerprint returns the one of the primary key.
func (g gnupg) fingerprint(user string) string {
	g.t.Helper()
	for line := range strings.Lines(string(g.run("", "--with-colons", "--list-keys", user))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	g.t.Fatalf("gpg has no key of %s", user)
	return ""
}

func TestVerifyReadsWhatGPGSigns(t *testing.T) {
	g := newGnuPG(t)
	g.run("", "--quick-generate-key", "ed", "ed25519", "sign", "never")
	g.run("", "--quick-generate-key", "rsa", "rsa3072", "sign", "never")
	g.run("", "--quick-generate-key", "nist", "nistp256", "sign", "never")
	// A certifying key with a subkey that signs, as distributions keep them.
	g.run("", "--quick-generate-key", "sub", "ed25519", "cert", "never")
	primary := g.fingerprint("sub")
	g.run("", "--quick-add-key", primary, "ed25519", "sign", "never")

	text := "{\n \"a\": 1,\n- dash\n-----BEGIN PGP SIGNATURE-----\nFrom me\ntrailing  \n\n}\n"
	want := strings.ReplaceAll(text, "trailing  ", "trailing")
	for _, armor := range []bool{false, true} {
		args := []string{"--export"}
		if armor {
			args = append(args, "--armor")
		}
		ring, err := streams.ReadKeyring(g.run("", args...))
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"ed", "rsa", "nist", "sub"} {
			doc := g.run(text, "--local-user", key, "--clearsign")
			signed, err := ring.Verify(doc, time.Now())
			if err != nil {
				t.Errorf("armored keyring %v, clearsigned by %s: %v", armor, key, err)
				continue
			}
			if string(signed.Text) != want || signed.SignedBy != key {
				t.Errorf("armored keyring %v, clearsigned by %s: read %q by %s, want %q", armor, key, signed.Text, signed.SignedBy, want)
			}
			if key == "sub" && signed.Fingerprint != primary {
				t.Errorf("signed by a subkey: fingerprint %s, want the primary key's, %s", signed.Fingerprint, primary)
			}
			for _, form := range []string{"--armor", "--no-armor"} {
				sig := g.run(text, "--local-user", key, form, "--detach-sign")
				if _, err := ring.VerifyDetached([]byte(text), sig, time.Now()); err != nil {
					t.Errorf("armored keyring %v, detached %s signature by %s: %v", armor, form, key, err)
				}
				if _, err := ring.VerifyDetached([]byte(text+" "), sig, time.Now()); !errors.Is(err, streams.ErrBadSignature) {
					t.Errorf("another text, detached %s signature by %s: got %v, want %v", form, key, err, streams.ErrBadSignature)
				}
			}
		}
	}
}

func TestVerifyRefusesWhatGPGSigns(t *testing.T) {
	g := newGnuPG(t)
	g.run("", "--quick-generate-key", "good", "rsa2048", "sign", "never")
	g.run("", "--quick-generate-key", "other", "ed25519", "sign", "never")
	const then = "20240101T000000!"
	g.run("", "--faked-system-time", then, "--quick-generate-key", "short", "ed25519", "sign", "10d")
	const text = "{}\n"
	expired := g.run(text, "--faked-system-time", then, "--local-user", "short", "--clearsign")
	revoked := g.run(text, "--local-user", "other", "--clearsign")
	before := g.run("", "--export", "other")
	// gpg prepares a revocation with every key; a colon keeps it from use by accident.
	revocation, err := os.ReadFile(filepath.Join(g.home, "openpgp-revocs.d", g.fingerprint("other")+".rev"))
	if err != nil {
		t.Fatal(err)
	}
	g.run(strings.Replace(string(revocation), ":-----BEGIN", "-----BEGIN", 1), "--import")
	ring := g.run("", "--export")
	now := time.Now()
	tests := []struct {
		summary string
		doc     []byte
		ring    []byte
		at      time.Time
		want    error
	}{
		{"a good one", g.run(text, "--local-user", "good", "--clearsign"), ring, now, nil},
		{"SHA-1", g.run(text, "--local-user", "good", "--digest-algo", "SHA1", "--clearsign"), ring, now, streams.ErrWeakDigest},
		{"RIPEMD-160", g.run(text, "--local-user", "good", "--digest-algo", "RIPEMD160", "--clearsign"), ring, now, streams.ErrWeakDigest},
		{"two signers", g.run(text, "--local-user", "good", "--local-user", "short", "--faked-system-time", "20240102T000000!", "--ignore-time-conflict", "--ignore-valid-from", "--clearsign"), ring, now, streams.ErrManySignatures},
		{"expired key", expired, ring, now, streams.ErrKeyExpired},
		{"key that had not expired then", expired, ring, time.Date(2024, 1, 2, 0, 0, 0, 0, time.UTC), nil},
		{"revoked key", revoked, ring, now, streams.ErrKeyRevoked},
		{"revoked key behind an older copy", revoked, slices.Concat(before, ring), now, streams.ErrKeyRevoked},
		{"revoked key before an older copy", revoked, slices.Concat(ring, before), now, streams.ErrKeyRevoked},
		{"only the copy from before the revocation", revoked, before, now, nil},
		{"key of nobody", revoked, g.run("", "--export", "good"), now, streams.ErrUnknownKey},
	}
	for _, test := range tests {
		keyring, err := streams.ReadKeyring(test.ring)
		if err != nil {
			t.Fatalf("%s: %v", test.summary, err)
		}
		if _, err := keyring.Verify(test.doc, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v, want %v", test.summary, err, test.want)
		}
	}
}
