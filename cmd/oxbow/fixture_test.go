package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oxbow/cache"
	"oxbow/mirror"
	"oxbow/proxy"
	"oxbow/streams"
)

// The metadata of images.maas.io itself, over small files, signed by gpg and
// served by nginx: what is selected of it is published in upstream's shape, and
// gpgv accepts every signature of ours.
func TestRealUpstream(t *testing.T) {
	const fixture = "../../../shared/streams/maas-fixture"
	if _, err := os.Stat(fixture); err != nil {
		t.Skip("upstream's metadata is not here:", err)
	}
	for _, program := range []string{"gpg", "gpgv", "nginx"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("not installed:", err)
		}
	}
	up := &realUpstream{t: t, dir: t.TempDir(), home: shortTempDir(t)}
	up.make(fixture)
	base := up.serve()

	store := filepath.Join(t.TempDir(), "store")
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"oxbow", "mirror", "sync", base + "/ephemeral-v3/stable/", "arch=amd64", "release~(noble|centos70)",
		"--max", "1", "--store", store, "--keyring", up.keyring()}, &stdout, &stderr)
	if status != 0 {
		t.Fatalf("sync: status %d\n%s%s", status, stdout.String(), stderr.String())
	}
	want := []string{
		"com.ubuntu.maas.stable:1:grub-efi-signed:uefi:amd64 20231004.0 grub2-signed",
		"com.ubuntu.maas.stable:1:grub-efi-signed:uefi:amd64 20231004.0 shim-signed",
		"com.ubuntu.maas.stable:1:grub-efi:uefi:arm64 20231004.0 grub2-signed",
		"com.ubuntu.maas.stable:1:grub-efi:uefi:arm64 20231004.0 shim-signed",
		"com.ubuntu.maas.stable:1:grub-ieee1275:open-firmware:ppc64el 20210509.0 grub2",
		"com.ubuntu.maas.stable:1:pxelinux:pxe:i386 20210203.0 syslinux",
		"com.ubuntu.maas.stable:centos-bases:7.0:amd64 20240622_01 manifest",
		"com.ubuntu.maas.stable:centos-bases:7.0:amd64 20240622_01 root-tgz",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250709 boot-initrd",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250709 boot-kernel",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250709 manifest",
		"com.ubuntu.maas.stable:v3:boot:24.04:amd64:ga-24.04 20250709 squashfs",
	}
	got := readWithGpgv(t, store)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published items (-want +got):\n%s", diff)
	}
}

// A realUpstream is made by the programs that upstream uses.
type realUpstream struct {
	t    *testing.T
	dir  string // of the tree
	home string // of gpg
}

// shortTempDir is for gpg, whose agent's socket needs a short path.
func shortTempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run()
		os.RemoveAll(dir)
	})
	return dir
}

func (u *realUpstream) path(name string) string {
	return filepath.Join(u.dir, "ephemeral-v3/stable", name)
}

func (u *realUpstream) keyring() string { return filepath.Join(u.dir, "keyring.gpg") }

func (u *realUpstream) write(name string, data []byte) {
	u.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		u.t.Fatal(err)
	}
}

func (u *realUpstream) gpg(input []byte, args ...string) []byte {
	u.t.Helper()
	cmd := exec.Command("gpg", append([]string{"--homedir", u.home, "--batch", "--yes", "--passphrase", "", "--pinentry-mode", "loopback"}, args...)...)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		u.t.Fatalf("gpg %q: %v\n%s", args, err, stderr.Bytes())
	}
	return out
}

// make writes the tree: the fixture's documents with the sizes and sums of
// small files, each signed, and those files.
func (u *realUpstream) make(fixture string) {
	u.t.Helper()
	u.gpg(nil, "--quick-gen-key", "Image signing", "rsa3072", "sign", "never")
	u.write(u.keyring(), u.gpg(nil, "--export"))
	names, err := filepath.Glob(fixture + "/streams/v1/*.json")
	if err != nil || len(names) != 4 {
		u.t.Fatalf("the fixture has the documents %q: %v", names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			u.t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(data, &doc); err != nil {
			u.t.Fatal(err)
		}
		u.files(doc)
		text, err := json.MarshalIndent(doc, "", " ")
		if err != nil {
			u.t.Fatal(err)
		}
		plain := u.path("streams/v1/" + filepath.Base(name))
		signed := strings.TrimSuffix(plain, "json") + "sjson"
		u.write(plain, text)
		u.write(plain+".gpg", u.gpg(text, "--armor", "--detach-sign"))
		if filepath.Base(name) == "index.json" {
			text = bytes.ReplaceAll(text, []byte(`download.json"`), []byte(`download.sjson"`))
		}
		u.write(signed, u.gpg(text, "--clearsign"))
	}
}

// files makes the files that items of doc name, and tells the items.
func (u *realUpstream) files(doc any) {
	m, ok := doc.(map[string]any)
	if !ok {
		return
	}
	if path, isFile := m["path"].(string); isFile && m["ftype"] != nil {
		data := bytes.Repeat([]byte(path+"\n"), 50)
		u.write(u.path(path), data)
		m["size"], m["sha256"] = len(data), fmt.Sprintf("%x", sha256.Sum256(data))
		return
	}
	for _, v := range m {
		u.files(v)
	}
}

// serve starts nginx on the tree and returns its URL.
func (u *realUpstream) serve() string {
	u.t.Helper()
	url, stop, err := startNginx(u.dir, u.t.TempDir())
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(stop)
	return url
}

// startNginx serves a directory by nginx, which keeps what it needs in another one.
func startNginx(root, state string) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr := l.Addr().String()
	l.Close()
	var conf strings.Builder
	if os.Geteuid() == 0 {
		conf.WriteString("user root;\n")
	}
	fmt.Fprintf(&conf, "daemon off; pid %[1]s/pid; error_log %[1]s/error.log;\nevents {}\nhttp { access_log off;", state)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&conf, " %s_temp_path %s/%[1]s;", kind, state)
	}
	fmt.Fprintf(&conf, " server { listen %s; root %s; } }\n", addr, root)
	file := filepath.Join(state, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("nginx", "-p", state, "-c", file, "-e", filepath.Join(state, "error.log"))
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	err = until(func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if err != nil {
		stop()
		return "", nil, err
	}
	return "http://" + addr, stop, nil
}

// readWithGpgv reads the stable stream of a store over HTTP as MAAS does, with
// gpgv's word for every signature, and returns "product version item" of all
// that is listed, sorted.
func readWithGpgv(t *testing.T, dir string) (items []string) {
	t.Helper()
	store, err := cache.Open(dir, &cache.Options{Reserve: -1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := mirror.SiteKey(store.Files())
	if err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(t.TempDir(), "site.gpg")
	if err := os.WriteFile(keyring, key.Public(), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(proxy.New(&proxy.Options{Store: store, Streams: func() []proxy.Stream {
		return []proxy.Stream{{Name: "stable", Path: "/ephemeral-v3/stable/"}}
	}}))
	defer server.Close()
	base := server.URL + "/ephemeral-v3/stable/"

	x, err := streams.ParseIndex(gpgvText(t, keyring, fetch(t, base, "streams/v1/index.sjson")))
	if err != nil {
		t.Fatal(err)
	}
	gpgvDetached(t, keyring, base, "streams/v1/index.json")
	for _, e := range x.Entries {
		l, err := streams.ParseProducts(gpgvText(t, keyring, fetch(t, base, string(e.Path))))
		if err != nil {
			t.Fatal(err)
		}
		gpgvDetached(t, keyring, base, strings.TrimSuffix(string(e.Path), ".sjson")+".json")
		for at, it := range l.Items() {
			items = append(items, fmt.Sprint(at.Product, " ", at.Version, " ", at.Item))
			data := fetch(t, base, string(it.Path))
			if sum := sha256.Sum256(data); int64(len(data)) != it.Size || !bytes.Equal(sum[:], it.SHA256) {
				t.Errorf("%v: not the promised bytes", at)
			}
		}
	}
	slices.Sort(items)
	return items
}

func fetch(t *testing.T, base, path string) []byte {
	t.Helper()
	res, err := http.Get(base + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", path, res.Status, err)
	}
	return data
}

// gpgvText returns the JSON of a clearsigned document that gpgv accepts.
func gpgvText(t *testing.T, keyring string, doc []byte) []byte {
	t.Helper()
	cmd := exec.Command("gpgv", "--keyring="+keyring, "-")
	cmd.Stdin = bytes.NewReader(doc)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gpgv: %v\n%s", err, out)
	}
	text, err := streams.ClearText(doc)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// gpgvDetached fails the test unless gpgv accepts path.gpg as the signature of path.
func gpgvDetached(t *testing.T, keyring, base, path string) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"doc": fetch(t, base, path), "doc.gpg": fetch(t, base, path+".gpg")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("gpgv", "--keyring="+keyring, filepath.Join(dir, "doc.gpg"), filepath.Join(dir, "doc")).CombinedOutput(); err != nil {
		t.Errorf("%s.gpg: gpgv: %v\n%s", path, err, out)
	}
}
