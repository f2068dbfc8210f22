// Command programs plays those programs of the operator's machine in TestFirstDay that
// cannot be had for a test: the one by whose name it is called.
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
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Both are known to the test by the same names.
const (
	built         = "/opt/oxbow"           // the program, built before
	systemdSocket = "/run/systemd/private" // where systemd is asked
)

func main() {
	name := filepath.Base(os.Args[0])
	play := map[string]func(args []string) error{"go": playGo, "sudo": playSudo, "systemctl": playSystemctl}[name]
	if err := play(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// playGo "builds" oxbow.
func playGo(args []string) error {
	i := slices.Index(args, "-o")
	if i < 0 || args[0] != "build" || args[len(args)-1] != "./cmd/oxbow" {
		return fmt.Errorf("%q does not build oxbow", args)
	}
	data, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(args[i+1]), 0o755), os.WriteFile(args[i+1], data, 0o755))
}

// playSudo runs a command as root, or as the user whom -u names. It has to be setuid.
func playSudo(args []string) error {
	name := "root"
	if len(args) > 2 && args[0] == "-u" {
		name, args = args[1], args[2:]
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	path, err := exec.LookPath(args[0])
	if err := errors.Join(uidErr, gidErr, err); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups([]int{}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}

// playSystemctl asks systemd, which answers with what is wrong.
func playSystemctl(args []string) error {
	conn, err := net.Dial("unix", systemdSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, strings.Join(args, "\n"))
	if err := errors.Join(err, conn.(*net.UnixConn).CloseWrite()); err != nil {
		return err
	}
	problem, err := io.ReadAll(conn)
	if len(problem) > 0 {
		return errors.New(string(problem))
	}
	return err
}
