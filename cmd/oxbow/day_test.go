package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"oxbow/streams/streamstest"
)

// A day is an operator's at a machine.
type day struct {
	t       *testing.T
	running *section
	asking  *section // how MAAS is pointed at the mirror
	systemd *systemd
	tree    *streamstest.Tree
	up      *streamstest.Upstream
	client  *http.Client
}

// newDay starts what the machine has around it: systemd, and images.maas.io.
func newDay(t *testing.T) *day {
	t.Helper()
	readme, err := os.ReadFile(clone + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	d := &day{
		t:       t,
		running: readSection(t, string(readme), "Running it"),
		asking:  readSection(t, string(readme), "Pointing MAAS at it"),
		systemd: startSystemd(t),
		tree:    streamstest.MAAS(streamstest.Shape{}),
		client:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	d.up = streamstest.NewUpstream(d.tree)
	server := &http.Server{Handler: http.StripPrefix(demoPath, d.up), ErrorLog: log.New(io.Discard, "", 0)}
	ln, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{Certificates: []tls.Certificate{trustedCertificate(t, "images.maas.io")}})
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	t.Cleanup(func() {
		if t.Failed() {
			requests := regexp.MustCompile(`(?m)^.*"msg":"request".*\n`)
			t.Logf("the journal without requests:\n%s", requests.ReplaceAllString(d.systemd.journal.String(), ""))
		}
	})
	return d
}

// trustedCertificate makes a certificate that the machine trusts, and no other.
func trustedCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// shell has the operator's bash run lines in the clone, and returns what they print.
// A line that fails ends the day.
func (d *day) shell(lines string) string {
	d.t.Helper()
	out, status := d.try(lines)
	if status != 0 {
		d.t.Fatalf("status %d of\n%s\n%s", status, lines, out)
	}
	return out
}

// try is shell for lines that may fail.
func (d *day) try(lines string) (out string, status int) {
	d.t.Helper()
	lines = strings.ReplaceAll(lines, "MIRROR", "localhost")
	return d.as("operator", "bash", "-e", "-u", "-o", "pipefail", "-c", lines)
}

// as has a user run a program in the clone.
func (d *day) as(user string, words ...string) (out string, status int) {
	d.t.Helper()
	credential, err := credentialOf(user)
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = clone
	cmd.Env = append(os.Environ(), "HOME=/home/"+user)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	line := strings.TrimSpace(words[len(words)-1])
	if words[0] != "bash" {
		line = strings.Join(words, " ")
	}
	began := time.Now()
	text, err := cmd.CombinedOutput()
	if err != nil && exitCode(err) < 0 {
		d.t.Fatalf("%s: %v", words, err)
	}
	d.t.Logf("%s: %s\n%s(%.1fs, status %d)", user, line, text, time.Since(began).Seconds(), exitCode(err))
	return string(text), exitCode(err)
}

// edit changes the one place in the configuration that reads so.
func (d *day) edit(old, now string) {
	d.t.Helper()
	text, err := os.ReadFile(siteConfig)
	if err != nil {
		d.t.Fatal(err)
	}
	if n := bytes.Count(text, []byte(old)); n != 1 {
		d.t.Fatalf("%s has %q %d times", siteConfig, old, n)
	}
	d.write(siteConfig, bytes.Replace(text, []byte(old), []byte(now), 1))
}

func (d *day) write(name string, data []byte) {
	d.t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// get returns what the mirror answers to a request of a path; 0 if it does not answer.
func (d *day) get(path string) (status int, body string) {
	resp, err := d.client.Get(mirrorURL + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Errorf("GET %s: %v", path, err)
	}
	return resp.StatusCode, string(data)
}

func (d *day) await(what string, done func() bool) {
	d.t.Helper()
	if until(done) != nil {
		d.t.Fatalf("waited in vain until %s", what)
	}
}

// status returns what is said of the stream for programs.
func (d *day) status() streamStatus {
	d.t.Helper()
	out, _ := d.as("oxbow", "oxbow", "mirror", "status", "--json")
	var all []streamStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		d.t.Fatalf("%d streams, %v: %s", len(all), err, out)
	}
	return all[0]
}

// stored returns what the store holds: of each file its mode, date and content.
func (d *day) stored() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(siteStore, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var data []byte
		if info.Mode().IsRegular() && e.Name() != "ballast" {
			if data, err = os.ReadFile(name); err != nil {
				return err
			}
		}
		all[name] = fmt.Sprintf("%v %v %d %x", info.Mode(), info.ModTime(), info.Size(), sha256.Sum256(data))
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}
