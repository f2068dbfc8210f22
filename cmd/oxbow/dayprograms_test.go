package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// programs are those of the operator's machine that cannot be had for a test: this
// binary plays the one by whose name it is called.
var programs = map[string]func(args []string) error{
	"go":        playGo,
	"maas":      playMAAS,
	"sudo":      playSudo,
	"systemctl": playSystemctl,
}

// machineName is the name by which this binary runs a test as the machine itself.
const machineName = "machine"

// playProgram does not return if this process is to play something.
func playProgram(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if name == machineName {
		os.Exit(m.Run())
	}
	play, known := programs[name]
	if !known {
		return
	}
	if err := play(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// playGo "builds" the program that the test has built for the root.
func playGo(args []string) error {
	i := slices.Index(args, "-o")
	if i < 0 || args[0] != "build" || args[len(args)-1] != "./cmd/oxbow" {
		return fmt.Errorf("%q does not build the program", args)
	}
	if err := os.MkdirAll(filepath.Dir(args[i+1]), 0o755); err != nil {
		return err
	}
	return copyFile(builtBy, args[i+1])
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// playSudo runs a command as root, or as the user whom -u names.
func playSudo(args []string) error {
	name := "root"
	if len(args) > 2 && args[0] == "-u" {
		name, args = args[1], args[2:]
	}
	credential, err := credentialOf(name)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	err = errors.Join(syscall.Setgroups([]int{}), syscall.Setgid(int(credential.Gid)), syscall.Setuid(int(credential.Uid)))
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
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

// playSystemctl has the systemd of the machine do something.
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

// playMAAS is a region controller that imports all that a boot source has, and trusts
// the keyring that it was given.
func playMAAS(args []string) error {
	given := map[string]string{}
	words := []string{}
	for _, arg := range args {
		if key, value, ok := strings.Cut(arg, "="); ok {
			given[key] = value
		} else {
			words = append(words, arg)
		}
	}
	url, keyring := given["url"], given["keyring_data@"]
	filename, named := given["keyring_filename"]
	if !slices.Equal(words, []string{"admin", "boot-sources", "create"}) || len(given) != 3 || keyring == "" || !named || filename != "" || !strings.HasSuffix(url, "/") {
		return fmt.Errorf("%q creates no boot source", args)
	}
	keyring, err := filepath.Abs(keyring)
	if err != nil {
		return err
	}
	transport := &http.Transport{}
	transport.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
	a, err := auditTree(context.Background(), &http.Client{Transport: transport}, url, "file://"+keyring)
	if err != nil {
		return err
	}
	fmt.Println(a)
	return nil
}
