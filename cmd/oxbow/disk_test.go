package main

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// mayMount reports whether a script can have a file system of its own: where it says [mounts].
var mayMount = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "oxbow-test-")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	return unix.Mount("tmpfs", dir, "tmpfs", 0, "") == nil && unix.Unmount(dir, unix.MNT_DETACH) == nil
})

// diskCommand gives a directory a file system of its own, or changes that:
//
//	disk DIR 100M      mount one of that size, until the end of the script
//	disk DIR full      somebody fills it to the last byte
//	disk DIR free      and takes that away
//	disk DIR ro        it takes no writes any more
//	disk DIR rw        it does again
func diskCommand(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	others := filepath.Join(dir, "others")
	switch args[1] {
	case "full":
		f, err := os.OpenFile(others, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		ts.Check(err)
		defer f.Close()
		chunk := make([]byte, 1<<20)
		for len(chunk) > 0 {
			if _, err := f.Write(chunk); err != nil {
				chunk = chunk[:len(chunk)/2]
			}
		}
	case "free":
		ts.Check(os.Remove(others))
	case "ro":
		ts.Check(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	case "rw":
		ts.Check(unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
	default:
		ts.Check(os.MkdirAll(dir, 0o755))
		ts.Check(unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
		ts.Defer(func() { ts.Check(unix.Unmount(dir, unix.MNT_DETACH)) })
	}
}
