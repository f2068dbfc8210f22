package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	operatorID = 1000 // user and group of the operator, who may call sudo
	clone      = "/src"
	trusted    = "/etc/ssl/certs/ca-certificates.crt" // where Go looks first
)

// What the test builds for the root.
const (
	built    = "/opt/oxbow" // what the go of the root copies
	programs = "/opt/programs"
)

// newRoot makes the folder that becomes the root of a machine on which nothing of
// oxbow is yet but a clone of the repository. Programs are this machine's.
func newRoot(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	r := &rootFolder{t, dir}
	for _, name := range []string{"/usr", "/etc/ssl/certs", "/opt", "/proc", "/run/systemd", "/var/lib", "/root", "/home", "/dev", "/etc/systemd/system"} {
		r.mkdir(name)
	}
	for _, name := range systemFolders {
		target, err := os.Readlink(name)
		switch _, missing := os.Lstat(name); {
		case missing != nil:
		case err == nil:
			r.must(os.Symlink(target, dir+name))
		default:
			r.mkdir(name) // bound, as /usr is
		}
	}
	for _, name := range devices {
		r.write(name, "")
	}
	r.mkdir("/tmp")
	r.must(os.Chmod(dir+"/tmp", 0o777|fs.ModeSticky))
	r.mkdir("/home/operator")
	r.must(os.Chown(dir+"/home/operator", operatorID, operatorID))
	r.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\noperator:x:1000:1000::/home/operator:/bin/bash\n")
	r.write("/etc/group", "root:x:0:\noperator:x:1000:\n")
	r.write("/etc/shadow", "root:*:20000::::::\noperator:*:20000::::::\n")
	r.write("/etc/gshadow", "root:*::\noperator:!::\n")
	r.write("/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
	r.write("/etc/hosts", "127.0.0.1 localhost images.maas.io\n")
	for _, name := range []string{"/etc/ld.so.cache", "/etc/login.defs"} {
		if data, err := os.ReadFile(name); err == nil {
			r.write(name, string(data))
		}
	}
	r.clone()
	r.build()
	return dir
}

// systemFolders are links into /usr, or as it on older systems.
var systemFolders = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

var devices = []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}

// A rootFolder is a root that is being filled.
type rootFolder struct {
	t   *testing.T
	dir string
}

func (r *rootFolder) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rootFolder) mkdir(name string) {
	r.t.Helper()
	r.must(os.MkdirAll(r.dir+name, 0o755))
}

func (r *rootFolder) write(name, text string) {
	r.t.Helper()
	r.must(os.WriteFile(r.dir+name, []byte(text), 0o644))
}

// clone puts what README's commands need of this repository into the root, as files
// of the operator.
func (r *rootFolder) clone() {
	r.t.Helper()
	const repository = "../.."
	r.mkdir(clone)
	for _, name := range []string{"Makefile", "README.md"} {
		data, err := os.ReadFile(filepath.Join(repository, name))
		r.must(err)
		r.write(filepath.Join(clone, name), string(data))
	}
	const units = "scripts/systemd"
	r.must(os.CopyFS(filepath.Join(r.dir, clone, units), os.DirFS(filepath.Join(repository, units))))
	r.must(filepath.WalkDir(r.dir+clone, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(name, operatorID, operatorID)
	}))
}

// build builds what a clone would need a toolchain and modules for, which are too much
// for a root: `make build` there has the program copied.
func (r *rootFolder) build() {
	r.t.Helper()
	for name, source := range map[string]string{built: ".", programs: "./testdata/programs"} {
		if out, err := exec.Command("go", "build", "-trimpath", "-o", r.dir+name, source).CombinedOutput(); err != nil {
			r.t.Fatalf("go build %s: %v\n%s", source, err, out)
		}
	}
}

// enterRoot makes the working directory, a folder that newRoot made, the root of this
// process, which has namespaces of its own.
func enterRoot() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	b := &binder{root: dir}
	b.mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE) // nobody else sees the others
	for _, name := range append([]string{"/usr"}, systemFolders...) {
		if info, err := os.Lstat(dir + name); err == nil && info.IsDir() {
			b.bind(name, name)
			b.mount("", dir+name, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY)
		}
	}
	for _, name := range devices {
		b.bind(name, name)
	}
	b.mount("proc", dir+"/proc", "proc", 0)
	b.mount("tmpfs", dir+"/usr/local", "tmpfs", 0) // where what README installs goes, and sudo may be root
	b.do(os.Chmod(dir+"/usr/local", 0o755))
	for _, name := range []string{"bin", "sbin"} {
		b.do(os.Mkdir(dir+"/usr/local/"+name, 0o755))
	}
	for name, mode := range map[string]fs.FileMode{"go": 0o755, "sudo": 0o755 | fs.ModeSetuid, "systemctl": 0o755} {
		b.copy(dir+programs, dir+"/usr/local/sbin/"+name, mode)
	}
	b.do(os.WriteFile(dir+"/usr/local/sbin/"+regionName, nil, 0o755))
	b.bind(program, "/usr/local/sbin/"+regionName)
	b.do(syscall.Chroot(dir))
	b.do(os.Chdir("/"))
	b.do(loopbackUp())
	return b.err
}

// A binder mounts until something fails.
type binder struct {
	root string
	err  error
}

func (b *binder) do(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *binder) mount(source, target, kind string, flags uintptr) {
	if b.err == nil {
		b.do(os.NewSyscallError("mount "+target, syscall.Mount(source, target, kind, flags, "")))
	}
}

func (b *binder) copy(from, to string, mode fs.FileMode) {
	data, err := os.ReadFile(from)
	b.do(err)
	b.do(os.WriteFile(to, data, 0o755))
	b.do(os.Chmod(to, mode)) // setuid, too
}

// bind shows what this machine has at source at a place of the root.
func (b *binder) bind(source, name string) {
	b.mount(source, b.root+name, "", syscall.MS_BIND|syscall.MS_REC)
}

// loopbackUp brings up the only interface of a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return os.NewSyscallError("SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

// skipWithoutRoots skips a test where it cannot make a machine of its own.
func skipWithoutRoots(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can have another root")
	}
	for _, program := range []string{"unshare", "mount", "bash", "make", "install", "useradd", "tee", "/bin/kill", "curl", "base64", "gpg", "gpgv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("not installed:", err)
		}
	}
	out, err := exec.Command("unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "sh", "-ec", "mount -t tmpfs tmpfs /root; cat /proc/self/status").CombinedOutput()
	if err != nil {
		t.Skipf("no namespaces here: %v: %s", err, out)
	}
	if strings.Contains(string(out), "NoNewPrivs:\t1") {
		t.Skip("sudo cannot work here: no new privileges")
	}
}
