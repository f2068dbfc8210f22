package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary a client, where the environment says so.
func TestMain(m *testing.M) {
	dir := os.Getenv("OXBOW_TEST_CONTROL_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	conn, err := Dial(dir)
	if err == nil {
		_, err = conn.Do(context.Background(), Request{Command: "wait"}, discard)
	}
	fmt.Println(err)
	os.Exit(0)
}

var discard = Screen{Stdout: io.Discard, Stderr: io.Discard, Progress: func(json.RawMessage) {}}

// listenTo starts a server on a directory; handle may be nil.
func listenTo(t *testing.T, dir string, handle Handler) *Server {
	t.Helper()
	s, err := Listen(Options{Dir: dir, Owner: Owner{Version: "1", Role: Serving, Command: "oxbow serve"}, Handle: handle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(errors.New("the test ended")) })
	return s
}

func connect(t *testing.T, dir string) *Conn {
	t.Helper()
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// What a work prints arrives in order, each byte on its own output, progress
// between, and the status last.
func TestDo(t *testing.T) {
	dir := t.TempDir()
	listenTo(t, dir, func(_ context.Context, r *Request, s *Session) int {
		fmt.Fprintf(s.Stdout(), "%s %s\x00\xff", r.Command, r.Work)
		s.Progress(map[string]int{"files": 3})
		s.Progress(nil)
		fmt.Fprint(s.Stderr(), "a warning\n")
		return 3
	})
	c := connect(t, dir)
	if c.Owner.Role != Serving || c.Owner.Command != "oxbow serve" || c.Owner.PID != os.Getpid() {
		t.Errorf("the owner is %+v", c.Owner)
	}
	var got strings.Builder
	status, err := c.Do(t.Context(), Request{Command: "mirror sync", Work: json.RawMessage(`{"a":1}`)}, Screen{
		Stdout: &got, Stderr: &got, Progress: func(p json.RawMessage) { fmt.Fprintf(&got, "<%s>", p) },
	})
	if want := "mirror sync {\"a\":1}\x00\xff<{\"files\":3}><null>a warning\n"; err != nil || status != 3 || got.String() != want {
		t.Errorf("status %d, %v, %q, want 3 and %q", status, err, got.String(), want)
	}
}

// A client that wants to stop has its work stopped, and hears how that ended.
func TestStop(t *testing.T) {
	dir := t.TempDir()
	began := make(chan struct{})
	listenTo(t, dir, func(ctx context.Context, _ *Request, s *Session) int {
		close(began)
		<-ctx.Done()
		fmt.Fprint(s.Stderr(), context.Cause(ctx))
		if stop, ok := errors.AsType[Stop](context.Cause(ctx)); ok && errors.Is(stop, context.Canceled) {
			return 130
		}
		return 1
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-began
		cancel(Stop{"stopped by signal: interrupt"})
	}()
	var stderr strings.Builder
	screen := discard
	screen.Stderr = &stderr
	status, err := connect(t, dir).Do(ctx, Request{}, screen)
	if err != nil || status != 130 || stderr.String() != "stopped by signal: interrupt" {
		t.Errorf("status %d, %v, %q", status, err, stderr.String())
	}
}

// A client that is killed has its work stopped; one that detached is not needed
// any more.
func TestClientGone(t *testing.T) {
	dir := t.TempDir()
	began, detached, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	s := listenTo(t, dir, func(ctx context.Context, r *Request, _ *Session) int {
		if r.Detach {
			detached <- struct{}{}
			ended <- ctx.Err()
			return 0
		}
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return 1
	})
	client := exec.Command(os.Args[0])
	client.Env = append(os.Environ(), "OXBOW_TEST_CONTROL_DIR="+dir)
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	<-began
	if got := s.Running(); len(got) != 1 || got[0] != fmt.Sprintf("wait (pid %d)", client.Process.Pid) {
		t.Errorf("running: %q", got)
	}
	client.Process.Kill()
	client.Wait()
	if err := <-ended; !errors.Is(err, ErrGone) {
		t.Errorf("the work ended by %v", err)
	}
	c := connect(t, dir)
	if status, err := c.Do(t.Context(), Request{Detach: true}, discard); err != nil || status != 0 {
		t.Errorf("detached: status %d, %v", status, err)
	}
	c.Close()
	<-detached
	if err := <-ended; err != nil {
		t.Errorf("the detached work was stopped: %v", err)
	}
	if err := s.Finish(t.Context()); err != nil {
		t.Error(err)
	}
}

// A client that reads nothing, as one that is stopped, holds its work up for a while
// only, and nobody waits for it.
func TestClientSilent(t *testing.T) {
	dir := t.TempDir()
	ended := make(chan error, 1)
	s, err := Listen(Options{Dir: dir, Patience: 50 * time.Millisecond, Handle: func(ctx context.Context, _ *Request, s *Session) int {
		for ctx.Err() == nil {
			s.Progress(zeros(1000))
		}
		ended <- context.Cause(ctx)
		return 0
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(errors.New("the test ended"))
	raw, err := dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := io.WriteString(raw, `{"protocol":1}`); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrGone) {
		t.Errorf("the work ended by %v", err)
	}
	if err := s.Finish(t.Context()); err != nil {
		t.Error(err)
	}
}

// A server that is closed takes its socket away, ends what is under way with the
// cause given, tells its client how that ended, and leaves nobody behind.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	cause := errors.New("told to end")
	began := make(chan struct{})
	s := listenTo(t, dir, func(ctx context.Context, _ *Request, s *Session) int {
		close(began)
		<-ctx.Done()
		fmt.Fprint(s.Stderr(), context.Cause(ctx))
		return 1
	})
	idle := connect(t, dir) // says nothing
	go func() {
		<-began
		s.Close(cause)
	}()
	var stderr strings.Builder
	screen := discard
	screen.Stderr = &stderr
	status, err := connect(t, dir).Do(t.Context(), Request{}, screen)
	if err != nil || status != 1 || stderr.String() != cause.Error() {
		t.Errorf("status %d, %v, %q", status, err, stderr.String())
	}
	s.Close(cause)
	if _, err := os.Stat(filepath.Join(dir, SocketName)); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Errorf("dial: %v", err)
	}
	if _, err := idle.Do(t.Context(), Request{}, discard); !errors.Is(err, ErrNobody) && !errors.Is(err, ErrLost) {
		t.Errorf("who was connected before: %v", err)
	}
}

// A server that is closed between its greeting and the request has begun nothing, and
// says so: the one who asks looks for the next owner.
func TestCloseBeforeRequest(t *testing.T) {
	dir := t.TempDir()
	s := listenTo(t, dir, nil)
	raw, err := dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := &Conn{conn: raw, dec: json.NewDecoder(raw)}
	var greeting fromServer
	if err := c.dec.Decode(&greeting); err != nil || greeting.Owner == nil {
		t.Fatalf("greeting %+v, %v", greeting, err)
	}
	if _, err := io.WriteString(raw, `{"protocol":1,`); err != nil {
		t.Fatal(err)
	}
	s.Close(errors.New("told to end"))
	var m fromServer
	if err := c.dec.Decode(&m); err != nil || !m.Ending {
		t.Errorf("answer %+v, %v, want that it ends", m, err)
	}
}

// Who is told, once the request is out, that the owner ends, has found nobody.
func TestEndingAfterRequest(t *testing.T) {
	dir := t.TempDir()
	ln, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go answerOnce(ln, `{"owner":{"protocol":1,"version":"1"}}{"ending":true}`, true)
	if _, err := connect(t, dir).Do(t.Context(), Request{}, discard); !errors.Is(err, ErrNobody) {
		t.Errorf("got %v, want %v", err, ErrNobody)
	}
}

// Finish waits for works that came in while others ran, and no longer; who comes
// later finds nobody.
func TestFinish(t *testing.T) {
	dir := t.TempDir()
	steps := make(chan chan struct{})
	s := listenTo(t, dir, func(context.Context, *Request, *Session) int {
		go1 := make(chan struct{})
		steps <- go1
		<-go1
		return 0
	})
	do := func() chan error {
		done := make(chan error, 1)
		go func() {
			c, err := Dial(dir)
			if err == nil {
				_, err = c.Do(context.Background(), Request{}, discard)
				c.Close()
			}
			done <- err
		}()
		return done
	}
	first := do()
	release1 := <-steps
	finished := make(chan error, 1)
	go func() { finished <- s.Finish(t.Context()) }()
	second := do()
	release2 := <-steps
	close(release1)
	if err := <-first; err != nil {
		t.Error(err)
	}
	select {
	case <-finished:
		t.Error("finished while a work was under way")
	case <-time.After(20 * time.Millisecond):
	}
	close(release2)
	if err := errors.Join(<-second, <-finished); err != nil {
		t.Error(err)
	}
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Errorf("a work after the end: %v", err)
	}
}

// A path of any length will do, and a socket that a killed process left is taken over.
func TestSocket(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < 400 {
		dir = filepath.Join(dir, strings.Repeat("long", 20))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Errorf("without a socket: %v", err)
	}
	stale, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	stale.Close()
	if _, err := Dial(dir); !errors.Is(err, ErrNobody) {
		t.Errorf("with a stale socket: %v", err)
	}
	listenTo(t, dir, func(context.Context, *Request, *Session) int { return 7 })
	if status, err := connect(t, dir).Do(t.Context(), Request{}, discard); status != 7 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	info, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
}

// The socket is in the directory that the kernel finds, also behind a symbolic link
// and "..".
func TestSocketBehindLink(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "store")
	if err := errors.Join(os.MkdirAll(filepath.Join(base, "a", "b"), 0o755), os.Mkdir(dir, 0o755), os.Symlink(filepath.Join(base, "a", "b"), filepath.Join(base, "link"))); err != nil {
		t.Fatal(err)
	}
	listenTo(t, dir, nil)
	connect(t, base+"/link/../store")
}

// Only root and the user to whom the store's directory belongs get in, whatever
// the mode of the socket.
func TestPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	const owner, other = 12345, 54321
	for _, tt := range []struct {
		uid  uint32
		want string
	}{
		{0, "<nil>"},
		{owner, "<nil>"},
		{other, "is neither the store's user (12345) nor root"},
	} {
		dir, err := os.MkdirTemp("", "control")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, owner, owner)); err != nil {
			t.Fatal(err)
		}
		listenTo(t, dir, func(context.Context, *Request, *Session) int { return 0 })
		if err := os.Chmod(filepath.Join(dir, SocketName), 0o777); err != nil {
			t.Fatal(err)
		}
		binary := copyBinary(t, dir)
		client := exec.Command(binary)
		client.Env = []string{"OXBOW_TEST_CONTROL_DIR=" + dir}
		client.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
		out, err := client.Output()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("user %d: %v, %q, want %q", tt.uid, err, out, tt.want)
		}
	}
}

// copyBinary puts the test binary where every user may run it.
func copyBinary(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "client")
	if err := os.WriteFile(name, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// What is no request is refused, and a peer of another protocol is told what to do.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	listenTo(t, dir, func(context.Context, *Request, *Session) int { return 0 })
	for request, want := range map[string]string{
		"GET / HTTP/1.0\r\n\r\n":               "the request cannot be read",
		`{"protocol":99,"version":"9"}`:        "it is oxbow 1 and does not understand oxbow 9: restart it",
		`{"work":"` + zeros(maxRequest) + `"}`: "the request cannot be read",
	} {
		raw, err := dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(raw)
		var greeting, answer fromServer
		if err := dec.Decode(&greeting); err != nil || greeting.Owner == nil {
			t.Fatalf("greeting %+v, %v", greeting, err)
		}
		go io.WriteString(raw, request)
		if err := dec.Decode(&answer); err != nil || !strings.Contains(answer.Refused, want) {
			t.Errorf("%.40q: %+v, %v, want %q", request, answer, err, want)
		}
		raw.Close()
	}
	other := t.TempDir()
	ln, err := listen(other)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for greeting, want := range map[string]string{
		`{"owner":{"protocol":2,"version":"2","command":"oxbow serve","pid":7}}`: `oxbow 2, which does not understand this one: restart "oxbow serve" (pid 7)`,
		"{}": "is not the socket of an oxbow",
	} {
		go answerOnce(ln, greeting, false)
		if _, err := Dial(other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("greeted with %s: %v, want %q", greeting, err, want)
		}
	}
}

func zeros(n int) string { return strings.Repeat("0", n) }

// answerOnce sends text to one client, and, if it is to listen, hangs up after that
// one's request.
func answerOnce(ln *net.UnixListener, text string, listens bool) {
	conn, err := ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, text)
	if listens {
		_ = json.NewDecoder(conn).Decode(new(Request))
	}
}

// Files of the client's are the server's to read while the work is under way, regular ones and pipes, and closed after it; what was
// read of them shows in the client's own, as it is one open file.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	var kept []*os.File
	listenTo(t, dir, func(_ context.Context, r *Request, s *Session) int {
		kept = r.Files
		for _, f := range r.Files {
			if _, err := io.Copy(s.Stdout(), f); err != nil {
				fmt.Fprint(s.Stderr(), err)
			}
		}
		return len(r.Files)
	})
	name := filepath.Join(dir, "secret")
	if err := os.WriteFile(name, []byte("from a file, "), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	go func() {
		io.WriteString(w, "from a pipe")
		w.Close()
	}()
	var out strings.Builder
	status, err := connect(t, dir).Do(t.Context(), Request{Work: json.RawMessage(`"` + zeros(1<<20) + `"`), Files: []*os.File{file, pipe}}, Screen{Stdout: &out, Stderr: &out})
	if err != nil || status != 2 || out.String() != "from a file, from a pipe" {
		t.Errorf("status %d, %v, %q", status, err, out.String())
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := kept[0].Stat(); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the files stay open")
		}
	}
	if _, err := connect(t, dir).Do(t.Context(), Request{Files: make([]*os.File, MaxFiles+1)}, discard); err == nil || !strings.Contains(err.Error(), "more than 250") {
		t.Errorf("too many: %v", err)
	}
	raw, err := dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := &Conn{conn: raw, dec: json.NewDecoder(raw)}
	var greeting, answer fromServer
	if err := c.dec.Decode(&greeting); err != nil {
		t.Fatal(err)
	}
	io.WriteString(raw, `{"protocol":1,"files":3}`)
	if err := c.dec.Decode(&answer); err != nil || !strings.Contains(answer.Refused, "of 3 files that come with the request 0 arrived") {
		t.Errorf("files that do not come: %+v, %v", answer, err)
	}
}
