package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"oxbow/streams/streamstest"
)

func TestMain(m *testing.M) {
	playProgram(m)
	testscript.Main(plainly{m}, map[string]func(){racing: main, tortured: dieAsTold})
}

// racing is this test binary as a program, with the race detector where the tests have
// it. It takes a third of a second to start, so it is for servers.
const racing = "oxbow-racing"

// plainly runs tests with the program itself in PATH, built as a user would build it.
type plainly struct{ *testing.M }

func (m plainly) Run() int {
	dir, err := os.MkdirTemp("", "oxbow-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", dir, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the program: %v\n%s", err, out)
		return 1
	}
	os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return m.M.Run()
}

// TestScripts runs the scripts of testdata, a promise each. OXBOW_STORE names a
// store that is not there yet.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("OXBOW_STORE", env.WorkDir+"/store")
			env.Setenv("OXBOW_LOG_FORMAT", "text")
			env.Values[worldKey{}] = &world{jobs: map[string]*job{}}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "mounts" {
				return mayMount(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"upstream": upstreamCommand,
			"disk":     diskCommand,
			"config":   configCommand,
			"status":   statusCommand,
			"start":    startCommand,
			"url":      urlCommand,
			"signal":   signalCommand,
			"await":    awaitCommand,
			"end":      endCommand,
			"get":      getCommand,
			"audit":    auditCommand,
			"damage":   damageCommand,
			"nginx":    nginxCommand,
		},
	})
}

// A world is what a script has around it.
type world struct {
	tree   *streamstest.Tree
	before *streamstest.Tree // the day before
	up     *streamstest.Upstream
	server *httptest.Server
	jobs   map[string]*job
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// upstreamCommand starts an upstream in the shape of images.maas.io, or changes
// the one there is:
//
//	upstream               start; sets UPSTREAM, writes its keyring to upstream.gpg
//	upstream unsigned      the same without signatures
//	upstream day           publish new versions and drop the oldest
//	upstream older         publish the tree as it was a day before
//	upstream break PATH    a bit of the file is wrong
//	upstream mend PATH     the file is whole again
//	upstream fault NAME    go wrong as faults says; "none" ends it, also for
//	                       requests that hang
//	upstream stop          there is none any more
//	upstream write DIR     write the tree as sstream-mirror does: upstream's documents of one
//	                       family, and the files
//	upstream hits PATH N   fail unless PATH was asked for N times since the last such line
//	upstream await PATH [N] wait until PATH was asked for N times, or once
func upstreamCommand(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	verb, operand := "", ""
	if len(args) > 0 {
		verb = args[0]
	}
	if len(args) > 1 {
		operand = args[1]
	}
	switch verb {
	case "", "unsigned":
		w.start(ts, verb == "unsigned")
	case "day":
		w.before = w.tree.Clone()
		w.tree.AddDay()
		w.tree.Trim(2)
		w.up.Publish(w.tree)
	case "older":
		w.up.Publish(w.before)
	case "break":
		w.tree.Break(operand, streamstest.Flipped)
		w.up.Publish(w.tree)
	case "mend":
		w.tree.Break(operand, streamstest.Whole)
		w.up.Publish(w.tree)
	case "fault":
		fault, ok := faults[operand]
		if !ok {
			ts.Fatalf("no fault %q", operand)
		}
		w.up.SetFault(fault)
		if fault == nil {
			w.up.Release()
		}
	case "stop":
		w.server.Close()
	case "write":
		ts.Check(writeTree(w.tree, ts.MkAbs(operand)))
	case "hits":
		if got := strconv.Itoa(w.up.Hits(operand)); got != args[2] {
			ts.Fatalf("%s was asked for %s times, want %s", operand, got, args[2])
		}
		w.up.Reset()
	case "await":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		times := 1
		if len(args) > 2 {
			n, err := strconv.Atoi(args[2])
			ts.Check(err)
			times = n
		}
		ts.Check(w.up.Await(ctx, operand, times))
	default:
		ts.Fatalf("unknown: upstream %s", verb)
	}
}

// writeTree writes a tree as sstream-mirror does.
func writeTree(tree *streamstest.Tree, dir string) error {
	p := tree.Render()
	err := p.WriteDir(dir)
	for path := range p.Documents() {
		if tree.Key != nil && !strings.HasSuffix(path, ".sjson") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, path)))
		}
	}
	return err
}

func (w *world) start(ts *testscript.TestScript, unsigned bool) {
	w.tree = streamstest.MAAS(streamstest.Shape{})
	if unsigned {
		w.tree.Key = nil
	} else {
		ts.Check(os.WriteFile(ts.MkAbs("upstream.gpg"), w.tree.Keyring(), 0o644))
	}
	w.up = streamstest.NewUpstream(w.tree)
	w.server = httptest.NewServer(http.StripPrefix(demoPath, w.up))
	ts.Defer(func() {
		w.up.Release()
		w.server.Close()
	})
	ts.Setenv("UPSTREAM", w.server.URL+demoPath)
	ts.Setenv("SECRET_UPSTREAM", strings.Replace(w.server.URL, "://", "://us3r:s3cret@", 1)+demoPath)
}

// configCommand writes oxbow.yaml for a server on a free port of 127.0.0.1, with the
// stream stable, and names it in OXBOW_CONFIG in the place of OXBOW_STORE:
//
//	config           that stream, every hour
//	config more      and another one, second, of all that upstream has
//	config wider     with a second selection, which matches nothing
//	config offline   all of that upstream, which is never asked
//	config bad       with a key that is none
//	config closed    served by TLS to who shows a token
//	config forward   with a forward proxy
//	config allowing  with one that allows upstream's host
func configCommand(ts *testscript.TestScript, _ bool, args []string) {
	var kind string
	if len(args) > 0 {
		kind = args[0]
	}
	serve := "{listen: \"127.0.0.1:0\"}"
	if kind == "closed" {
		ts.Check(os.WriteFile(ts.MkAbs("tokens"), []byte("0123456789abcdef\n"), 0o600))
		writeCertificate(ts)
		serve = "{listen: \"127.0.0.1:0\", tls: {cert: cert.pem, key: key.pem}, token_file: tokens}"
	}
	if kind == "forward" || kind == "allowing" {
		allow := ""
		if kind == "allowing" {
			up, err := url.Parse(ts.Getenv("UPSTREAM"))
			ts.Check(err)
			allow = strconv.Quote(up.Host)
		}
		serve = fmt.Sprintf("{listen: \"127.0.0.1:0\", forward_proxy: {listen: \"127.0.0.1:0\", allow: [%s]}}", allow)
	}
	wanted := "release=noble arch=amd64"
	if kind == "wider" {
		wanted = "[release=noble arch=amd64, os=centoss]"
	}
	text := fmt.Sprintf(`store: {path: store, reserve: 0}
serve: %s
streams:
  - name: stable
    upstream: %s
    keyring: upstream.gpg
    path: /images/
    select: %s
    sync: {every: 1h}
`, serve, ts.Getenv("UPSTREAM"), wanted)
	if kind == "offline" {
		text = strings.NewReplacer("    select: "+wanted+"\n", "", "sync: {every: 1h}", "offline: true").Replace(text)
	}
	if kind == "more" {
		text += fmt.Sprintf("  - {name: second, upstream: %s, keyring: upstream.gpg, path: /second/, advertise: selected, sync: {at: \"03:15\"}}\n", ts.Getenv("UPSTREAM"))
	}
	if kind == "bad" {
		text += "    max_version: 2\n"
	}
	ts.Check(os.WriteFile(ts.MkAbs("oxbow.yaml"), []byte(text), 0o600))
	ts.Setenv("OXBOW_CONFIG", ts.MkAbs("oxbow.yaml"))
	ts.Setenv("OXBOW_STORE", "")
}

// writeCertificate writes cert.pem, of 127.0.0.1, which trusts itself, and key.pem.
func writeCertificate(ts *testscript.TestScript) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(block), 0o600))
	}
}

// faults are the ways in which the upstream of a script goes wrong.
var faults = map[string]func(*http.Request) streamstest.Fault{
	"none":           nil,
	"hung squashfs":  streamstest.At("/squashfs", streamstest.Fault{Hang: true}),
	"no index":       streamstest.At("/index.sjson", streamstest.Fault{Status: http.StatusNotFound}),
	"unsigned index": streamstest.At("/index.sjson", streamstest.Fault{Unsigned: true}),
}

// statusCommand runs a program that has to end with a status: status 3 oxbow
// mirror sync.
func statusCommand(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	if got := exitCode(err); got != want {
		ts.Fatalf("status %d (%v), want %d", got, err, want)
	}
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// A job is a process that runs beside a script.
type job struct {
	cmd    *exec.Cmd
	stderr lockedBuffer
	ended  chan struct{} // closed when the process has
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startCommand starts a program beside the script: start NAME PROGRAM ARG...
func startCommand(ts *testscript.TestScript, _ bool, args []string) {
	j := &job{cmd: exec.Command(args[1], args[2:]...), ended: make(chan struct{})}
	j.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "OXBOW_STORE", "OXBOW_CONFIG", "OXBOW_LOG_FORMAT", "OXBOW_UPSTREAM", "OXBOW_KEYRING"} {
		if value := ts.Getenv(name); value != "" {
			j.cmd.Env = append(j.cmd.Env, name+"="+value)
		}
	}
	j.cmd.Stderr = &j.stderr
	ts.Check(j.cmd.Start())
	go func() {
		defer close(j.ended)
		_ = j.cmd.Wait() // its status is read from cmd
	}()
	ts.Defer(func() {
		_ = j.cmd.Process.Kill() // it may have ended
		<-j.ended
	})
	worldOf(ts).jobs[args[0]] = j
}

var (
	listening  = regexp.MustCompile(`msg=listening address=(\S+)`)
	forwarding = regexp.MustCompile(`msg="listening as a forward proxy" address=(\S+)`)
)

// urlCommand waits until a started server listens and sets a variable to its
// URL, and VARIABLE_ADDRESS to its address: url NAME VARIABLE. With "forward"
// after that it is the forward proxy's.
func urlCommand(ts *testscript.TestScript, _ bool, args []string) {
	j := worldOf(ts).jobs[args[0]]
	var found []string
	line := listening
	if len(args) > 2 {
		line = forwarding
	}
	err := until(func() bool {
		found = line.FindStringSubmatch(j.stderr.String())
		return found != nil
	})
	if err != nil {
		ts.Fatalf("%s does not listen: %s", args[0], j.stderr.String())
	}
	ts.Setenv(args[1], "http://"+found[1])
	ts.Setenv(args[1]+"_ADDRESS", found[1])
}

// signalCommand sends a signal to a started program: signal NAME HUP. With a status
// the program has to end with that: signal NAME TERM 0.
func signalCommand(ts *testscript.TestScript, neg bool, args []string) {
	j := worldOf(ts).jobs[args[0]]
	sig := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}[args[1]]
	ts.Check(j.cmd.Process.Signal(sig))
	if len(args) > 2 {
		endCommand(ts, neg, []string{args[0], args[2]})
	}
}

// endCommand waits for a started program, which has to end with a status (-1: by a
// signal); its standard error can be matched then: end NAME 0.
func endCommand(ts *testscript.TestScript, _ bool, args []string) {
	j := worldOf(ts).jobs[args[0]]
	select {
	case <-j.ended:
	case <-time.After(patience):
		ts.Fatalf("%s goes on: %s", args[0], j.stderr.String())
	}
	io.WriteString(ts.Stderr(), j.stderr.String())
	if got := strconv.Itoa(j.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ends with status %s, want %s: %s", args[0], got, args[1], j.stderr.String())
	}
}

// awaitCommand waits until the standard error of a started program matches a
// regular expression: await NAME REGEXP.
func awaitCommand(ts *testscript.TestScript, _ bool, args []string) {
	j, want := worldOf(ts).jobs[args[0]], regexp.MustCompile(args[1])
	if until(func() bool { return want.MatchString(j.stderr.String()) }) != nil {
		ts.Fatalf("%s does not say %s: %s", args[0], want, j.stderr.String())
	}
}

// getCommand requests a URL, prints the body, and wants a status: get 200 URL.
func getCommand(ts *testscript.TestScript, _ bool, args []string) {
	resp, err := http.Get(args[1])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s answers %s: %s", args[1], got, body)
	}
	ts.Stdout().Write(body)
}

// auditCommand proves all that a server serves below a path: audit URL PATH. It
// prints the counts.
func auditCommand(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	a, err := auditTree(context.Background(), client, args[0]+args[1], args[0]+"/-/keyring.gpg")
	ts.Check(err)
	io.WriteString(ts.Stdout(), a.String()+"\n")
}

// nginxCommand serves a directory below /tree/ by nginx, or by a file server where that is not installed, with key.gpg as
// /-/keyring.gpg: nginx DIR VARIABLE. The variable is the server's URL.
func nginxCommand(ts *testscript.TestScript, _ bool, args []string) {
	root := ts.MkAbs("nginx-root")
	ts.Check(os.MkdirAll(root+"/-", 0o755))
	ts.Check(os.Symlink(ts.MkAbs(args[0]), root+"/tree"))
	ts.Check(os.Symlink(ts.MkAbs("key.gpg"), root+"/-/keyring.gpg"))
	if _, err := exec.LookPath("nginx"); err != nil {
		server := httptest.NewServer(http.FileServer(http.Dir(root)))
		ts.Defer(server.Close)
		ts.Setenv(args[1], server.URL)
		return
	}
	state := ts.MkAbs("nginx-state")
	ts.Check(os.MkdirAll(state, 0o755))
	url, stop, err := startNginx(root, state)
	ts.Check(err)
	ts.Defer(stop)
	ts.Setenv(args[1], url)
}

// damageCommand changes a bit of the largest blob of a store: damage DIR.
func damageCommand(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(damageLargest(ts.MkAbs(args[0])))
}

func damageLargest(store string) error {
	var largest string
	var size int64
	err := filepath.WalkDir(store+"/blobs", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if st, err := d.Info(); err == nil && st.Size() > size {
			largest, size = name, st.Size()
		}
		return nil
	})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(largest)
	if err != nil {
		return err
	}
	data[0] ^= 1
	return errors.Join(os.Chmod(largest, 0o644), os.WriteFile(largest, data, 0o644))
}

// patience is how long a script waits for what takes milliseconds.
const patience = 30 * time.Second

func until(done func() bool) error {
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			return errors.New("waited in vain")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}
