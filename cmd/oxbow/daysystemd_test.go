package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	systemdSocket = "/run/systemd/private"
	notifySocket  = "/run/systemd/notify"
	systemUnits   = "/etc/systemd/system"
	systemPath    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// A systemd does for services what README has systemctl ask for. Unlike the real one
// it does not confine them, and does not start one again that failed.
type systemd struct {
	ready   chan struct{} // a service has told that it is
	units   map[string]unit
	running map[string]*service
	journal lockedBuffer // what services wrote to standard error
}

type service struct {
	unit unit
	cmd  *exec.Cmd
	end  chan error // of the process
}

// startSystemd waits for systemctl until the test ends.
func startSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{ready: make(chan struct{}, 1), running: map[string]*service{}}
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	asked, err := net.Listen("unix", systemdSocket)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(notifySocket, 0o777), os.Chmod(systemdSocket, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		asked.Close()
		notified.Close()
	})
	go s.listen(notified)
	go s.serve(asked)
	return s
}

// listen takes what services tell.
func (s *systemd) listen(notified *net.UnixConn) {
	message := make([]byte, 4096)
	for {
		n, err := notified.Read(message)
		if err != nil {
			return // the test has ended
		}
		if !strings.Contains("\n"+string(message[:n])+"\n", "\nREADY=1\n") {
			continue
		}
		select {
		case s.ready <- struct{}{}:
		default:
		}
	}
}

// serve does what systemctl asks, one after the other, and answers with what is wrong.
func (s *systemd) serve(asked net.Listener) {
	for {
		conn, err := asked.Accept()
		if err != nil {
			return // the test has ended
		}
		words, err := io.ReadAll(conn)
		if err == nil {
			err = s.do(strings.Split(string(words), "\n"))
		}
		if err != nil {
			_, _ = io.WriteString(conn, err.Error()) // systemctl may be gone
		}
		conn.Close()
	}
}

func (s *systemd) do(args []string) (err error) {
	if len(args) == 1 && args[0] == "daemon-reload" {
		return s.reread()
	}
	if len(args) == 3 && args[0] == "enable" && args[1] == "--now" {
		args = []string{"start", args[2]}
	}
	if len(args) != 2 {
		return fmt.Errorf("cannot do %q", args)
	}
	name := strings.TrimSuffix(args[1], ".service")
	switch args[0] {
	case "start":
		return s.start(name)
	case "stop":
		return s.stop(name)
	case "restart":
		return errors.Join(s.stop(name), s.start(name))
	case "reload":
		return s.reload(name)
	}
	return fmt.Errorf("cannot do %q", args)
}

// reread reads the units that there are.
func (s *systemd) reread() error {
	s.units = map[string]unit{}
	files, err := filepath.Glob(systemUnits + "/*.service")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		u, err := parseUnit(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		s.units[strings.TrimSuffix(filepath.Base(file), ".service")] = u
	}
	return err
}

// start returns when the service is ready.
func (s *systemd) start(name string) error {
	u, known := s.units[name]
	if !known {
		return fmt.Errorf("there is no unit %s.service", name)
	}
	if s.running[name] != nil {
		return nil
	}
	for key, want := range map[string]string{"Service.Type": "notify", "Install.WantedBy": "multi-user.target"} {
		if got := strings.Join(u[key], " "); got != want {
			return fmt.Errorf("%s.service: %s is %q, and only %s is played", name, key, got, want)
		}
	}
	credential, err := credentialOf(strings.Join(u["Service.User"], " "))
	if err != nil {
		return err
	}
	words := strings.Fields(strings.Join(u["Service.ExecStart"], " "))
	j := &service{unit: u, cmd: exec.Command(words[0], words[1:]...), end: make(chan error, 1)}
	j.cmd.Dir, j.cmd.Stderr = "/", &s.journal
	j.cmd.Env = []string{"PATH=" + systemPath, "NOTIFY_SOCKET=" + notifySocket}
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	select {
	case <-s.ready: // one before said so when it was reloaded
	default:
	}
	if err := j.cmd.Start(); err != nil {
		return err
	}
	go func() { j.end <- j.cmd.Wait() }()
	select {
	case <-s.ready:
		s.running[name] = j
		return nil
	case err := <-j.end:
		return fmt.Errorf("job for %s.service failed: %v", name, err)
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s.service does not get ready", name), j.cmd.Process.Kill())
	}
}

func (s *systemd) stop(name string) error {
	j := s.running[name]
	if j == nil {
		return nil
	}
	delete(s.running, name)
	if err := j.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-j.end:
		return err
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s.service does not end", name), j.cmd.Process.Kill())
	}
}

func (s *systemd) reload(name string) error {
	j := s.running[name]
	if j == nil {
		return fmt.Errorf("%s.service is not active", name)
	}
	line := strings.ReplaceAll(strings.Join(j.unit["Service.ExecReload"], " "), "$MAINPID", strconv.Itoa(j.cmd.Process.Pid))
	words := strings.Fields(line)
	if len(words) == 0 {
		return fmt.Errorf("%s.service cannot be reloaded", name)
	}
	return exec.Command(words[0], words[1:]...).Run()
}

func credentialOf(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	var c syscall.Credential
	_, err = fmt.Sscan(u.Uid+" "+u.Gid, &c.Uid, &c.Gid)
	return &c, err
}
